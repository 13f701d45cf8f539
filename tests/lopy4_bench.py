"""What the tests of the role lopy4 share: a virtual device on the bench, small programs for it, and visits by the uploader."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

from ansible_collections.tig_pi.stack.plugins.action import lopy4_interpreter as interpreter_action
from ansible_collections.tig_pi.stack.plugins.module_utils.lopy4.config_block import IDENTITY, with_file_system
from ansible_collections.tig_pi.stack.plugins.module_utils.lopy4.flash_layout import CONFIG, FILE_SYSTEM, SECTOR
from ansible_collections.tig_pi.stack.plugins.module_utils.lopy4.flash_layout import erased as erased_regions
from ansible_collections.tig_pi.stack.plugins.module_utils.lopy4.raw_repl import Repl
from ansible_collections.tig_pi.stack.plugins.module_utils.lopy4.session import visit
from ansible_collections.tig_pi.stack.plugins.module_utils.lopy4.transport import DeviceError, Gone, Line
from ansible_collections.tig_pi.stack.plugins.module_utils.lopy4.upload import Damaged, Upload
from ansible_collections.tig_pi.stack.plugins.modules import lopy4_interpreter as interpreter_module
from ansible_collections.tig_pi.stack.plugins.plugin_utils.lopy4.program import root_files
from project import REPOSITORY
from virtual_lopy4 import Device
from virtual_lopy4_host import esptool

ROLE = REPOSITORY / "roles/lopy4"
FIRMWARE = REPOSITORY / "firmware"
LOADER = root_files((FIRMWARE / "loader.py").read_bytes())
PROGRAM = """
import time
from tig import VERSION
def run(path, confirm):
    print("program %s in %s" % (VERSION, path))
    confirm()
    while True:
        time.sleep(1)
"""
DEAF = """
import time
def run(path, confirm):
    confirm()
    while True:
        try:
            while True:
                time.sleep_ms(10)
        except KeyboardInterrupt:
            pass
"""


def program(version: str, source: str = PROGRAM, **more: bytes) -> dict[str, bytes]:
    """A program small enough for hundreds of uploads; `more` are files by name, with __ for /."""
    files = {
        "lib/tig/__init__.py": f'VERSION = "{version}"\n'.encode(),
        "lib/tig/program.py": source.encode(),
        "lib/tig/same.py": b"# the same in every version\n" * 40,
        "lib/tig/drivers/__init__.py": f"# of version {version}\n".encode() * 60,
        "settings.json": b'{"name": "bench"}',
    }
    return files | {name.replace("__", "/"): data for name, data in more.items()}


SETTINGS = {
    "name": "bench",
    "topic": "tig/bench",
    "wifi": {"ssid": "virtual-network", "password": "eight-or-more"},
    "broker": {"host": "127.0.0.1", "port": 9, "user": "bench", "password": "secret"},  # nobody answers there
    "sensors": [{"driver": "dht11", "pin": "P11", "fields": {"temperature": "outsidetemp"}}],
}


def firmware() -> dict[str, bytes]:
    """The real one, with settings."""
    files = {path.relative_to(FIRMWARE).as_posix(): path.read_bytes() for path in sorted(FIRMWARE.glob("lib/**/*.py"))}
    return files | {"settings.json": json.dumps(SETTINGS).encode()}


class Visit:
    """A visit of the uploader to a device, as the module makes it; `upload` says what it did."""

    def __init__(
        self, device: Device, files: dict[str, bytes], version: str, root=LOADER, patience: float = 20
    ) -> None:
        self.slot, self.works, self.start = "", None, None
        with visit(device.port) as repl:
            self.upload = Upload(repl, files, root, version)
            self.upload.look()
            self.changed = not self.upload.unchanged
            self.damage = self.upload.damage()
            if self.changed:
                self.slot = self.upload.change()
            repl.reset()
            self.raw_paste = repl.raw_paste
            if self.changed and patience:
                self.start = self.upload.started(self.slot, patience)
                self.works = self.start.works


def ask(device: Device, expression: str):
    """The value of an expression on the device, whatever runs there; the device is restarted."""
    with Line(device.port) as line:
        repl = Repl(line)
        repl.enter()
        repl.run("import os\nroot = os.getcwd().rstrip('/')")
        value = repl.ask(expression)
        repl.reset()
        return value


def execute(device: Device, source: str) -> str:
    with Line(device.port) as line:
        repl = Repl(line)
        repl.enter()
        output = repl.run(source)
        repl.reset()
        return output


def said(device: Device, text: str, patience: float = 20) -> bool:
    """Whether the device comes to say something on its console after its last start."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        start = bytes(device.uart.tail).rfind(b"ets Jun")
        if text.encode() in bytes(device.uart.tail)[start:]:
            return True
        time.sleep(0.02)
    return False


