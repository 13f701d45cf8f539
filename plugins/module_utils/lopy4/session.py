"""A session with a device: find it by its port or its chip, get its prompt, and restart it at the end."""

from __future__ import annotations

import ast
import contextlib
import re
import time
from collections.abc import Iterator

from ansible_collections.tig_pi.stack.plugins.module_utils.lopy4.ports import foreign, listed, ports
from ansible_collections.tig_pi.stack.plugins.module_utils.lopy4.raw_repl import Repl, compact
from ansible_collections.tig_pi.stack.plugins.module_utils.lopy4.transport import BAUD, DeviceError, Line

IDENTIFY = """
import os, sys, machine, binascii
try:
    import pycom
    kind = pycom.bootmgr()[1]
except Exception:
    kind = "LittleFS"
print((tuple(os.uname())[:5], sys.platform, binascii.hexlify(machine.unique_id()).decode(), kind))
"""


def plain(mac: str) -> str:
    """A MAC as twelve small hexadecimal digits."""
    return re.sub(r"[^0-9a-f]", "", mac.lower())


def written(mac: str) -> str:
    """A MAC as people write it."""
    return ":".join(re.findall("..", plain(mac)))


def check_mac(found: str, declared: str, path: str, name: str) -> None:
    """Raise DeviceError if the chip is not the one in the inventory."""
    if declared and plain(found) != plain(declared):
        raise DeviceError(
            f"The device on {path} is {written(found)}, and lopy4_mac of {name} is {written(declared)}: are two cables swapped? "
            "Nothing was written. Correct lopy4_port, or lopy4_mac if the board was replaced."
        )


@contextlib.contextmanager
def visit(path: str, patience: float = 12.0) -> Iterator[Repl]:
    """The device's prompt. At the end the device is always restarted, unless the connection is lost."""
    with Line(path, BAUD) as line:
        repl = Repl(line)
        repl.enter(patience)
        try:
            yield repl
        finally:
            with contextlib.suppress(DeviceError):
                if not repl.left:
                    repl.reset()


def identified(path: str, patience: float = 12.0) -> dict:
    """Platform, release, firmware, MAC and file system of the device on a port; the device is restarted.

    Raises:
        DeviceError: no device answers.
    """
    with visit(path, patience) as repl:
        uname, sys_platform, mac, file_system = ast.literal_eval(repl.run(compact(IDENTIFY)).strip())
    return {
        "platform": "mainline" if sys_platform == "esp32" else "pycom",
        "release": uname[2].removeprefix("v"),
        "firmware": f"{uname[4]}, {uname[2]}",
        "mac": written(mac),
        "file_system": file_system,
    }


def port_of(mac: str, name: str, patience: float = 60.0) -> str:
    """The port of the device with this chip. Each port is queried, which restarts the device on it.

    A port in use may belong to another device that is being flashed: it is queried again for `patience` seconds.
    """
    seen: dict[str, str] = {}
    deadline = time.monotonic() + patience
    while True:
        busy = False
        for path in ports():
            if path in seen and " is in use by " not in seen[path]:
                continue
            strange = foreign(path)
            if strange:
                seen[path] = strange
                continue
            try:
                found = identified(path, 3.0)["mac"]
            except DeviceError as error:
                seen[path] = str(error).partition(". ")[0]
                busy = busy or " is in use by " in seen[path]
                continue
            if plain(found) == plain(mac):
                return path
            seen[path] = found
        if not busy or time.monotonic() > deadline:
            break
        time.sleep(1)
    what = "; ".join(f"{path}: {text}" for path, text in seen.items()) or listed()
    raise DeviceError(f"No device with the chip {written(mac)} ({name}) is plugged in here. {what}")
