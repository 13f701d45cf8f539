"""A program on the controller: its files, and whether a device can have them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from ansible.errors import AnsibleActionFail

ROOT_FILES = ("boot.py", "main.py")
# Names that FAT and littlefs both take. FAT does not tell upper from lower case.
NAME = re.compile(r"[A-Za-z0-9_-]([A-Za-z0-9._-]{0,62}[A-Za-z0-9_-])?")


def root_files(loader: bytes) -> dict[str, bytes]:
    """boot.py and main.py: each is the loader with its own name in the first line."""
    return {name: loader.replace(b'ROLE = ""', f'ROLE = "{name[:-3]}"'.encode(), 1) for name in ROOT_FILES}


def tree(directory: Path, drivers: Path | None = None) -> dict[str, bytes]:
    """The program's files by their path on the device.

    Args:
        directory: of the program.
        drivers: directory of further sensor drivers; it may be absent.

    Raises:
        AnsibleActionFail: this is not a program, or a device cannot have files of these names.
    """
    loader = directory / "loader.py"
    if not loader.is_file():
        raise AnsibleActionFail(f"lopy4_program: {loader} is missing; a program has loader.py and lib/.")
    files = root_files(loader.read_bytes())
    for path in sorted((directory / "lib").rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc":
            files[path.relative_to(directory).as_posix()] = path.read_bytes()
    if drivers:
        files |= {f"lib/tig/drivers/{path.name}": path.read_bytes() for path in sorted(drivers.glob("*.py"))}
    _check_names(directory, files)
    return files


def _check_names(directory: Path, files: dict[str, bytes]) -> None:
    seen: dict[str, str] = {}
    for name in files:
        parts = name.split("/")
        odd = [part for part in parts if not NAME.fullmatch(part)]
        if odd:
            raise AnsibleActionFail(
                f"lopy4_program: a device can't have the file {name!r} of {directory}: {odd[0]!r} must consist of letters from a to z, "
                "digits, '_', '-' and '.' (neither first nor last), at most 64. Rename it, or remove it if it is an editor's."
            )
        for path in ("/".join(parts[: count + 1]) for count in range(len(parts))):
            other = seen.setdefault(path.lower(), path)
            if other != path:
                raise AnsibleActionFail(
                    f"lopy4_program: {other!r} and {path!r} of {directory} differ in upper and lower case only, and are one on a "
                    "device: rename one."
                )


def version(files: dict[str, bytes]) -> str:
    """VERSION in the package's __init__.py; empty if it has none."""
    for node in ast.parse(files.get("lib/tig/__init__.py", b"")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "VERSION":
            return str(ast.literal_eval(node.value))
    return ""
