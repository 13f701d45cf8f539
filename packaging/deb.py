"""Read and build Debian packages. Builds are reproducible: the same files give the same package."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

# The modification time of every file in a package that is built here: 2026-01-01 00:00 UTC.
SOURCE_DATE_EPOCH = 1767225600


class FeedError(Exception):
    """An error to show to the user: what is wrong, and what to do."""


@dataclasses.dataclass(frozen=True)
class Package:
    """A .deb file and its origin: vendor, debian, built, stand-in or drop-in."""

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
            reason = result.stderr.strip() or "its control file is incomplete"
            raise FeedError(f"{path} is not a valid Debian package: {reason}")
        return cls(path, fields["Package"], fields["Version"], fields["Architecture"], origin, source)

    @property
    def file_name(self) -> str:
        # apt requests the file by URL, where the colon of an epoch must be escaped.
        return f"{self.name}_{self.version.replace(':', '%3a')}_{self.architecture}.deb"


def newer(one: str, other: str) -> bool:
    """Whether version `one` is newer than `other` by Debian's rules."""
    return subprocess.run(["dpkg", "--compare-versions", one, "gt", other], check=False).returncode == 0


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def build(tree: Path, control: dict[str, str], destination: Path) -> Path:
    """Pack `tree`, with maintainer scripts in its DEBIAN/ if there are any, as `destination`/<name>_<version>_<arch>.deb.

    This implements deb(5) in plain Python, so it also works on a machine without dpkg-deb.
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
    """Copy files from `source` into a package's tree; each entry is (from, to, mode)."""
    for origin, target, mode in files:
        (tree / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / origin, tree / target)
        (tree / target).chmod(mode)


def built(tree: Path, control: dict[str, str], destination: Path, source: str) -> Package:
    """Pack `tree` with build(); the package has the origin `built`."""
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
    # A low preset packs three times as fast, and a Pi unpacks it as quickly.
    with tarfile.open(fileobj=buffer, mode="w:xz", format=tarfile.GNU_FORMAT, preset=2) as tar:
        tar.add(root, arcname=".", recursive=False, filter=normal)
        for path in paths:
            tar.add(path, arcname=f"./{path.relative_to(root)}", recursive=False, filter=normal)
    return buffer.getvalue()


def place(source: Path, target: Path, is_linked: bool = True) -> None:
    """Put `source` at `target` atomically, as a hard link if it may be one and that is possible."""
    temporary = target.with_name(f".{target.name}.new")
    temporary.unlink(missing_ok=True)
    if is_linked:
        with contextlib.suppress(OSError):
            os.link(source, temporary)
    if not temporary.exists():
        shutil.copyfile(source, temporary)
    temporary.chmod(0o644)
    temporary.replace(target)
