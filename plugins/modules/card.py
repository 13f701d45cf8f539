#!/usr/bin/python
"""Write a card for a Raspberry Pi: an image of Raspberry Pi OS, and files of the boot partition."""

from __future__ import annotations

DOCUMENTATION = r"""
module: card
short_description: Write a card for a Raspberry Pi
description:
  - Writes an image, and then files to its boot partition; or only the files, to a card that has an image already.
  - Nothing is mounted. What was written is read back and compared.
  - Refuses the disk of the running system, a disk that is mounted or in use, and one that is larger than declared.
options:
  path:
    description:
      - The card, a disk such as V(/dev/sdb).
      - To write only the files, also its boot partition, or the directory at which that is mounted.
      - An image file is treated like a disk.
    type: str
    required: true
  image:
    description: Image of the operating system, an C(.img) or C(.img.xz) file. Without it, only the files are written.
    type: path
  image_sha256:
    description: SHA-256 of the image file, as its publisher gives it.
    type: str
  files:
    description: "Files of the boot partition: content by name."
    type: dict
    default: {}
  secret_files:
    description: More such files, which are never shown.
    type: dict
    default: {}
  validate:
    description: "Commands that check files before anything is written, by name; V(%s) is a copy of the file. They print why a file is wrong."
    type: dict
    default: {}
  required_files:
    description: Files that the boot partition must have already, by name, with what it means if one is missing.
    type: dict
    default: {}
  unwanted_files:
    description: Files that the boot partition must not have, by name, with what it means if one is there.
    type: dict
    default: {}
  absent_files:
    description:
      - Files with secrets that an earlier use of this module may have written. They are removed.
      - The content of such files, and of O(secret_files) that are replaced, is overwritten.
    type: list
    elements: str
    default: []
  directories:
    description:
      - Directories of this computer, of which the boot partition gets copies, by their names there. If there is no room for one, nothing of
        it is copied, and RV(left_out) says so.
    type: dict
    default: {}
  kernel_parameters:
    description: Parameters of the kernel in C(cmdline.txt), which keeps its other ones.
    type: list
    elements: str
    default: []
  max_size_gb:
    description: Size of the largest disk that is taken for a card.
    type: int
    default: 300
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
"""

EXAMPLES = r"""
- name: Write a card
  tig_pi.stack.card:
    path: /dev/sdb
    image: 2025-12-04-raspios-trixie-arm64-lite.img.xz
    image_sha256: "{{ sha256 }}"
    files: {user-data: "{{ user_data }}"}
  become: true
"""

RETURN = r"""
overwrites:
  description: What is overwritten, or would be in check mode, in lines for people. It is empty if nothing would change.
  type: list
  elements: str
  returned: success
left_out:
  description: The directories for which there is no room, each with how much is needed.
  type: dict
  returned: success
"""

import contextlib
import errno
import os
import shlex
import stat
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.tig_pi.stack.plugins.module_utils.card import boot_partition, disks, programs
from ansible_collections.tig_pi.stack.plugins.module_utils.card.image import Image
from ansible_collections.tig_pi.stack.plugins.module_utils.card.programs import CardProblem, size_text

GB = 10**9
COMMAND_LINE = "cmdline.txt"
# The largest unit of FAT32 on a partition of this size, and what is left free.
CLUSTER, MARGIN = 32 << 10, 1 << 20


