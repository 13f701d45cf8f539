"""The boot partition of a card, on which Raspberry Pi OS reads its settings at the first boot.

mtools read and write its FAT file system without mounting it: on a disk, and in an image file.
"""

from __future__ import annotations

import json
import os
import tempfile

from ansible_collections.tig_pi.stack.plugins.module_utils.card.image import forget
from ansible_collections.tig_pi.stack.plugins.module_utils.card.programs import CardProblem, run

# Types of a partition with FAT, as `sfdisk` names them: MBR, and GPT.
FAT = {"6", "b", "c", "e", "c12a7328-f81f-11d2-ba4b-00a0c93ec93b", "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7"}
# Files that every boot partition of a Raspberry Pi has.
ALWAYS = ("config.txt", "cmdline.txt")


class Directory:
    """A boot partition that is mounted."""

    def __init__(self, path: str) -> None:
        self.path = path

    def read(self, name: str) -> bytes | None:
        """The content of a file; None if it does not exist."""
        try:
            with open(os.path.join(self.path, name), "rb") as file:
                return file.read()
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        # FAT has no permissions of its own; in a directory of another file system, nobody else may read the file.
        handle = os.open(os.path.join(self.path, name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            forget(file)


class Fat:
    """A boot partition that is not mounted, at an offset of a disk or of an image file."""

    def __init__(self, path: str, offset: int) -> None:
        self.path = path
        self.drive = f"{path}@@{offset}"

    def read(self, name: str) -> bytes | None:
        """The content of a file; None if it does not exist."""
        if name.lower() not in (found.lower() for found in self._names()):
            return None
        with tempfile.TemporaryDirectory() as folder:
            copy = os.path.join(folder, "copy")
            run(["mcopy", "-n", "-i", self.drive, f"::/{name}", copy])
            with open(copy, "rb") as file:
                return file.read()

    def _names(self) -> list[str]:
        return [line.removeprefix("::/") for line in run(["mdir", "-b", "-i", self.drive, "::/"]).splitlines()]

    def write(self, name: str, content: bytes) -> None:
        with tempfile.TemporaryDirectory() as folder:  # only its owner may read it
            copy = os.path.join(folder, "copy")
            with open(copy, "wb") as file:
                file.write(content)
            run(["mcopy", "-o", "-i", self.drive, copy, f"::/{name}"])
        with open(self.path, "rb") as card:
            forget(card)


def find(path: str, is_partition: bool = False) -> Directory | Fat:
    """The boot partition of a card: a mounted directory, a partition, a disk or an image file."""
    if os.path.isdir(path):
        partition: Directory | Fat = Directory(path)
    elif is_partition:
        partition = Fat(path, 0)
    else:
        partition = Fat(path, _extent(path)[0])
    missing = [name for name in ALWAYS if partition.read(name) is None]
    if missing:
        raise CardProblem(
            f"{path} is not the boot partition of a Raspberry Pi, or has none: it has no {' and no '.join(missing)}. "
            "Write an image of Raspberry Pi OS to it (card_image), or use Raspberry Pi Imager."
        )
    return partition


def end_of(path: str) -> int:
    """Where the boot partition of an image ends, in bytes."""
    return sum(_extent(path))


def _extent(path: str) -> tuple[int, int]:
    """Where the first partition with FAT begins, and its size, in bytes."""
    try:
        table = json.loads(run(["sfdisk", "--json", path]))["partitiontable"]
    except CardProblem:
        raise CardProblem(
            f"{path} has no partition table. Write an image of Raspberry Pi OS to it (card_image), or use Raspberry Pi Imager."
        ) from None
    for partition in table.get("partitions", []):
        if partition["type"].lower() in FAT:
            sector = table.get("sectorsize", 512)
            return partition["start"] * sector, partition["size"] * sector
    raise CardProblem(f"{path} has no partition with FAT, so it is no card of a Raspberry Pi.")
