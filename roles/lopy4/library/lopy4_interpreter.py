#!/usr/bin/python
"""Make the interpreter on a sensor node the declared one, over its serial port."""

from __future__ import annotations

DOCUMENTATION = r"""
module: lopy4_interpreter
short_description: Make the interpreter on a sensor node the declared one, over its serial port
description:
  - Nothing is written where the declared release runs already.
  - The config block of Pycom's layout (LoRa MAC, Sigfox keys) is read twice and kept on the controller before anything is erased.
    Erasing leaves it out. It is written back when a device returns to Pycom's layout, or when the device's own has no identity.
  - The board's PIC switches the chip into its ROM loader, C(esptool) does the rest. Without a PIC (expansion board 1 and 2)
    a jumper from G23 to GND does it.
options:
  name:
    description: Name of the device, for messages.
    type: str
    required: true
  port:
    description: Serial port. Without one the device is found by O(mac).
    type: str
  mac:
    description: MAC of the chip. Another chip on the port is an error, before anything is written.
    type: str
  image:
    description: Pycom's release archive, or an image of MicroPython for the ESP32, on the controller.
    type: path
  sha256:
    description: SHA-256 of O(image).
    type: str
  release:
    description: Release, if the file's name does not say it.
    type: str
  state:
    description: >-
      V(compared) only says whether O(image) runs, as C(changed); V(present) makes it so; V(formatted) erases the file system,
      and the device makes a new one.
    choices: [compared, present, formatted]
    type: str
    default: present
  erase_fs:
    description: Permits to go from one partition layout to another, which destroys the file system.
    type: bool
    default: false
  file_system:
    description: What Pycom's firmware makes when it is formatted. MicroPython for the ESP32 always makes littlefs.
    choices: [littlefs, fat]
    type: str
    default: littlefs
  backup_directory:
    description: Where config blocks are kept, on the controller.
    type: path
    required: true
  esptool:
    description: Path of esptool on the host.
    type: path
    required: true
  baud:
    description: Bits per second while flash is written.
    type: int
    default: 921600
requirements: [pyserial, esptool]
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
"""

EXAMPLES = r"""
- name: Install Pycom's firmware
  lopy4_interpreter:
    name: greenhouse
    port: /dev/ttyACM0
    image: firmware/LoPy4-1.20.2.r6.tar.gz
    sha256: "{{ recorded_sha256 }}"
    backup_directory: backups/lopy4
    esptool: /opt/tig-pi/esptool/bin/esptool
  delegate_to: pi
"""

RETURN = r"""
release:
  description: Release that runs.
  type: str
  returned: success
previous_release:
  description: Release that ran before; empty if nothing answered.
  type: str
  returned: success
backup:
  description: File on the controller with the config block.
  type: str
  returned: when one was read
seconds:
  description: Duration of the writing.
  type: float
  returned: when something was written
"""

import base64
import contextlib
import os
import re
import subprocess
import tempfile
import time

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible.module_utils.lopy4_image import (
    CONFIG,
    FILE_SYSTEM,
    PARTITIONS,
    SECTOR,
    ImageError,
    erased,
    layout,
    load,
)
from ansible.module_utils.lopy4_line import PYSERIAL, DeviceError
from ansible.module_utils.lopy4_pic import enter, leave
from ansible.module_utils.lopy4_visit import Progress, check_mac, identified, port_of

READ_BAUD = 230400  # what the boards carry in this direction


# Nothing but its reset button restarts a chip on a board without a PIC.
SILENT = (
    "nothing answers now. On expansion board 1 or 2 that is to be expected: take the jumper off G23, press reset, and run again. "
    "On another board press reset and run again."
)


class Deaf(DeviceError):
    """Nothing answers esptool."""