class Card:
    """What is to be written on, after all checks."""

    def __init__(self, path: str, max_size: int, image: Image | None) -> None:
        self.path = os.path.realpath(path)
        try:
            mode = os.stat(self.path).st_mode
        except OSError:
            mode = 0
        self.is_directory, self.is_file = stat.S_ISDIR(mode), stat.S_ISREG(mode)
        self.is_partition = False
        self.contents: list[str] = []
        if self.is_directory:
            self._check_directory(max_size)
        elif self.is_file:
            self.name, self.size = f"{self.path} ({size_text(os.path.getsize(self.path))})", os.path.getsize(self.path)
        elif not mode and not self.path.startswith("/dev/"):
            raise CardProblem(f"There is no {self.path} (card_path).")
        else:
            self._check_disk(max_size)
        if image:
            self._check_image(image)

    def _check_directory(self, max_size: int) -> None:
        disk = disks.mounted_disk(disks.read_disks(), self.path)
        self.name = self.path
        # A directory of this computer's own file system is a copy of a boot partition, but /boot is its own.
        if self.path == "/boot" or self.path.startswith("/boot/"):
            raise CardProblem(
                f"{self.path} is the boot partition of this computer's own system. Name another directory."
            )
        if disk and disks.SYSTEM.isdisjoint(disks.mount_points(disk)) and disk["size"] > max_size:
            raise CardProblem(disks.too_large(disk, max_size))

    def _check_disk(self, max_size: int) -> None:
        disk, device = disks.find(disks.read_disks(), self.path)
        if problem := disks.problem_of(disk, max_size):
            raise CardProblem(problem)
        self.is_partition = device is not disk
        self.name, self.size = disks.describe(device), device["size"]
        self.contents = disks.contents(disk)
        if not os.access(self.path, os.R_OK | os.W_OK):
            raise CardProblem(f"{self.path} may be written by root only: add ASK=1 if sudo needs a password.")

    def _check_image(self, image: Image) -> None:
        if self.is_directory or self.is_partition:
            raise CardProblem(f"{self.path} is not a whole disk, and an image needs one (card_image). Name the disk.")
        if image.size > self.size:
            raise CardProblem(
                f"The image has {size_text(image.size)}, which does not fit on {self.name}. Use a larger card."
            )

    @contextlib.contextmanager
    def claimed(self) -> Iterator:
        """The open card. While it is claimed, nothing can mount it."""
        exclusive = 0 if self.is_file else os.O_EXCL
        try:
            handle = os.open(self.path, os.O_RDWR | exclusive)
        except OSError as error:
            if error.errno == errno.EBUSY:
                raise CardProblem(
                    f"{self.name} is in use by another program. Close it, or name another disk."
                ) from error
            raise CardProblem(f"{self.name}: {error.strerror}.") from error
        with os.fdopen(handle, "r+b") as file:
            yield file

    def boot_partition(self) -> boot_partition.Directory | boot_partition.Fat:
        return boot_partition.find(self.path, self.is_partition)


def check_system(partition, wanted: dict) -> None:
    """Check that it is the operating system that the files are for."""
    for name, meaning in wanted["required_files"].items():
        if partition.read(name) is None:
            raise CardProblem(f"The card has no file {name} on its boot partition: {meaning}")
    for name, meaning in wanted["unwanted_files"].items():
        if partition.read(name) is not None:
            raise CardProblem(f"The card has a file {name} on its boot partition: {meaning}")


def validate(files: dict[str, str], commands: dict[str, str], secret: Iterable[str]) -> None:
    for name, command in commands.items():
        if name not in files:
            continue
        with tempfile.NamedTemporaryFile("w", encoding="utf-8") as copy:  # only its owner may read it
            copy.write(files[name])
            copy.flush()
            words = [word.replace("%s", copy.name) for word in shlex.split(command)]
            try:
                programs.run(words)
            except CardProblem as problem:
                # The reason may contain a part of the file.
                reason = f"{words[0]} refuses it." if name in secret else str(problem).replace(copy.name, name)
                raise CardProblem(f"{name} is not valid: {reason}") from None


def with_parameters(partition, files: dict[str, str], parameters: list[str]) -> dict[str, str]:
    """The files, and the kernel's command line if it gets parameters."""
    if not parameters:
        return files
    names = {parameter.partition("=")[0] for parameter in parameters}
    present = text(partition.read(COMMAND_LINE)).split()
    kept = [word for word in present if word.partition("=")[0] not in names]
    return {**files, COMMAND_LINE: " ".join([*kept, *parameters]) + "\n"}


def text(content: bytes | None) -> str:
    return "" if content is None else content.decode(errors="replace")


def differences(partition, files: dict[str, str]) -> dict[str, bytes | None]:
    """The files that differ, with their present content."""
    present = {name: partition.read(name) if partition else None for name in files}
    return {name: present[name] for name, content in files.items() if present[name] != content.encode()}


def leftovers(partition, files: dict[str, str], wanted: dict) -> list[str]:
    return [name for name in wanted["absent_files"] if name not in files and partition.read(name) is not None]


