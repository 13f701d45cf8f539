"""The interpreters of the sensor nodes, which their vendors do not let programs download: copies of the user's own files.

They are in the feed so that a node can be replaced offline, also if the computer that had the files is gone.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from deb import FeedError, Package, sha256

DIRECTORY = "interpreters"


@dataclasses.dataclass(frozen=True)
class Interpreter(Package):
    """A file that `lopy4_interpreter` of a device names."""

    @classmethod
    def of(cls, path: Path) -> Interpreter:
        if not path.is_file():
            raise FeedError(
                f"lopy4_interpreter: there is no file {path}. Download it again (roles/lopy4/README.md), or set it to where it is."
            )
        return cls(path, path.name, "", "", "file", "lopy4_interpreter")

    @property
    def file_name(self) -> str:
        return f"{DIRECTORY}/{self.name}"


def read(paths: list[Path]) -> list[Interpreter]:
    """Those of all devices, each once."""
    found: dict[str, Interpreter] = {}
    for interpreter in map(Interpreter.of, paths):
        other = found.setdefault(interpreter.name, interpreter)
        if sha256(other.path) != sha256(interpreter.path):
            raise FeedError(f"lopy4_interpreter: {other.path} and {interpreter.path} differ. Rename one of them.")
    return list(found.values())
