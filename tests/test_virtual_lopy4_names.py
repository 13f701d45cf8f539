"""The virtual LoPy4's Pycom firmware against the table of what release 1.20.2.r6 has: nothing beyond it, and what is left out is said."""

from __future__ import annotations

import ast
import base64
import fnmatch
import json
import random
import re
import socket
import zlib

import pytest
from virtual_lopy4 import Device
from virtual_lopy4_host import REPOSITORY, Host

TABLE = json.loads((REPOSITORY / "virtual/lopy4/modules/pycom/r6.json").read_text())
MODULES = {name: set(names.split()) for name, names in TABLE["modules"].items()}
ALLOWED = MODULES | {name: MODULES[name] | set(names.split()) for name, names in TABLE["pybytes"].items()}
TYPES = {name: set(names.split()) for name, names in TABLE["types"].items()}
# Every object of the interpreter answers to these.
COMMON = {
    "__class__",
    "__name__",
    "__dict__",
    "__bases__",
    "__next__",
    "__init__",
    "__new__",
    "__module__",
    "__qualname__",
    "__call__",
    "__repr__",
}
# What the interpreter itself asks a stream for that is written in Python.
STREAM = {"ioctl"}

# Python or a MicroPython of today has them, the board has not.
NO_MODULES = (
    *("io", "zlib", "collections", "random", "urandom", "heapq", "uheapq", "asyncio", "uasyncio", "deflate", "vfs", "uvfs"),
    *("platform", "tls", "requests", "mip", "argparse", "logging", "threading", "datetime", "functools"),
    *("itertools", "cryptolib", "ucryptolib", "dht", "neopixel", "ntptime", "esp", "esp32", "_asyncio", "ffi", "termios"),
    *("umath", "ugc", "usys", "unetwork", "upycom", "uarray", "_hardware", "_socket", "btree", "websocket", "uwebsocket"),
)  # fmt: skip
OBJECTS = {
    "io.StringIO, BytesIO": ["uio.StringIO()", "uio.BytesIO()"],
    "str": ["''"],
    "bytes": ["b''"],
    "bytearray, array": ["bytearray()"],
    "dict": ["{}"],
    "list": ["[]"],
    "set": ["set()"],
    "tuple": ["()"],
    "int": ["int"],
    "hash": ["uhashlib.sha256"],
    "file (FAT)": ["open('/flash/main.py')", "open('/flash/main.py', 'rb')"],
    "socket": ["usocket.socket()"],
    "uzlib.DecompIO": ["uzlib.DecompIO"],
    "machine.ADC": ["umachine.ADC"],
    "machine.ADC channel": ["umachine.ADC().channel(pin='P17')"],
    "machine.I2C": ["umachine.I2C"],
    "machine.Pin": ["umachine.Pin"],
    "machine.RTC": ["umachine.RTC"],
    "machine.WDT": ["umachine.WDT"],
    "network.Server": ["network.Server"],
    "network.WLAN": ["network.WLAN"],
}


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    with Device(tmp_path_factory.mktemp("names") / "device", paced=False, wifi_join_ms=1) as device:
        assert device.wait_for(b">>> ")
        with Host(device.port) as host:
            host.raw()
            host.ask(
                "import sys, umachine, network, pycom, uhashlib, uio, uos, usocket, utime, uzlib, ubinascii, ujson"
            )
            host.ask("w = network.WLAN(mode=network.WLAN.STA); w.connect('x')")
            host.ask("while not w.isconnected(): utime.sleep_ms(20)")
            yield host


def names(host, expression: str) -> set[str]:
    found = set(ast.literal_eval(host.ask(f"print(dir({expression}))")))
    return {name for name in found - COMMON if not re.match("_[^_]", name)}


def has(host, module: str) -> bool:
    error = host.send(f"import {module}")[1]
    assert not error or f"ImportError: no module named '{module}'" in error
    return not error


def test_no_module_beyond_the_table(host):
    for name in NO_MODULES:
        assert not has(host, name), name
    for name in [*MODULES, *TABLE["weak_links"].split()]:
        bare = name.removeprefix("u")
        if bare != name and bare not in TABLE["weak_links"].split():
            assert not has(host, bare), bare


def test_no_name_beyond_the_table(host):
    for module, known in ALLOWED.items():
        if has(host, module):
            assert names(host, module) <= known | STREAM, module
    for alias in TABLE["weak_links"].split():
        if has(host, alias):
            assert names(host, alias) <= ALLOWED["u" + alias], alias


def test_no_method_beyond_the_table(host):
    assert set(TYPES) - set(OBJECTS) == {"file (LittleFS)", "lora", "machine.SPI", "machine.UART"}
    for name, expressions in OBJECTS.items():
        for expression in expressions:
            assert names(host, expression) <= TYPES[name] | STREAM, expression
    for call in (
        "''.partition(' ')",
        "''.splitlines()",
        "b''.hex()",
        "bytearray().find(b'')",
        "TimeoutError()",
        "sys.stdout.flush()",
        "sys.stdin.buffer",
    ):
        assert re.search("AttributeError|NameError", host.send(call)[1]), call


