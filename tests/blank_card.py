#!/usr/bin/env python3
"""blank_card.py FILE RELEASE: create a card as Raspberry Pi Imager leaves it: an image with a boot partition and a root partition.

Only the files that matter are on the boot partition, and the root partition is empty.
"""

from __future__ import annotations

import pathlib
import subprocess
import sys
import tempfile

MB = 1 << 20
# Smaller than those of Raspberry Pi OS, but large enough for FAT32.
BOOT, BOOT_SIZE, SIZE = 4 * MB, 48 * MB, 56 * MB
# Bookworm has no cloud-init.
CLOUD_INIT = ("user-data", "meta-data", "network-config")
FILES = {
    "config.txt": "arm_64bit=1\n",
    "cmdline.txt": "console=tty1 root=PARTUUID=00000000-02 rootfstype=ext4 fsck.repair=yes rootwait\n",
    "user-data": "#cloud-config\n# Examples.\n",
    "meta-data": "instance_id: rpios-image\n",
    "network-config": "network: {version: 2}\n",
}
OLDER_FILES = {name: content for name, content in FILES.items() if name not in CLOUD_INIT}
RELEASES = {"trixie": FILES, "bookworm": OLDER_FILES}


def create(path: pathlib.Path, files: dict[str, str] = FILES) -> pathlib.Path:
    """Create a card with these files on its boot partition."""
    path.unlink(missing_ok=True)
    with path.open("wb") as image:
        image.truncate(SIZE)
    table = (
        f"label: dos\nstart={BOOT // 512},size={BOOT_SIZE // 512},type=c\nstart={(BOOT + BOOT_SIZE) // 512},type=83\n"
    )
    subprocess.run(["/usr/sbin/sfdisk", "--quiet", path], input=table.encode(), check=True)
    make = [
        "/usr/sbin/mkfs.fat",
        "-F",
        "32",
        "-n",
        "BOOTFS",
        "--offset",
        str(BOOT // 512),
        path,
        str(BOOT_SIZE // 1024),
    ]
    subprocess.run(make, capture_output=True, check=True)
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            copy = pathlib.Path(folder, name)
            copy.write_text(content)
            subprocess.run(["mcopy", "-i", f"{path}@@{BOOT}", copy, f"::/{name}"], check=True)
    return path


def read(path: pathlib.Path) -> dict[str, bytes]:
    """All files of the boot partition of a card."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["mcopy", "-n", "-i", f"{path}@@{BOOT}", "::/*", folder], check=True)
        return {file.name: file.read_bytes() for file in pathlib.Path(folder).iterdir()}


if __name__ == "__main__":
    create(pathlib.Path(sys.argv[1]), RELEASES[sys.argv[2]])
