"""The boot pointer: two records, slot.0 and slot.1, that say which slot runs; firmware/ has the loader that reads them."""

from __future__ import annotations

import re
import zlib

RECORD = 64  # bytes


def parse(record: bytes) -> tuple[int, str, str, int] | None:
    """(sequence, slot, state, tries) of a record, or None when it is not sound."""
    match = re.fullmatch(rb"((\d+) ([ab]) (trial|good) (\d+)) ([0-9a-f]{8}) *\n", record)
    if not match or len(record) != RECORD or zlib.crc32(match[1]) != int(match[6], 16):
        return None
    return int(match[2]), match[3].decode(), match[4].decode(), int(match[5])


def pointer(records: list[bytes]) -> tuple[tuple[int, str, str, int] | None, int]:
    """The record that counts (None: there is none), and the number of the one that may be overwritten."""
    parsed = [parse(record) for record in records]
    if parsed[0] and (not parsed[1] or parsed[0][0] > parsed[1][0]):
        return parsed[0], 1
    return parsed[1], 0


def record(sequence: int, slot: str, state: str, tries: int) -> bytes:
    text = f"{sequence} {slot} {state} {tries}"
    return f"{text} {zlib.crc32(text.encode()):08x}".ljust(RECORD - 1).encode() + b"\n"
