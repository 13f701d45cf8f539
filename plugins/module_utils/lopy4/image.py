"""A declared interpreter: Pycom's release archive, or an image of MicroPython for the ESP32. Runs on controller and host."""

from __future__ import annotations

import hashlib
import io
import json
import re
import struct
import tarfile
from dataclasses import dataclass

from ansible_collections.tig_pi.stack.plugins.module_utils.lopy4.flash_layout import (
    BOOTLOADER,
    CONFIG,
    FLASH_SIZE,
    OTADATA,
    PARTITIONS,
    SECTOR,
    layout,
)

CHIP_ESP32 = 0


class ImageError(Exception):
    """What is wrong with the file, as a sentence."""


@dataclass(frozen=True)
class Image:
    """What is to be written: platform, release as os.uname() says it, and (offset, bytes) of each part."""

    platform: str
    release: str
    parts: tuple[tuple[int, bytes], ...]


def load(name: str, data: bytes, sha256: str, release: str) -> Image:
    """The declared interpreter.

    Raises:
        ImageError: it is not what it should be.
    """
    actual = hashlib.sha256(data).hexdigest()
    if not sha256:
        raise ImageError(
            f"lopy4_interpreter_sha256 is missing. The SHA-256 of {name} is {actual}: compare it with one that you trust, and record it."
        )
    if actual != sha256.lower():
        raise ImageError(
            f"The SHA-256 of {name} is {actual}, and lopy4_interpreter_sha256 says {sha256.lower()}: it is another file, or damaged."
        )
    image = _archive(name, data, release) if data[:2] == b"\x1f\x8b" else _plain(name, data, release)
    for offset, part in image.parts:
        if offset + len(part) > (CONFIG if image.platform == "pycom" else FLASH_SIZE):
            raise ImageError(f"{name} does not fit into the flash of a LoPy4.")
    return image


def _released(name: str, pattern: str, declared: str) -> str:
    match = re.search(pattern, name)
    if not declared and not match:
        raise ImageError(f"{name}: the file's name does not say which release it is; set lopy4_interpreter_release.")
    return declared or match[1]


def _chip(name: str, part: bytes) -> None:
    """The header of an ESP image (esptool, docs/en/advanced-topics/firmware-image-format.rst)."""
    if len(part) < 24 or part[0] != 0xE9:
        raise ImageError(f"{name} is not firmware for an ESP32.")
    (chip,) = struct.unpack_from("<H", part, 12)
    if chip != CHIP_ESP32:
        raise ImageError(f"{name} is for another chip than the ESP32 (chip id {chip}).")


def _archive(name: str, data: bytes, release: str) -> Image:
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            members = {entry.name.removeprefix("./"): tar.extractfile(entry).read() for entry in tar if entry.isfile()}
    except (tarfile.TarError, OSError, EOFError) as error:
        raise ImageError(f"{name} can't be unpacked: {error}.") from error
    if "script_8MB" not in members:
        raise ImageError(f"{name} has no script_8MB: it is not one of Pycom's releases for a board with 8 MB of flash.")
    try:
        script = json.loads(members["script_8MB"])
        places = {key: int(value[0], 16) for key, value in script["partitions"].items()}
        places.update(bootloader=BOOTLOADER, partitions=PARTITIONS)
        steps = [
            (places[where] if where in places else int(where, 16), file)
            for how, where, file in script["script"]
            if how in "wo"
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise ImageError(f"{name}: its script_8MB can't be understood ({error}).") from error
    parts = []
    for offset, file in steps:
        if file not in members:
            raise ImageError(f"{name}: {file} of its script_8MB is missing.")
        parts.append((offset, members[file]))
    apps = [file for offset, file in steps if offset >= 0x10000]
    if apps != ["lopy4.bin"] or b"LoPy4 with ESP32" not in members["lopy4.bin"]:
        raise ImageError(f"{name} is for another board than the LoPy4 ({', '.join(apps) or 'none'}).")
    for offset, part in parts:
        if offset != PARTITIONS:
            _chip(name, part)
    # If it is blank, the bootloader recreates it and starts the image that was written.
    parts.append((OTADATA, b"\xff" * SECTOR))
    return Image("pycom", _released(name, r"-(\d+\.\d+\.\d+(?:\.\w+)*?)\.tar", release), tuple(parts))


def _plain(name: str, data: bytes, release: str) -> Image:
    _chip(name, data)
    table = data[PARTITIONS - BOOTLOADER :][:0xC00]
    if b"MicroPython" not in data and b"micropython" not in data:
        raise ImageError(f"{name} is not MicroPython.")
    if layout(table) != "mainline":
        raise ImageError(f"{name} is not a complete image for address 0x1000 (bootloader, partition table, program).")
    return Image("mainline", _released(name, r"-v(\d+\.\d+(?:\.\d+)?(?:-preview)?)", release), ((BOOTLOADER, data),))
