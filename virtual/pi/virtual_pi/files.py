"""Files that several processes read and write."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import pathlib
import tarfile
import time
from collections.abc import Iterator

from . import say


@contextlib.contextmanager
def lock(path: pathlib.Path, waiting_for: str) -> Iterator[None]:
    """Hold a file lock. The kernel releases it when the process ends, however it ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for {waiting_for}")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def replace_file(path: pathlib.Path, content: str | bytes, mode: int = 0o644) -> None:
    """Write a file atomically."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(content.encode() if isinstance(content, str) else content)
    temporary.chmod(mode)
    temporary.replace(path)


def archive(files: dict[str, tuple[str, int]]) -> bytes:
    """A tar archive of {path: (content, mode)} for `podman cp`, which makes root the owner."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, (content, mode) in files.items():
            data = content.encode()
            entry = tarfile.TarInfo(name)
            entry.mode, entry.size, entry.mtime = mode, len(data), int(time.time())
            tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()
