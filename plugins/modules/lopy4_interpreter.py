#!/usr/bin/python
"""Install an interpreter on a sensor node over its serial port."""

from __future__ import annotations

DOCUMENTATION = r"""
module: lopy4_interpreter
short_description: Install an interpreter on a sensor node over its serial port
description:
  - If the declared release already runs, nothing is written.
  - The config block of Pycom's layout (LoRa MAC, Sigfox keys) is read twice and saved on the controller before anything is erased,
    and is never erased. It is restored when a device returns to Pycom's layout, or when the device's own block has no identity.
  - The expansion board's PIC switches the chip into its ROM loader, and C(esptool) writes the flash. Expansion boards 1 and 2 have
    no PIC and need a jumper from G23 to GND.
extends_documentation_fragment: tig_pi.stack.lopy4_device
options:
  image:
    description: Pycom's release archive, or an image of MicroPython for the ESP32, on the controller.
    type: path
  feed:
    description: Directory on the controller with a feed that has a copy of O(image), or the one above it. It is used if the file itself is gone.
    type: path
  sha256:
    description: SHA-256 of O(image).
    type: str
  release:
    description: Release, if the file name does not contain it.
    type: str
  state:
    description: >-
      V(compared) only reports, as C(changed), whether O(image) must be installed; V(present) installs it; V(formatted) erases the
      file system, and the device creates a new one. Readings that the device keeps are erased with it; a warning says which.
    choices: [compared, present, formatted]
    type: str
    default: present
  erase_fs:
    description: Allow a change of the partition layout, which erases the file system.
    type: bool
    default: false
  file_system:
    description: File system that Pycom's firmware creates when it is formatted. MicroPython for the ESP32 always creates littlefs.
    choices: [littlefs, fat]
    type: str
    default: littlefs
  config_block_directory:
    description: Directory for config blocks on the controller.
    type: path
    required: true
  esptool:
    description: Path of esptool on the host.
    type: path
    required: true
  baud:
    description: Bits per second while the flash is written.
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
  tig_pi.stack.lopy4_interpreter:
    name: greenhouse
    port: /dev/ttyACM0
    image: firmware/LoPy4-1.20.2.r6.tar.gz
    sha256: "{{ recorded_sha256 }}"
    config_block_directory: backups/lopy4
    esptool: /opt/tig-pi/esptool/bin/esptool
  delegate_to: pi
"""

RETURN = r"""
release:
  description: Release that runs.
  type: str
  returned: success
previous_release:
  description: Release that ran before; empty if the device did not answer.
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
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.tig_pi.stack.plugins.module_utils.lopy4.device_code import KEPT
from ansible_collections.tig_pi.stack.plugins.module_utils.lopy4.flash_layout import CONFIG, FILE_SYSTEM, SECTOR
from ansible_collections.tig_pi.stack.plugins.module_utils.lopy4.image import ImageError, load
from ansible_collections.tig_pi.stack.plugins.module_utils.lopy4.progress import Progress
from ansible_collections.tig_pi.stack.plugins.module_utils.lopy4.raw_repl import compact
from ansible_collections.tig_pi.stack.plugins.module_utils.lopy4.rom_loader import Loader
from ansible_collections.tig_pi.stack.plugins.module_utils.lopy4.session import check_mac, identified, port_of, visit
from ansible_collections.tig_pi.stack.plugins.module_utils.lopy4.transport import DeviceError, require_pyserial

# On a board without a PIC only the reset button restarts the chip.
SILENT = (
    "nothing answers now. On expansion board 1 or 2 this is expected: remove the jumper from G23, press reset, and run again. "
    "On another board press reset and run again."
)


def running(path: str, declared_mac: str, name: str) -> dict:
    """The interpreter, as the REPL reports it; {} if nothing answers. The device is restarted."""
    try:
        there = identified(path)
    except DeviceError as error:
        if "does not answer" not in str(error):
            raise
        return {}
    check_mac(there["mac"], declared_mac, path, name)
    return {"platform": there["platform"], "release": there["release"]}


def wait_for(path: str, seconds: float) -> dict:
    """The interpreter that starts after the installation (it formats its file system first)."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(DeviceError, ValueError, SyntaxError):
            return identified(path)
    return {}


def kept_readings(path: str) -> str:
    """The readings that the program keeps on the device, in words; "" if there are none, or nothing answers. The device is restarted."""
    try:
        with visit(path, 3.0) as repl:
            repl.run(compact(KEPT))
            count, since, until, waiting = repl.ask("kept()", 60)
    except DeviceError:
        return ""
    first, last = (time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(moment)) for moment in (since, until))
    span = f" from {first} to {last}" if since else ""
    return f"{count} readings{span}, of which {waiting} have not been sent" if count else ""


class Interpreter:
    """One run of the module."""

    def __init__(self, module: AnsibleModule, progress: Progress) -> None:
        self.module, self.asked, self.progress = module, module.params, progress
        self.path = self.asked["port"] or port_of(self.asked["mac"], self.asked["name"])

    def _loader(self) -> Loader:
        return Loader(self.path, self.asked["esptool"], self.asked["name"], self.asked["mac"] or "")

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
        """Read the layout and the config block, for the controller to save."""
        with self._loader() as loader:
            block = loader.read(CONFIG, SECTOR) if loader.layout != "mainline" else b""
            return {"layout": loader.layout, "mac": loader.mac, "block": base64.b64encode(block).decode()}

    def write(self) -> dict:
        began = time.monotonic()
        with open(self.asked["file"], "rb") as file:
            image = load(
                self.asked["file_name"], file.read(), self.asked["sha256"] or "", self.asked["declared_release"]
            )
        block = base64.b64decode(self.asked["block"] or "")
        with self._loader() as loader:
            if self.asked["layout"] != image.platform:
                self.progress("erasing the file system")
                loader.erase_file_system(image.platform)
            if len(block) == SECTOR:
                # First, so that an interruption never leaves Pycom's partition table with a block that is not Pycom's.
                loader.write([(CONFIG, block)], self.asked["baud"], self.progress)
            loader.write(list(image.parts), self.asked["baud"], self.progress)
        seconds = round(time.monotonic() - began, 2)
        self.progress("written; waiting for the interpreter")
        there = wait_for(self.path, 60)
        if not there:
            raise DeviceError(f"The interpreter was written and verified, and {SILENT}")
        if there.get("release") != image.release.removeprefix("v") or there.get("platform") != image.platform:
            raise DeviceError(
                f"The interpreter was written and verified, but {there['release']} answers instead of {image.release}. "
                "Run again; if that does not help, compare lopy4_interpreter_release with the release that the device reports."
            )
        return {"changed": True, "release": image.release, "seconds": seconds}

    def format(self) -> dict:
        readings = kept_readings(self.path)
        if readings:
            self.module.warn(f"{self.asked['name']}: formatting erases the readings that the device keeps: {readings}.")
        if not self.module.check_mode:
            with self._loader() as loader:
                if loader.layout not in FILE_SYSTEM:
                    raise DeviceError("The device has an unknown partition table: install an interpreter first.")
                self.progress("erasing the file system")
                loader.erase_file_system(loader.layout)
                block = base64.b64decode(self.asked["block"] or "")
                if len(block) == SECTOR:
                    loader.write([(CONFIG, block)], self.asked["baud"], self.progress)
            self.progress("erased; waiting for the new file system")
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
            # The action plugin turns O(state), O(image) and O(config_block_directory) into these steps.
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
    require_pyserial(module, changed=True, release="", previous_release="", platform="")
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
