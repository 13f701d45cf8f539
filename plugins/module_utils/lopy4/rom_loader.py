"""The ROM loader of a device's chip, entered by the expansion board and spoken to through esptool."""

from __future__ import annotations

import os
import re
import select
import subprocess
import tempfile
from collections.abc import Callable

from ansible_collections.tig_pi.stack.plugins.module_utils.lopy4.expansion_board import enter, leave
from ansible_collections.tig_pi.stack.plugins.module_utils.lopy4.flash_layout import PARTITIONS, erased, layout
from ansible_collections.tig_pi.stack.plugins.module_utils.lopy4.session import check_mac
from ansible_collections.tig_pi.stack.plugins.module_utils.lopy4.transport import DeviceError

READ_BAUD = 230400  # what the boards carry in this direction
SILENCE = 300.0  # seconds; esptool itself gives the chip 120 s for its longest command


class Deaf(DeviceError):
    """Nothing answers esptool."""


class Loader:
    """The ROM loader of the chip, as long as the block lasts; afterwards the device runs its program again."""

    def __init__(self, path: str, esptool: str, name: str, declared_mac: str = "") -> None:
        """
        Args:
            path: the port.
            esptool: path of esptool.
            name: the device, for messages.
            declared_mac: another chip is an error; "" takes any.
        """
        self.path, self.esptool, self.name, self.declared_mac = path, esptool, name, declared_mac
        self.mac = ""

    def __enter__(self) -> Loader:
        enter(self.path)
        try:
            # Which chip it is, esptool says with every command.
            self.layout = layout(self.read_once(PARTITIONS, 0xC00))
            check_mac(self.mac, self.declared_mac, self.path, self.name)
        except Deaf as error:
            leave(self.path)
            raise DeviceError(
                f"The chip on {self.path} does not enter its ROM loader. Expansion board 3 does that by itself if its own firmware "
                "is at least 0.0.11 (a board that shows up as 04d8:ef99 waits for it: dfu-util, within 7 s after S1 and the cable). "
                "On expansion board 1 or 2 put a jumper from G23 to GND, press reset, and run again; take it off afterwards. "
                f"({error})"
            ) from error
        except DeviceError:
            leave(self.path)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        leave(self.path)

    def run(self, *command: str, baud: int = READ_BAUD, progress: Callable[[str], None] | None = None) -> str:
        """Run one command of esptool; returns what it said. Raises DeviceError with the end of it."""
        call = [self.esptool, "--chip", "esp32", "--port", self.path, "--baud", str(baud)]
        call += ["--before", "no-reset", "--after", "no-reset", "--no-stub", *command]
        said = b""
        process = subprocess.Popen(call, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        while True:
            if not select.select([process.stdout], [], [], SILENCE)[0]:
                process.kill()
                process.wait()
                raise DeviceError(
                    f"esptool has said nothing for {SILENCE:.0f} s and was ended. Plug the device on {self.path} in again, and run again."
                )
            piece = os.read(process.stdout.fileno(), 4096)
            if not piece:
                break
            said += piece
            share = re.findall(rb"(\d+\.\d)% ", piece)
            if share and progress:
                progress(f"{command[0]}: {share[-1].decode()} %")
        text = said.decode("utf-8", "replace")
        if process.wait() != 0:
            lines = [line.strip() for line in text.splitlines() if line.strip() and "\u2501" not in line]
            if any("This chip is" in line for line in lines):
                raise DeviceError(
                    f"The chip on {self.path} is not an ESP32, so it is not a LoPy4: {lines[-1]} Nothing was written."
                )
            what = " ".join(lines[-2:]) or "esptool said nothing."
            raise Deaf(what) if "Failed to connect" in text or "No serial data" in text else DeviceError(what)
        return text

    def read_once(self, offset: int, size: int) -> bytes:
        with tempfile.TemporaryDirectory() as directory:
            file = os.path.join(directory, "read")
            said = self.run("read-flash", hex(offset), hex(size), file)
            found = re.findall(r"\b(?:[0-9a-f]{2}:){5}[0-9a-f]{2}\b", said)
            self.mac = found[-1] if found else ""
            with open(file, "rb") as opened:
                return opened.read()

    def read(self, offset: int, size: int) -> bytes:
        """A part of the flash, read until two readings agree."""
        readings: list[bytes] = []
        for _ in range(4):
            data = self.read_once(offset, size)
            if len(data) == size and data in readings:
                return data
            readings.append(data)
        raise DeviceError(
            f"The flash at {offset:#x} reads differently each time: use another cable or port. Nothing was written."
        )

    def erase_file_system(self, platform: str) -> None:
        for offset, size in erased(platform):
            self.run("erase-region", hex(offset), hex(size))

    def write(self, parts: list[tuple[int, bytes]], baud: int, progress: Callable[[str], None]) -> None:
        """Write and verify; esptool compares the MD5 of each part with that of the flash."""
        with tempfile.TemporaryDirectory() as directory:
            command = ["write-flash", "-fm", "dio", "-ff", "80m", "-fs", "detect"]
            for offset, data in parts:
                file = os.path.join(directory, f"{offset:x}")
                with open(file, "wb") as opened:
                    opened.write(data)
                command += [hex(offset), file]
            self.run(*command, baud=baud, progress=progress)
