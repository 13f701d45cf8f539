"""What the tests of the role lopy4 share: a virtual device on the bench, small programs for it, and visits by the uploader."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
import time
from pathlib import Path

import ansible.module_utils

REPOSITORY = Path(__file__).parents[1]
ROLE = REPOSITORY / "roles/lopy4"
FIRMWARE = REPOSITORY / "firmware"
sys.path.insert(0, str(REPOSITORY / "virtual/lopy4"))
# As Ansible finds a role's module_utils.
ansible.module_utils.__path__.append(str(ROLE / "module_utils"))

from ansible.module_utils import lopy4_device, lopy4_image, lopy4_line, lopy4_upload, lopy4_visit  # noqa: E402, F401
from ansible.module_utils.lopy4_line import DeviceError, Gone, Line  # noqa: E402, F401
from ansible.module_utils.lopy4_repl import Repl, compact  # noqa: E402, F401
from ansible.module_utils.lopy4_upload import Upload, watch  # noqa: E402
from virtual_lopy4 import Device  # noqa: E402


def loaded(path: Path):
    """A plugin of the role as a Python module."""
    spec = importlib.util.spec_from_file_location(f"role_{path.parent.name}_{path.stem}", path)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


LOADER = {name: (FIRMWARE / name).read_bytes() for name in ("boot.py", "main.py")}
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
        "lib/tig/main.py": source.encode(),
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
        self.slot, self.works, self.said = "", None, ""
        with Line(device.port) as line:
            repl = Repl(line)
            repl.enter()
            self.upload = Upload(repl, files, root, version)
            self.upload.look()
            self.changed = not self.upload.unchanged
            if self.changed:
                self.slot = self.upload.change()
            repl.reset()
            self.sent = line.sent
            self.raw_paste = repl.raw_paste
            if self.changed and patience:
                self.works, self.said = watch(repl, self.slot, patience)


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
        start = bytes(device.tail).rfind(b"ets Jun")
        if text.encode() in bytes(device.tail)[start:]:
            return True
        time.sleep(0.02)
    return False


def copy_of(state: Path, directory: Path, **options) -> Device:
    """A new device with the flash of another one that is off."""
    directory.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(state / "flash.bin", directory / "flash.bin")
    return Device(directory, paced=False, **options)
