"""The description of a site, its inventory, in an archive that is the same for the same files."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

# What opens the backups is in none of them, and on no card.
LEFT_OUT = {"secrets/backup/recovery_key"}


def is_left_out(name: Path) -> bool:
    """Whether a file of the inventory, by its path in it, is no part of the description: hidden ones, too."""
    return str(name) in LEFT_OUT or any(part.startswith(".") for part in name.parts)


def packed(files: Mapping[str, tuple[bytes, int]]) -> bytes:
    """A compressed tar file of contents and permissions by name, in this order, that depends on nothing else."""
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, (content, mode) in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), mode
            tar.addfile(member, io.BytesIO(content))
    return gzip.compress(output.getvalue(), mtime=0)


def read(path: Path) -> tuple[bytes, int]:
    return path.read_bytes(), path.stat().st_mode & 0o777
