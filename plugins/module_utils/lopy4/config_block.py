"""Pycom's config block: who the board is (LoRa MAC, Sigfox keys), and what its firmware is set to."""

from __future__ import annotations

from ansible_collections.tig_pi.stack.plugins.module_utils.lopy4.flash_layout import SECTOR

# Of the config block: LoRa MAC, Sigfox id, PAC and two keys; then the LoRa region; then Wi-Fi, file system type and others
# that the user sets (pycom_config_block_t in Pycom's esp32/pycom_config.h).
IDENTITY, LPWAN = 52, 53
FILE_SYSTEM_TYPE = 533
FAT, LITTLEFS = 0, (1, 0xFF)


def has_identity(block: bytes) -> bool:
    """Whether a config block says who the device is; one that was only ever set up (wifi_on_boot) does not."""
    return bool(block[:IDENTITY].strip(b"\xff\0"))


def restored(layout: str, block: bytes, kept: bytes) -> bytes:
    """What must be written at CONFIG when Pycom's firmware is installed; empty: what is there stays.

    Args:
        layout: whose partition table the device has, as `layout()` says it.
        block: the device's config block; empty where the layout has none.
        kept: the one of this chip that is kept; empty if none is.
    """
    if layout == "pycom":
        if has_identity(block) or not has_identity(kept):
            return b""
        return kept[:LPWAN] + block[LPWAN:]  # the file system is of the type that the device's own block says
    for known in (kept, block):
        if has_identity(known):
            return known
    return b"\xff" * SECTOR  # bytes of another file system would be taken for keys


def with_file_system(block: bytes, kind: str) -> bytes:
    """The config block by which Pycom's firmware takes a file system of that kind; when it finds none, it makes one."""
    there = "littlefs" if block[FILE_SYSTEM_TYPE] in LITTLEFS else "fat"
    if kind == there:
        return block
    return block[:FILE_SYSTEM_TYPE] + bytes((FAT if kind == "fat" else LITTLEFS[0],)) + block[FILE_SYSTEM_TYPE + 1 :]
