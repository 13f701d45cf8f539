"""The retained messages of Mosquitto, from the store that it writes.

They are taken from its store, and added to that of the other broker while it does not run: so no account has to be allowed to
publish everything, and no subscriber gets an old message as if it were new.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from . import Problem
from .archive import Writer

# The store: 15 bytes that name it, a checksum that is never used, its version, and then records of kind, length and body.
MAGIC = b"\x00\xb5\x00mosquitto db"
START = len(MAGIC) + 8
CONFIGURATION, MESSAGE, _, RETAINED = range(1, 5)
VERSION = 6
MEMBER = "retained.json"


def _records(data: bytes, path: Path) -> list[tuple[int, bytes]]:
    """Kind and body of each record of a store."""
    if not data.startswith(MAGIC) or struct.unpack_from(">L", data, START - 4)[0] != VERSION:
        raise Problem("unknown_format", f"{path} is not a store of Mosquitto 2")
    found, offset = [], START
    while offset < len(data):
        if offset + 8 > len(data):
            raise Problem("source_damaged", f"{path} breaks off")
        kind, length = struct.unpack_from(">LL", data, offset)
        offset += 8
        if offset + length > len(data):
            raise Problem("source_damaged", f"{path} breaks off")
        found.append((kind, data[offset : offset + length]))
        offset += length
    return found


def _number(body: bytes) -> int:
    """The number of a message. The broker writes it as the host does: little-endian."""
    return struct.unpack_from("<Q", body)[0]


def _topic(body: bytes) -> str:
    source, user, length = struct.unpack_from(">HHH", body, 22)
    start = 32 + source + user
    return body[start : start + length].decode()


def _retained(records: list[tuple[int, bytes]]) -> dict[str, bytes]:
    wanted = {_number(body) for kind, body in records if kind == RETAINED}
    return {_topic(body): body for kind, body in records if kind == MESSAGE and _number(body) in wanted}


def save(archive: Writer, name: str, source: dict, scratch: Path) -> None:
    path = Path(source["path"])
    _write_now(source["unit"], path)
    messages = _retained(_records(path.read_bytes(), path)) if path.exists() else {}
    content = {topic: base64.b64encode(body).decode() for topic, body in sorted(messages.items())}
    archive.add_bytes(f"{name}/{MEMBER}", json.dumps(content, indent=1).encode())
    archive.about["sources"][name] = {"kind": "mosquitto", "retained": len(messages), "topics": sorted(messages)}


def compare(manifest: dict, name: str, source: dict, scratch: Path) -> Iterator[str]:
    """The topics of the archive of which the broker has no retained message."""
    path = Path(source["path"])
    _write_now(source["unit"], path)
    present = _retained(_records(path.read_bytes(), path))
    for topic in manifest["sources"][name].get("topics", []):
        if topic not in present:
            yield f"the broker has no retained message of {topic}"


def _write_now(unit: str, path: Path, seconds: float = 30) -> None:
    """Have the broker write its store."""
    shown = subprocess.run(
        ["systemctl", "show", "--property=MainPID", "--value", unit], capture_output=True, text=True, check=True
    )
    process = int(shown.stdout)
    if not process:
        return
    before = path.stat().st_mtime_ns if path.exists() else 0
    os.kill(process, signal.SIGUSR1)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if path.exists() and path.stat().st_mtime_ns != before:
            return
        time.sleep(0.05)
    raise Problem("not_consistent", f"{unit} has not written {path} within {seconds:.0f} s")


def restore(directory: Path, about: dict, source: dict, scratch: Path, aside: Path) -> list[str]:
    """Add the retained messages of topics that have none now. The broker does not run."""
    path = Path(source["path"])
    old = {topic: base64.b64decode(body) for topic, body in json.loads((directory / MEMBER).read_bytes()).items()}
    data = path.read_bytes() if path.exists() else b""
    records = _records(data, path) if data else []
    present = _retained(records)
    missing = {topic: body for topic, body in old.items() if topic not in present}
    last = max([_number(body) for kind, body in records if kind in (CONFIGURATION, MESSAGE)], default=0)
    for topic in missing:
        last += 1
        body = struct.pack("<Q", last) + missing[topic][8:]
        records += [(MESSAGE, body), (RETAINED, struct.pack("<Q", last))]
    configuration = struct.pack("<QBB6x", last, 1, 8)
    records = [(CONFIGURATION, configuration), *((kind, body) for kind, body in records if kind != CONFIGURATION)]
    aside.mkdir(mode=0o700, parents=True)
    if data:
        (aside / path.name).write_bytes(data)
    owner = (path if path.exists() else path.parent).stat()
    staged = path.with_name(f".{path.name}.restored")
    parts = [MAGIC, struct.pack(">LL", 0, VERSION)]
    for kind, body in records:
        parts += [struct.pack(">LL", kind, len(body)), body]
    staged.write_bytes(b"".join(parts))
    staged.chmod(0o600)
    os.chown(staged, owner.st_uid, owner.st_gid)
    os.replace(staged, path)
    return [f"restored {len(missing)} retained messages; {len(old) - len(missing)} topics have a newer one"]