def test_no_method_of_a_file_in_littlefs_beyond_the_table(tmp_path):
    with Device(tmp_path / "device", paced=False, file_system="littlefs") as device:
        assert device.wait_for(b">>> ")
        with Host(device.port) as host:
            host.raw()
            for mode in ("r", "rb"):
                assert names(host, f"open('/flash/main.py', {mode!r})") == TYPES["file (LittleFS)"]


def test_what_the_table_has_and_the_double_lacks_stands_in_its_readme(host):
    text = (REPOSITORY / "virtual/lopy4/README.md").read_text()
    said = {}
    for name, patterns in re.findall(
        r"^    (\w[^:]*): (.+)$", text.partition("## What it lacks of Pycom's firmware")[2], re.M
    ):
        said.setdefault(name, []).extend(patterns.split())
    lacking = {}
    for module, known in MODULES.items():
        missing = known - names(host, module) if has(host, module) else known
        if module == "builtins":  # dir() does not say all of them
            missing = {name for name in known if host.send(f"import builtins; builtins.{name}")[1]}
        lacking[module] = missing
    for name, expressions in OBJECTS.items():
        lacking[name] = TYPES[name] - names(host, expressions[0])
    lacking = {name: missing for name, missing in lacking.items() if missing}
    assert said.keys() == lacking.keys()
    for name, patterns in said.items():
        known = MODULES.get(name) or TYPES[name]
        assert lacking[name] == {one for one in known for p in patterns if fnmatch.fnmatchcase(one, p)}, name


DATA = random.Random(7).randbytes(200) * 3  # the nearest repetition is 200 bytes back


def deflated(bits: int) -> str:
    press = zlib.compressobj(9, zlib.DEFLATED, bits, 9)
    return base64.b64encode(press.compress(DATA) + press.flush()).decode()


def test_a_zlib_stream_has_a_window_of_128_bytes(host):
    host.ask(f"zipped = uio.BytesIO(ubinascii.a2b_base64({deflated(15)!r}))")
    assert "OSError: [Errno 22] EINVAL" in host.send("uzlib.DecompIO(zipped).read()")[1]
    for bits in (-15, -9):
        host.ask(f"raw = uio.BytesIO(ubinascii.a2b_base64({deflated(bits)!r}))")
        assert host.ask(f"print(len(uzlib.DecompIO(raw, {bits}).read()))") == str(len(DATA))
    # What refers no further back can be had, and so can anything in one block of memory.
    near = base64.b64encode(zlib.compress(b"abc" * 500)).decode()
    host.ask(f"near = ubinascii.a2b_base64({near!r})")
    assert host.ask("print(len(uzlib.DecompIO(uio.BytesIO(near)).read()))") == "1500"
    assert host.ask(f"print(len(uzlib.decompress(ubinascii.a2b_base64({deflated(15)!r}))))") == str(len(DATA))
    assert "ValueError: compression header" in host.send("uzlib.DecompIO(uio.BytesIO(b'no zlib'))")[1]


def test_time_outs_of_sockets(host):
    with socket.create_server(("127.0.0.1", 0)) as server:
        host.ask(f"s = usocket.socket(); s.settimeout(0.1); s.connect(('127.0.0.1', {server.getsockname()[1]}))")
        peer, _ = server.accept()
        assert "TimeoutError: timed out" in host.send("s.recv(1)")[1]
        assert host.ask("print(s.read(1))") == "None"
        # Without blocking, nothing yet and closed are the same.
        assert host.ask("s.setblocking(False); print(s.recv(1))") == "b''"
        peer.close()
        assert host.ask("utime.sleep_ms(50); print(s.recv(1)); s.close()") == "b''"
        port = server.getsockname()[1]
    # Refused; and with a time-out the socket is closed then.
    assert "ECONNREFUSED" in host.send(f"s = usocket.socket(); s.settimeout(1); s.connect(('127.0.0.1', {port}))")[1]
    assert "OSError" in host.send("s.send(b'x')")[1]
    assert (
        host.ask("import errno; print(errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.errorcode[104])")
        == "116 118 ECONNRESET"
    )


@pytest.mark.parametrize("profile", ["pycom", "mainline"])
def test_json_makes_two_halves_of_a_character_beyond_the_first_plane(tmp_path, profile):
    with Device(tmp_path / "device", profile=profile, paced=False) as device:
        assert device.wait_for(b">>> ")
        with Host(device.port) as host:
            host.raw()
            assert (
                host.ask("import json; print([ord(c) for c in json.loads('\"\\\\ud83c\\\\udfe0\"')])")
                == "[55356, 57312]"
            )
            whole = "[ord(c) for c in json.loads(b'\"\\xf0\\x9f\\x8f\\xa0\"')]"
            assert host.ask(f"print({whole})") == "[127968]"