class Loader:
    """The ROM loader of the chip, as long as the block lasts; afterwards the device runs its program again."""

    def __init__(self, module: AnsibleModule, path: str) -> None:
        self.module, self.path = module, path
        self.esptool_path = module.params["esptool"]
        self.mac = ""

    def __enter__(self) -> Loader:
        enter(self.path)
        try:
            # Which chip it is, esptool says with every command.
            self.layout = layout(self.read_once(PARTITIONS, 0xC00))
            check_mac(self.mac, self.module.params["mac"] or "", self.path, self.module.params["name"])
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

    def run(self, *command: str, baud: int = READ_BAUD, progress: Progress | None = None) -> str:
        """Run one command of esptool; returns what it said. Raises DeviceError with the end of it."""
        call = [self.esptool_path, "--chip", "esp32", "--port", self.path, "--baud", str(baud)]
        call += ["--before", "no-reset", "--after", "no-reset", "--no-stub", *command]
        said = b""
        process = subprocess.Popen(call, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        while True:
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
                    f"The chip on {self.path} is no ESP32, so it is no LoPy4: {lines[-1]} Nothing was written."
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

    def write(self, parts: list[tuple[int, bytes]], baud: int, progress: Progress) -> None:
        """Write and verify; esptool compares the MD5 of each part with that of the flash."""
        with tempfile.TemporaryDirectory() as directory:
            command = ["write-flash", "-fm", "dio", "-ff", "80m", "-fs", "detect"]
            for offset, data in parts:
                file = os.path.join(directory, f"{offset:x}")
                with open(file, "wb") as opened:
                    opened.write(data)
                command += [hex(offset), file]
            self.run(*command, baud=baud, progress=progress)


def running(path: str, declared_mac: str, name: str) -> dict:
    """What the REPL says runs there; {} if none answers. The device is restarted."""
    try:
        there = identified(path)
    except DeviceError as error:
        if "does not answer" not in str(error):
            raise
        return {}
    check_mac(there["mac"], declared_mac, path, name)
    return {"platform": there["platform"], "release": there["release"]}


def wait_for(path: str, seconds: float) -> dict:
    """The interpreter that comes up after the flashing (it formats its file system first)."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(DeviceError, ValueError, SyntaxError):
            return identified(path)
    return {}


class Interpreter:
    """One task."""

    def __init__(self, module: AnsibleModule, progress: Progress) -> None:
        self.module, self.asked, self.progress = module, module.params, progress
        self.path = self.asked["port"] or port_of(self.asked["mac"], self.asked["name"])

    def compare(self) -> dict:
        there = running(self.path, self.asked["mac"] or "", self.asked["name"])
        declared = {
            "platform": self.asked["declared_platform"],
            "release": self.asked["declared_release"].removeprefix("v"),
        }
        return {
            "changed": there != declared,
            "release": declared["release"],
            "previous_release": there.get("release", ""),
            "platform": there.get("platform", ""),
        }

    def read(self) -> dict:
        """Layout and config block, for the controller to keep."""
        with Loader(self.module, self.path) as loader:
            block = loader.read(CONFIG, SECTOR) if loader.layout != "mainline" else b""
            return {"layout": loader.layout, "mac": loader.mac, "block": base64.b64encode(block).decode()}

    def write(self) -> dict:
        began = time.monotonic()
        with open(self.asked["file"], "rb") as file:
            image = load(
                self.asked["file_name"], file.read(), self.asked["sha256"] or "", self.asked["declared_release"]
            )
        block = base64.b64decode(self.asked["block"] or "")
        with Loader(self.module, self.path) as loader:
            if self.asked["layout"] != image.platform:
                self.progress("erasing the file system")
                loader.erase_file_system(image.platform)
            if len(block) == SECTOR:
                # Before the rest: whatever breaks off, Pycom's table never stands beside a block that is not Pycom's.
                loader.write([(CONFIG, block)], self.asked["baud"], self.progress)
            loader.write(list(image.parts), self.asked["baud"], self.progress)
        seconds = round(time.monotonic() - began, 2)
        self.progress("written; waiting until it runs")
        there = wait_for(self.path, 60)
        if not there:
            raise DeviceError(f"The interpreter was written and verified, and {SILENT}")
        if there.get("release") != image.release.removeprefix("v") or there.get("platform") != image.platform:
            raise DeviceError(
                f"It was written and verified, and {there['release']} answers instead of {image.release}. "
                "Run again; if that does not help, compare lopy4_interpreter_release with what the device says of itself."
            )
        return {"changed": True, "release": image.release, "seconds": seconds}

    def format(self) -> dict:
        if not self.module.check_mode:
            with Loader(self.module, self.path) as loader:
                if loader.layout not in FILE_SYSTEM:
                    raise DeviceError(
                        "The partition table of the device is not one that is known: install an interpreter first."
                    )
                self.progress("erasing the file system")
                loader.erase_file_system(loader.layout)
                block = base64.b64decode(self.asked["block"] or "")
                if len(block) == SECTOR:
                    loader.write([(CONFIG, block)], self.asked["baud"], self.progress)
            self.progress("erased; waiting until it has made a new one")
            if not wait_for(self.path, 60):
                raise DeviceError(f"The file system was erased, and {SILENT}")
        return {"changed": True}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "port": {"type": "str"},
            "mac": {"type": "str"},
            "sha256": {"type": "str"},
            "esptool": {"type": "path", "required": True},
            "baud": {"type": "int", "default": 921600},
            # What the action plugin makes of O(state), O(image) and O(backup_directory): one step of the way.
            "step": {"type": "str", "choices": ["compare", "read", "write", "format"], "required": True},
            "declared_platform": {"type": "str", "default": ""},
            "declared_release": {"type": "str", "default": ""},
            "layout": {"type": "str", "default": ""},
            "block": {"type": "str", "no_log": True},
            "file": {"type": "path"},
            "file_name": {"type": "str"},
            "progress": {"type": "str"},
        },
        required_one_of=[("port", "mac")],
        supports_check_mode=True,
    )
    if not PYSERIAL:
        if module.check_mode:  # nothing can be asked yet on a host that a run would make ready
            module.exit_json(changed=True, release="", previous_release="", platform="")
        module.fail_json(msg=missing_required_lib("pyserial (Debian: python3-serial)"))
    progress = Progress(module.params["progress"])
    try:
        result = getattr(Interpreter(module, progress), module.params["step"])()
    except (DeviceError, ImageError) as error:
        module.fail_json(msg=f"{module.params['name']}: {error}")
    finally:
        progress.end()
    module.exit_json(**{"changed": False, **result})


if __name__ == "__main__":
    main()
