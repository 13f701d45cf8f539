"""Where a copy lies until it is in the archive: in memory, which spares the card, unless it is too large for that."""

from __future__ import annotations

import os
import re
from pathlib import Path


def place_for(size: int, memory: Path, card: Path) -> Path:
    """The directory for a copy of that size: it may take half of what is free in memory."""
    free = os.statvfs(memory)
    room = min(free.f_bavail * free.f_frsize, _available())
    if size <= room // 2:
        return memory
    card.mkdir(mode=0o700, parents=True, exist_ok=True)
    return card


def _available() -> int:
    text = Path("/proc/meminfo").read_text(encoding="ascii")
    return int(re.search(r"^MemAvailable:\s+(\d+) kB", text, re.MULTILINE)[1]) * 1024


def size_of(directory: Path) -> int:
    """The size of all files below a directory; of one that is not there 0."""
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
