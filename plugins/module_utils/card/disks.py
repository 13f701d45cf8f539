"""The disks of this computer, from what `lsblk` prints, and whether one of them may be overwritten."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

from ansible_collections.tig_pi.stack.plugins.module_utils.card.programs import CardProblem, run, size_text

LSBLK = ["lsblk", "--json", "--bytes", "--paths", "--output", "NAME,TYPE,SIZE,RO,VENDOR,MODEL,LABEL,FSTYPE,MOUNTPOINTS"]
# Where only the running system has file systems.
SYSTEM = {"/", "/usr", "/var", "/home", "/boot", "/boot/efi", "/boot/firmware", "[SWAP]"}
WRITABLE = ("disk", "loop", "part")


def read_disks() -> list[dict]:
    """All block devices of this computer as a tree: disks, with partitions and what is on them below."""
    return json.loads(run(LSBLK))["blockdevices"]


def nodes(device: dict) -> Iterator[dict]:
    """A device and everything on it."""
    yield device
    for child in device.get("children", []):
        yield from nodes(child)


def mount_points(device: dict) -> list[str]:
    """Where a device and everything on it is mounted, or used as swap."""
    return [point for node in nodes(device) for point in node["mountpoints"] if point]


def find(disks: list[dict], path: str) -> tuple[dict, dict]:
    """The whole disk and the device that have this path."""
    for disk in disks:
        for node in nodes(disk):
            if node["name"] == path:
                return disk, node
    there = ", ".join(describe(disk) for disk in disks if disk["size"] and not problem_of(disk, disk["size"]))
    raise CardProblem(
        f"{path} is not a disk of this computer. {f'Disks that could be a card: {there}.' if there else 'Insert the card.'}"
    )


def describe(disk: dict) -> str:
    """Name, size and model: /dev/sdb (31.9 GB, Generic Storage Device)."""
    model = " ".join(str(disk[key]).strip() for key in ("vendor", "model") if disk.get(key))
    return f"{disk['name']} ({size_text(disk['size'])}{f', {model}' if model else ''})"


def contents(disk: dict) -> list[str]:
    """What is on a disk, a line for each partition or file system."""
    found = []
    for node in nodes(disk):
        if node is not disk or node["fstype"]:
            details = [node["fstype"] or "no file system", *([f"“{node['label']}”"] if node["label"] else [])]
            found.append(f"{node['name']}: {', '.join([size_text(node['size']), *details])}")
    return found or ["no partition"]


def problem_of(disk: dict, max_size: int) -> str:
    """Why a disk must not be overwritten; "" if it may."""
    name, mounted = describe(disk), mount_points(disk)
    if SYSTEM & set(mounted):
        return f"{name} is the disk of this computer's own system. Name another disk."
    if mounted:
        return (
            f"{name} is mounted at {', '.join(mounted)}. Unmount it (sudo umount {' '.join(mounted)}), "
            "or, to write only the files of its boot partition, name that directory."
        )
    users = [f"{node['name']} ({node['type']})" for node in nodes(disk) if node["type"] not in WRITABLE]
    if users:
        return f"{name} is in use by {', '.join(users)}. Name another disk."
    if not disk["size"]:
        return f"{disk['name']} has no card in it."
    if disk["size"] > max_size:
        return too_large(disk, max_size)
    if disk["ro"]:
        return f"{name} is write-protected: move the switch on the card or its adapter."
    return ""


def too_large(disk: dict, max_size: int) -> str:
    return (
        f"{describe(disk)} is larger than {size_text(max_size)}, so it may not be a card. "
        "If it is one, set card_max_size_gb to its size."
    )


def mounted_disk(disks: list[dict], directory: str) -> dict | None:
    """The disk whose file system contains a directory; None if it is on none of them."""
    parts = [directory]
    while parts[-1] != "/":
        parts.append(os.path.dirname(parts[-1]))
    for part in parts:
        for disk in disks:
            if part in mount_points(disk):
                return disk
    return None
