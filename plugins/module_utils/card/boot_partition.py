"""The boot partition of a card, on which Raspberry Pi OS reads its settings at the first boot.

mtools read and write its FAT file system without mounting it: on a disk, and in an image file.
"""

from __future__ import annotations

import contextlib
import filecmp
import json
import os
import re
import shutil
import tempfile
from pathlib import Path

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
        self._overwrite(name)
        # FAT has no permissions of its own; in a directory of another file system, nobody else may read the file.
        handle = os.open(os.path.join(self.path, name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            forget(file)

    def remove(self, name: str) -> None:
        self._overwrite(name)
        os.remove(os.path.join(self.path, name))

    def _overwrite(self, name: str) -> None:
        """Overwrite the content of a file in place, if it exists: it may have secrets."""
        with contextlib.suppress(FileNotFoundError), open(os.path.join(self.path, name), "r+b") as file:
            file.write(bytes(os.fstat(file.fileno()).st_size))
            forget(file)

    def wipe(self) -> None:
        """Overwrite what was removed, which is done already."""

    def copy(self, name: str, source: str) -> None:
        """Replace a directory by a copy of one of this computer."""
        shutil.rmtree(os.path.join(self.path, name), ignore_errors=True)
        shutil.copytree(source, os.path.join(self.path, name), copy_function=shutil.copyfile)
        os.sync()

    def has(self, name: str, source: str) -> bool:
        """Whether there is such a copy."""
        return is_same(source, os.path.join(self.path, name))

    def free(self) -> int:
        return shutil.disk_usage(self.path).free


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
        self._forget()

    def remove(self, name: str) -> None:
        run(["mdel", "-i", self.drive, f"::/{name}"])

    def wipe(self) -> None:
        """Overwrite what was removed: mtools write a file to other places than the one that it replaces. It takes the time of filling the partition."""
        with tempfile.NamedTemporaryFile() as zeros:
            zeros.truncate(self.free())
            run(["mcopy", "-i", self.drive, zeros.name, "::/zeros"])
        self._forget()
        self.remove("zeros")

    def copy(self, name: str, source: str) -> None:
        """Replace a directory by a copy of one of this computer."""
        if name in self._directories():
            run(["mdeltree", "-i", self.drive, f"::/{name}"])
        run(["mmd", "-i", self.drive, f"::/{name}"])
        run(["mcopy", "-s", "-i", self.drive, *(str(path) for path in sorted(Path(source).iterdir())), f"::/{name}"])
        self._forget()

    def has(self, name: str, source: str) -> bool:
        """Whether there is such a copy."""
        if name not in self._directories():
            return False
        with tempfile.TemporaryDirectory() as folder:
            run(["mcopy", "-s", "-n", "-i", self.drive, f"::/{name}", folder])
            return is_same(source, os.path.join(folder, name))

    def free(self) -> int:
        said = run(["mdir", "-i", self.drive, "::/"])
        return int(re.sub(r"\D", "", re.search(r"([\d ]+) bytes free", said)[1]))

    def _directories(self) -> list[str]:
        return [name.removesuffix("/") for name in self._names() if name.endswith("/")]

    def _forget(self) -> None:
        with open(self.path, "rb") as card:
            forget(card)


def is_same(one: str, other: str) -> bool:
    """Whether two directories have the same files with the same content."""
    files = [
        {str(path.relative_to(top)): path for path in Path(top).rglob("*") if path.is_file()} for top in (one, other)
    ]
    return files[0].keys() == files[1].keys() and all(
        filecmp.cmp(path, files[1][name], False) for name, path in files[0].items()
    )


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
