"""The serial ports of this host: which there are, and what is plugged into them."""

from __future__ import annotations

import glob
import os

BY_ID = "/dev/serial/by-id"
SYS = "/sys"
# USB ids of what carries a LoPy4, as in files/70-tig-pi-lopy4.rules.
BOARDS = {
    *(f"04d8:{product}" for product in ("ef98", "f013", "f012", "ef38", "ed14")),
    *("0403:6015", "0403:6001", "10c4:ea60"),
}
WAITS_FOR_FIRMWARE = "04d8:ef99"
DFU = (
    f"an expansion board 3 that waits for its own firmware ({WAITS_FOR_FIRMWARE}): remove the LoPy4, hold S1, plug the cable in, "
    "let go after a second, and within seven seconds `dfu-util -D expansion31_0.0.11.dfu`"
)


def ports() -> list[str]:
    """Paths of the serial ports of this host that a device may be plugged into, by their stable names where there are any."""
    stable = sorted(glob.glob(f"{BY_ID}/*"))
    known = {os.path.realpath(path) for path in stable}
    others = [path for kind in ("ttyACM", "ttyUSB") for path in sorted(glob.glob(f"/dev/{kind}*")) if path not in known]
    return stable + others


def usb_id(directory: str) -> str:
    """Vendor and product of a USB device, such as "04d8:ef98"; "" if that directory of sysfs is none."""
    try:
        with open(f"{directory}/idVendor") as vendor, open(f"{directory}/idProduct") as product:
            return f"{vendor.read().strip()}:{product.read().strip()}".lower()
    except OSError:
        return ""


def foreign(path: str) -> str:
    """What is wrong with asking a port whether a LoPy4 is there; "" where it is one of its boards, or nobody knows."""
    directory = os.path.realpath(f"{SYS}/class/tty/{os.path.basename(os.path.realpath(path))}/device")
    while directory.startswith(os.path.realpath(SYS) + "/"):
        found = usb_id(directory)
        if found:
            return "" if found in BOARDS else f"USB device {found} is not a LoPy4 board: not queried"
        directory = os.path.dirname(directory)
    return ""


def waiting() -> list[str]:
    """Boards that show no port because they wait for their own firmware: where they are plugged in."""
    devices = sorted(glob.glob(f"{SYS}/bus/usb/devices/*"))
    return [os.path.basename(directory) for directory in devices if usb_id(directory) == WAITS_FOR_FIRMWARE]


def listed() -> str:
    found = ports()
    text = f"Available: {', '.join(found)}." if found else "There are no serial ports here."
    return text + (f" And on USB there is {DFU}." if waiting() else "")
