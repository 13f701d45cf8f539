"""What every module of this role does: find the device, open its port, tell how far it is."""

from __future__ import annotations

import ast
import contextlib
import os
import re
import time
from collections.abc import Iterator

from ansible.module_utils.lopy4_line import BAUD, DeviceError, Line, foreign, listed, ports
from ansible.module_utils.lopy4_repl import Repl, compact

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
    """Raises DeviceError when the chip is another one than the inventory says."""
    if declared and plain(found) != plain(declared):
        raise DeviceError(
            f"The device on {path} is {written(found)}, and lopy4_mac of {name} is {written(declared)}: are two cables swapped? "
            "Nothing was written. Correct lopy4_port, or lopy4_mac if the board was replaced."
        )


def identified(path: str, patience: float = 12.0) -> dict:
    """Platform, release, firmware, MAC and kind of file system of the device on a port, which is restarted. Raises DeviceError
    if none answers."""
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
    """The port of the device with this chip, by asking each one; those asked are restarted.

    A port in use may be another device's, which is flashed at the same time: it is asked again for `patience` seconds.
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


class Progress:
    """A line of text in a file, for the action plugin on the controller to show while the module works."""

    def __init__(self, path: str | None) -> None:
        self.path = path
        self.next = 0.0
        if path:
            with contextlib.suppress(OSError):
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))

    def __call__(self, text: str, done: int = 0, total: int = 0) -> None:
        now = time.monotonic()
        if not self.path or now < self.next:
            return
        self.next = now + 0.3
        share = f" {100 * done // total} % of {total // 1024} kB" if total else ""
        with contextlib.suppress(OSError), open(self.path, "w", encoding="utf-8") as file:
            file.write(text + share)

    def end(self) -> None:
        if self.path:
            with contextlib.suppress(OSError):
                os.unlink(self.path)


@contextlib.contextmanager
def visit(path: str, patience: float = 12.0) -> Iterator[Repl]:
    """The device's prompt; at the end the device is restarted, whatever happened, unless the line is gone."""
    with Line(path, BAUD) as line:
        repl = Repl(line)
        repl.enter(patience)
        try:
            yield repl
        finally:
            with contextlib.suppress(DeviceError):
                if not repl.left:
                    repl.reset()
