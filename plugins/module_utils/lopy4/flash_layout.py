"""How the flash of a LoPy4 is divided: by Pycom's firmware, and by MicroPython for the ESP32."""

from __future__ import annotations

import struct

FLASH_SIZE = 0x800000
SECTOR = 0x1000
BOOTLOADER, PARTITIONS, OTADATA, CONFIG = 0x1000, 0x8000, 0x1FF000, 0x3FF000
# Where each layout has its file system: offset and size.
FILE_SYSTEM = {"pycom": (0x400000, 0x400000), "mainline": (0x200000, 0x600000)}


def erased(platform: str) -> list[tuple[int, int]]:
    """Offset and size of what is erased for a blank file system: never the config block, which no file system needs blank."""
    offset, size = FILE_SYSTEM[platform]
    end = offset + size
    if not offset <= CONFIG < end:
        return [(offset, size)]
    return [(offset, CONFIG - offset), (CONFIG + SECTOR, end - CONFIG - SECTOR)]


def layout(table: bytes) -> str:
    """Whose partition table it is: "pycom", "mainline", "" for a blank flash, "unknown" for anything else."""
    if not table.strip(b"\xff"):
        return ""
    names = set()
    for at in range(0, len(table) - 31, 32):
        magic, _, _, _, _, name, _ = struct.unpack_from("<HBBII16sI", table, at)
        if magic != 0x50AA:
            break
        names.add(name.rstrip(b"\0").decode("latin-1"))
    if "otadata" in names or "config" in names:
        return "pycom"
    return "mainline" if "vfs" in names else "unknown"
