"""Debian packages: read them, and make them so that the same files give the same package."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import shutil
import subprocess
import tarfile
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


def build(tree: Path, control: dict[str, str], destination: Path) -> Path:
    """Pack `tree` (which may hold DEBIAN/ with maintainer scripts) into `destination`/<name>_<version>_<arch>.deb.

    deb(5) in plain Python, so that it can be done on a machine that is no Debian.
    """
    scripts = tree / "DEBIAN"
    scripts.mkdir(exist_ok=True)
    files = sorted(path for path in tree.rglob("*") if path != scripts and scripts not in path.parents)
    regular = [path for path in files if path.is_file() and not path.is_symlink()]
    size = sum(path.stat().st_size for path in regular)
    fields = control | {"Installed-Size": str(size // 1024)}
    (scripts / "control").write_text("".join(f"{key}: {value}\n" for key, value in fields.items()))
    sums = (f"{hashlib.md5(path.read_bytes()).hexdigest()}  {path.relative_to(tree)}\n" for path in regular)
    (scripts / "md5sums").write_text("".join(sums))
    target = destination / f"{control['Package']}_{control['Version']}_{control['Architecture']}.deb"
    members = {
        "debian-binary": b"2.0\n",
        "control.tar.xz": _tar(scripts, sorted(scripts.iterdir())),
        "data.tar.xz": _tar(tree, files),
    }
    with target.open("wb") as file:
        file.write(b"!<arch>\n")
        for name, content in members.items():
            file.write(f"{name:<16}{SOURCE_DATE_EPOCH:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode())
            file.write(content + b"\n" * (len(content) % 2))
    return target


def copy_into(tree: Path, source: Path, files: tuple[tuple[str, str, int], ...]) -> None:
    """Copy files of a source into a package's tree: from, to, mode."""
    for origin, target, mode in files:
        (tree / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / origin, tree / target)
        (tree / target).chmod(mode)


def built(tree: Path, control: dict[str, str], destination: Path, source: str) -> Package:
    """What build() has packed, as a package that was built here."""
    path = build(tree, control, destination)
    return Package(path, control["Package"], control["Version"], control["Architecture"], "built", source)


def _tar(root: Path, paths: list[Path]) -> bytes:
    def normal(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        member.uname = member.gname = "root"
        member.mtime = SOURCE_DATE_EPOCH
        member.mode = 0o755 if member.isdir() or member.issym() or member.mode & 0o100 else 0o644
        return member

    buffer = io.BytesIO()
    # A low preset: a Pi unpacks it no slower, and it is made three times as fast.
    with tarfile.open(fileobj=buffer, mode="w:xz", format=tarfile.GNU_FORMAT, preset=2) as tar:
        tar.add(root, arcname=".", recursive=False, filter=normal)
        for path in paths:
            tar.add(path, arcname=f"./{path.relative_to(root)}", recursive=False, filter=normal)
    return buffer.getvalue()


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
