"""The archive: one tar stream, with a manifest of all its files as the last member.

It is a stream, so that nothing of it has to be written to the card. Members are not compressed: restic compresses them,
and recognises what has not changed since the night before. An archive without a manifest is not complete.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from . import Problem

MANIFEST = "manifest.json"
GZIPPED = ".gz"
FORMAT = 1
BLOCK = 1 << 20


class _Hashed:
    """A file that is hashed while it is read."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.hash = file, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self.file.read(size)
        self.hash.update(data)
        return data


class Writer:
    """Writes an archive to a stream."""

    def __init__(self, stream: BinaryIO, about: dict) -> None:
        self.about = {"format": FORMAT, "begun": time.time(), **about, "sources": {}, "files": {}}
        self.tar = tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT)  # noqa: SIM115 (closed by close)

    def add(self, name: str, size: int, file: BinaryIO, modified: float = 0, mode: int = 0o600) -> None:
        """Add a file. A later one of the same name takes its place."""
        member = tarfile.TarInfo(name)
        member.size, member.mtime, member.mode = size, int(modified), mode
        hashed = _Hashed(file)
        self.tar.addfile(member, hashed)
        self.about["files"][name] = {"size": size, "sha256": hashed.hash.hexdigest()}

    def add_bytes(self, name: str, content: bytes, modified: float = 0) -> None:
        self.add(name, len(content), io.BytesIO(content), modified)

    def add_link(self, name: str, target: str) -> None:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = tarfile.SYMTYPE, target
        self.tar.addfile(member)
        self.about["files"][name] = {"link": target}

    def leave_out(self, name: str) -> None:
        """Forget a file that has been added, since it is gone from its source."""
        self.about["files"].pop(name, None)

    def close(self) -> dict:
        self.about["ended"] = time.time()
        content = json.dumps(self.about, indent=1, sort_keys=True).encode()
        member = tarfile.TarInfo(MANIFEST)
        member.size, member.mode = len(content), 0o600
        self.tar.addfile(member, io.BytesIO(content))
        self.tar.close()
        return self.about


def hash_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def unpack(stream: BinaryIO, directory: Path, gzipped: Callable[[str], bool] = lambda name: False) -> dict:
    """Unpack an archive, and compare all its files with the manifest, which is returned.

    Files for whose names `gzipped` is true are written in gzip's format, without compression, and get its suffix.

    Raises:
        Problem: `damaged`, with the file that is not as it was.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def place_of(name: str) -> Path:
        return directory / (f"{name}{GZIPPED}" if gzipped(name) else name)

    def write(member: tarfile.TarInfo, source: _Hashed | None) -> None:
        path = place_of(member.name)
        if not path.resolve().is_relative_to(directory.resolve()):
            raise Problem("damaged", f"the archive has a file outside of its directory: {member.name}")
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        if source is None:
            path.symlink_to(member.linkname)
            return
        with gzip.open(path, "wb", compresslevel=0) if gzipped(member.name) else path.open("wb") as file:
            while data := source.read(BLOCK):
                file.write(data)
        path.chmod(member.mode)

    found, manifest = _read(stream, write)
    for name in found.keys() - manifest["files"].keys():  # a file that was removed from its source during the backup
        place_of(name).unlink()
    return manifest


def verify(stream: BinaryIO) -> dict:
    """Compare all files of an archive with its manifest, which is returned; nothing is written."""
    return _read(stream, lambda member, source: None)[1]


def _read(stream: BinaryIO, use: Callable[[tarfile.TarInfo, _Hashed | None], None]) -> tuple[dict, dict]:
    """Pass each member to `use`, with its content unless it is a link; the members and the manifest, which agree."""
    found: dict[str, dict] = {}
    content = b""
    try:
        with tarfile.open(fileobj=stream, mode="r|") as tar:
            for member in tar:
                if member.issym():
                    use(member, None)
                    found[member.name] = {"link": member.linkname}
                    continue
                if not member.isfile():
                    raise Problem("damaged", f"the archive has a file of an unexpected kind: {member.name}")
                if member.name == MANIFEST:
                    content = tar.extractfile(member).read()
                    use(member, _Hashed(io.BytesIO(content)))
                    continue
                source = _Hashed(tar.extractfile(member))
                use(member, source)
                while source.read(BLOCK):
                    pass
                found[member.name] = {"size": member.size, "sha256": source.hash.hexdigest()}
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise Problem("damaged", f"the archive cannot be read: {error}") from error
    if not content:
        raise Problem("damaged", "the archive has no manifest: the backup did not reach its end")
    try:
        manifest = json.loads(content)
        wanted = manifest["files"]
    except (ValueError, KeyError, TypeError) as error:
        raise Problem("damaged", f"the manifest of the archive cannot be read: {error}") from error
    if manifest.get("format") != FORMAT:
        raise Problem("unknown_format", f"the archive has format {manifest.get('format')}; this program reads {FORMAT}")
    for name, expected in wanted.items():
        if found.get(name) != expected:
            raise Problem("damaged", f"{name} in the archive is not as it was when it was backed up")
    return found, manifest
