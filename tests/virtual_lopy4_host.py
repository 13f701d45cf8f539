"""What the tests of the virtual LoPy4 share: a host that talks to its serial port as a tool does."""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
import venv
from pathlib import Path

import serial
from project import REPOSITORY

ESPTOOL = REPOSITORY / "roles/lopy4/files/esptool-requirements.txt"


class Host:
    """The computer at the other end of the cable."""

    def __init__(self, port: str):
        self.serial = serial.Serial(port, 115200, timeout=0.05, exclusive=True)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.serial.close()

    def write(self, data: bytes):
        self.serial.write(data)

    def until(self, ending: bytes, patience: float = 8) -> bytes:
        """Read up to and with `ending`."""
        got, end = b"", time.monotonic() + patience
        while not got.endswith(ending):
            assert time.monotonic() < end, f"no {ending!r} in {got!r}"
            got += self.serial.read(max(1, self.serial.in_waiting if ending in got else 1))
        return got

    def prompt(self) -> bytes:
        return self.until(b">>> ")

    def raw(self):
        """Interrupt what runs and enter the raw REPL."""
        self.write(b"\r\x03\x03\r\x01")
        return self.until(b"raw REPL; CTRL-B to exit\r\n>")

    def send(self, code: str) -> tuple[str, str]:
        """Run code in the raw REPL: (output, error)."""
        self.write(code.encode() + b"\x04")
        assert self.until(b"OK")[-2:] == b"OK"
        output = self.until(b"\x04")[:-1]
        error = self.until(b"\x04")[:-1]
        self.until(b">")
        return output.decode().replace("\r\n", "\n"), error.decode().replace("\r\n", "\n")

    def ask(self, code: str) -> str:
        output, error = self.send(code)
        assert not error, error
        return output.strip()

    def quiet(self, seconds: float = 0.3) -> bytes:
        """What the device prints within this number of seconds."""
        got, end = b"", time.monotonic() + seconds
        while time.monotonic() < end:
            got += self.serial.read(100)
        return got


def esptool() -> Path:
    """The esptool that the role pins, in an environment of its own in the cache (made when missing)."""
    cache = (
        os.environ.get("TIG_PI_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "tig-pi").expanduser()
    )
    wanted = hashlib.sha256(ESPTOOL.read_bytes()).hexdigest()[:12]
    directory = Path(cache, "esptool", f"tests-{wanted}")
    if not (directory / "complete").exists():
        venv.create(directory, with_pip=True, clear=True)
        pip = [directory / "bin/pip", "install", "--quiet", "--require-hashes", "--requirement", ESPTOOL]
        subprocess.run(pip, check=True)
        (directory / "complete").touch()
    return directory / "bin/esptool"
