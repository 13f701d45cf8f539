"""How files go down the line: framed, compressed, and without the bytes that mean something to the REPL."""

from __future__ import annotations

import zlib

# Never in the stream: what the REPL or Pycom's receive interrupt acts upon, and CR, which the device reads as LF.
CONTROL = (1, 2, 3, 4, 5, 6, 13)
ESCAPE = 27


def escaped(data: bytes) -> bytes:
    data = data.replace(bytes((ESCAPE,)), bytes((ESCAPE, ESCAPE ^ 64)))
    for char in CONTROL:
        data = data.replace(bytes((char,)), bytes((ESCAPE, char ^ 64)))
    # The last byte makes sure that no write consists of what the expansion board's PIC takes for a command.
    return data + b"."


def deflated(data: bytes, bits: int) -> bytes:
    """Raw deflate with a window of 2 to the power of `bits` bytes."""
    press = zlib.compressobj(9, zlib.DEFLATED, -bits, 9)
    return press.compress(data) + press.flush()


def packed(data: bytes) -> tuple[bytes, int]:
    """What goes down the line for `data`, and the bits of its window; 0 where it is not compressed."""
    bits = 15 if len(data) > 8192 else 13
    small = deflated(data, bits)
    return (small, bits) if len(small) < len(data) else (data, 0)


def framed(file: tuple[str, bytes]) -> bytes:
    """A file in the stream: path, size, content."""
    path, data = file
    return b"%s\n%d\n%s" % (path.encode(), len(data), data)


def batches(files: list[tuple[str, bytes]], limit: int) -> list[list[tuple[str, bytes]]]:
    """Files in groups whose stream the device can hold; a file that alone is larger is a group of its own."""
    groups: list[list[tuple[str, bytes]]] = []
    for file in files:
        if groups and len(packed(b"".join(map(framed, [*groups[-1], file])))[0]) <= limit:
            groups[-1].append(file)
        else:
            groups.append([file])
    return groups