def space(size: int) -> int:
    """How much of a file system a file takes at most."""
    return -(-size // CLUSTER) * CLUSTER


def check_room(partition, files: dict[str, str], directories: dict[str, str]) -> dict[str, str]:
    """Check that the files have room on the boot partition. Return why directories have none, by their names."""
    free = partition.free() - MARGIN
    free += sum(space(len(partition.read(name) or b"")) for name in files)
    needed = sum(space(len(content.encode())) for content in files.values())
    if needed > free:
        raise CardProblem(
            f"The files {', '.join(files)} need {size_text(needed)} on the boot partition, and {size_text(max(free, 0))} of it are free. "
            "Write an image to the card (card_image), or remove files that it does not need."
        )
    left_out = {}
    for name, source in directories.items():
        size = sum(space(path.stat().st_size) for path in Path(source).rglob("*") if path.is_file())
        if needed + size > free:
            left_out[name] = (
                f"{size_text(size)} are needed on the boot partition, and {size_text(free - needed)} are free"
            )
        else:
            needed += size
    return left_out


def write_files(card: Card, files: dict[str, str], directories: dict[str, str], wanted: dict) -> None:
    """Write the files and new directories, then read them back and compare."""
    partition = card.boot_partition()
    check_system(partition, wanted)
    files = with_parameters(partition, files, wanted["kernel_parameters"])
    removed = leftovers(partition, files, wanted)
    for name in removed:
        partition.remove(name)
    for name, source in directories.items():
        partition.copy(name, source)
    differing = differences(partition, files)
    for name in differing:
        partition.write(name, files[name].encode())
    if removed or any(differing.get(name) is not None for name in wanted["secret_files"]):
        partition.wipe()
    wrong = [name for name, source in directories.items() if not partition.has(name, source)]
    if wrong := [*wrong, *differences(card.boot_partition(), files)]:
        raise CardProblem(f"{', '.join(wrong)} on the card is not what was written: use another card or reader.")


def run(module: AnsibleModule) -> dict:
    wanted = module.params
    image = Image(wanted["image"]) if wanted["image"] else None
    card = Card(wanted["path"], wanted["max_size_gb"] * GB, image)
    files = {**wanted["files"], **wanted["secret_files"]}
    validate(files, wanted["validate"], wanted["secret_files"])
    if image:
        image.check(wanted["image_sha256"])
        with image.beginning(boot_partition.end_of) as plain:
            fresh = boot_partition.find(plain)
            check_system(fresh, wanted)
            left_out = check_room(fresh, files, wanted["directories"])
        partition, present, overwrites = (
            None,
            [],
            [f"Everything on {card.name}:", *(f"  {line}" for line in card.contents)],
        )
    else:
        partition = card.boot_partition()
        check_system(partition, wanted)
        files = with_parameters(partition, files, wanted["kernel_parameters"])
        present = [name for name, source in wanted["directories"].items() if partition.has(name, source)]
        left_out = check_room(partition, files, {k: v for k, v in wanted["directories"].items() if k not in present})
        overwrites = []
    removed = leftovers(partition, files, wanted) if partition else []
    directories = {k: v for k, v in wanted["directories"].items() if k not in (*present, *left_out)}
    differing = differences(partition, files)
    # The image has the other parameters of the kernel.
    names = [
        *differing,
        *[f"{name}/" for name in directories],
        *([COMMAND_LINE] if image and wanted["kernel_parameters"] else []),
    ]
    names += [f"{name} (removed)" for name in removed]
    if names:
        overwrites.append(
            f"{'New files on' if image else 'Files on the boot partition of'} {card.name}: {', '.join(names)}"
        )
    changed = bool(image or names)
    if changed and not module.check_mode:
        if card.is_directory:
            write_files(card, files, directories, wanted)
        else:
            with card.claimed() as file:
                if image:
                    image.write(file)
                write_files(card, files, directories, wanted)
    shown = [
        {"before_header": name, "after_header": name, "before": text(differing[name]), "after": files[name]}
        for name in differing
        if name not in wanted["secret_files"]
    ]
    return {"changed": changed, "overwrites": overwrites, "left_out": left_out, "diff": shown}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "str", "required": True},
            "image": {"type": "path"},
            "image_sha256": {"type": "str"},
            "files": {"type": "dict", "default": {}},
            "secret_files": {"type": "dict", "default": {}, "no_log": True},
            "validate": {"type": "dict", "default": {}},
            "required_files": {"type": "dict", "default": {}},
            "unwanted_files": {"type": "dict", "default": {}},
            "absent_files": {"type": "list", "elements": "str", "default": []},
            "directories": {"type": "dict", "default": {}},
            "kernel_parameters": {"type": "list", "elements": "str", "default": []},
            "max_size_gb": {"type": "int", "default": 300},
        },
        required_by={"image": ["image_sha256"]},
        supports_check_mode=True,
    )
    try:
        module.exit_json(**run(module))
    except CardProblem as problem:
        module.fail_json(msg=str(problem))
    except OSError as error:
        module.fail_json(msg=f"{error.filename or module.params['path']}: {error.strerror}.")


if __name__ == "__main__":
    main()