def boots(device: Device, patience: float = 40) -> str:
    """What runs after the device got its power back: the version of the program, or "" where its prompt shows that there is none.

    The patience is for a loader that tries a damaged program three times before it goes back.
    """
    end = time.monotonic() + patience
    while time.monotonic() < end:
        heard = bytes(device.uart.tail)
        heard = heard[heard.rfind(b"ets Jun") :]
        found = re.search(rb"program (\w+) in", heard)
        if found:
            return found[1].decode()
        if heard.endswith(b">>> "):
            return ""
        time.sleep(0.02)
    raise AssertionError(bytes(device.uart.tail)[-1500:].decode("utf-8", "replace"))


def formatted(device: Device, backups: Path) -> None:
    """Format a device as `make format` does, with the real esptool: read and keep the config block, erase, write the block."""
    action = object.__new__(interpreter_action.ActionModule)
    action.args = {
        "name": "bench",
        "port": device.port,
        "mac": "",
        "esptool": str(esptool()),
        "baud": 921600,
        "block": None,
    }
    action.file_system = "littlefs"
    action._task = SimpleNamespace(check_mode=False)

    def step(which: str, **more) -> dict:
        module = SimpleNamespace(params={**action.args, **more}, check_mode=False, warn=lambda _: None)
        return getattr(interpreter_module.Interpreter(module, lambda *_: None), which)()

    action._step = step
    assert action._format(backups)["changed"]


def power_on(device: Device) -> None:
    """Give it its power back; what it said before is forgotten."""
    device.submit(device.uart.tail.clear)
    device.ctl("plug")


def erased(device: Device, _: Path) -> None:
    """The same without the ROM loader, which takes a minute: for many devices."""
    device.cut()
    for offset, size in erased_regions("pycom"):
        device.flash.erase(offset, size)
    block = device.flash.read(CONFIG, SECTOR)
    device.flash.write(CONFIG, with_file_system(block, "littlefs"))
    power_on(device)
    assert boots(device) == ""


def with_version_1(state: Path, kind: str) -> None:
    """Make a device on which version 1 works: kind is fat or littlefs, on Pycom's firmware, or mainline."""
    more = {"profile": "mainline"} if kind == "mainline" else {"profile": "pycom", "file_system": kind}
    with Device(state, paced=False, **more) as device:
        assert Visit(device, program("1"), "1").works


def damage_fat(device: Device) -> None:
    """Erase the block with the directory a/, as a cut does."""
    device.cut()
    offset, size = FILE_SYSTEM["pycom"]
    place = device.flash.read(offset, size).find(b"MANIFE~1JSO")
    assert place > 0
    device.flash.erase(offset + place // SECTOR * SECTOR, SECTOR)
    device.ctl("plug")


CUT = program("2", lib__tig__more=b"# new in version 2\n" * 100)
CUT_ROOT = {name: data + b"# a later loader\n" for name, data in LOADER.items()}


def writes_of_upload(state: Path, directory: Path) -> int:
    """How many times an upload of CUT, with the start of what it has put there, erases or writes a block."""
    with copy_of(state, directory) as device:
        assert boots(device) == "1"
        before = device.page.block_writes
        assert Visit(device, CUT, "2", CUT_ROOT).works
        return device.page.block_writes - before


def power_cut(state: Path, directory: Path, number: int, torn: str, make_format=formatted) -> str:
    """Cut the power at the block write `number` of an upload of CUT to a device on which version 1 runs, then run again.

    Returns:
        "held": a whole program starts, and the next run completes. "run": none starts, and the next run puts it there.
        "format": a run says that the file system is damaged, and which command repairs it; the command does.
        "": the upload did not come so far (the number of writes differs by a few).

    Raises:
        AssertionError: none of these.
    """
    with copy_of(state, directory) as device:
        assert boots(device) == "1"
        identity = device.flash.read(CONFIG, IDENTITY)
        device.ctl("power-cut", at_block_write=number, torn=torn)
        with contextlib.suppress(Gone, DeviceError):
            Visit(device, CUT, "2", CUT_ROOT)
        end = time.monotonic() + 10
        while device.state != "off":
            if device.page.block_writes < device.page.cut_at_write and time.monotonic() > end - 8:
                return ""
            assert time.monotonic() < end
            time.sleep(0.02)
        power_on(device)
        outcome = "held" if boots(device) else "run"
        try:
            # The last one may have left damage that does not show yet.
            for version, files, root in (("2", CUT, CUT_ROOT), ("3", program("3"), LOADER)):
                visit = Visit(device, files, version, root, patience=60)
                assert visit.works is not False, f"version {version}: {visit.start.said}"
                running = boots(device)
                assert running == version, f"{running!r} runs, not {version}"
        except DeviceError as error:
            if not isinstance(error, Damaged):
                raise
            make_format(device, directory / "backups")
            visit = Visit(device, CUT, "2", CUT_ROOT, patience=60)
            assert visit.works, f"after formatting: {visit.start.said}"
            assert device.installed["file_system"] == "littlefs"
            outcome = "format"
        # MicroPython for the ESP32 has no config block: its file system may use the place.
        assert device.installed["profile"] == "mainline" or device.flash.read(CONFIG, IDENTITY) == identity
        return outcome


def copy_of(state: Path, directory: Path, **options) -> Device:
    """A new device with the flash of another one that is off."""
    directory.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(state / "flash.bin", directory / "flash.bin")
    return Device(directory, paced=False, **options)
