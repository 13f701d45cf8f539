"""Debian packages: read them, and make them so that the same files give the same package."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

# Every file of a package that is made here carries this time (2026-01-01 00:00 UTC).
SOURCE_DATE_EPOCH = 1767225600


class FeedError(Exception):
    """Something the person at the keyboard has to know: one sentence, and what to do."""


@dataclasses.dataclass(frozen=True)
class Package:
    """A .deb and where it came from: vendor, debian, built, stand-in or drop-in."""

    path: Path
    name: str
    version: str
    architecture: str
    origin: str
    source: str

    @classmethod
    def read(cls, path: Path, origin: str, source: str) -> Package:
        result = subprocess.run(
            ["dpkg-deb", "--field", path, "Package", "Version", "Architecture"],
            capture_output=True,
            text=True,
            check=False,
        )
        fields = dict(line.split(": ", 1) for line in result.stdout.splitlines() if ": " in line)
        if result.returncode or len(fields) != 3:
            raise FeedError(f"{path} is no Debian package: {result.stderr.strip() or 'its control file is incomplete'}")
        return cls(path, fields["Package"], fields["Version"], fields["Architecture"], origin, source)

    @property
    def file_name(self) -> str:
        # A colon (the epoch of a version) has no place in a file name that apt requests by URL.
        return f"{self.name}_{self.version.replace(':', '%3a')}_{self.architecture}.deb"


def newer(one: str, other: str) -> bool:
    """Whether version `one` sorts after `other`, by Debian's rules."""
    return subprocess.run(["dpkg", "--compare-versions", one, "gt", other], check=False).returncode == 0


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@functools.cache
def _compression() -> list[str]:
    # zstd unpacks several times faster than xz on a Pi; dpkg-deb of Debian 12 and Ubuntu can write it.
    text = subprocess.run(["dpkg-deb", "--help"], capture_output=True, text=True, check=False).stdout
    return ["-Zzstd", "-z10"] if "zstd" in text else ["-Zxz", "-z3"]


def build(tree: Path, control: dict[str, str], destination: Path) -> Path:
    """Pack `tree` (which may hold DEBIAN/ with maintainer scripts) into `destination`/<name>_<version>_<arch>.deb."""
    size = 0
    sums = []
    for path in sorted(tree.rglob("*")):
        if path.is_symlink():
            continue
        if path.is_dir():
            path.chmod(0o755)
            continue
        path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
        if tree / "DEBIAN" not in path.parents:
            size += path.stat().st_size
            with path.open("rb") as file:
                md5 = hashlib.file_digest(file, functools.partial(hashlib.md5, usedforsecurity=False)).hexdigest()
            sums.append(f"{md5}  {path.relative_to(tree)}\n")
    tree.chmod(0o755)
    debian = tree / "DEBIAN"
    debian.mkdir(mode=0o755, exist_ok=True)
    debian.chmod(0o755)
    fields = control | {"Installed-Size": str(size // 1024)}
    (debian / "control").write_text("".join(f"{key}: {value}\n" for key, value in fields.items()))
    (debian / "md5sums").write_text("".join(sums))
    target = destination / f"{control['Package']}_{control['Version']}_{control['Architecture']}.deb"
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", *_compression(), "--build", tree, target],
        check=True,
        stdout=subprocess.DEVNULL,
        env=os.environ | {"SOURCE_DATE_EPOCH": str(SOURCE_DATE_EPOCH), "LC_ALL": "C"},
    )
    return target


def place(source: Path, target: Path) -> None:
    """Put `source` at `target` in one step, as a hard link where that is possible."""
    temporary = target.with_name(f".{target.name}.new")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:
        shutil.copyfile(source, temporary)
    temporary.chmod(0o644)
    temporary.replace(target)
