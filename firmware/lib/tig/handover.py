"""Readings that wait, in a file for the program that starts next: after a crash, or when the previous program has to run again.

A long backlog takes longer to write or to read than the watchdog waits, so it is fed meanwhile.
"""

import os
import struct

_HEAD = struct.calcsize("<iI")
_END = b"\x00whole\x00"
_FEED_EVERY = 256  # records


def _nothing():
    pass


def save(ring, path, fields, reset=None, start=0, feed=_nothing):
    """Write the records that wait, from the number `start` on. Those that do not know their time can have one only if the uptime at
    the coming reset is known (`reset`); else they count as dropped."""
    start = max(ring.first, start)
    if not ring.dropped and all(ring.gone(number) for number in range(start, ring.end)):
        return
    try:
        with open(path, "wb") as f:
            _write(f, ring, fields, reset, start, feed)
    except OSError:
        try:
            os.remove(path)  # what was written takes the room that the others need
        except OSError:
            pass
        raise


def _write(f, ring, fields, reset, start, feed):
    f.write("\n".join(fields).encode() + b"\x00")
    dropped = ring.dropped
    for number in range(start, ring.end):
        if number % _FEED_EVERY == 0:
            feed()
        if ring.gone(number):
            continue
        if not ring.time(number) and reset is None:
            dropped += 1
            continue
        # The reset is the only moment that the next program knows, too.
        f.write(struct.pack("<i", ring.uptime(number) - (reset or 0)))
        f.write(ring.record(number))
    f.write(_END + struct.pack("<I", dropped))


def load(ring, path, fields, since=None, feed=_nothing):
    """Add the records of a file if it is complete, and remove it; fields are matched by name. True if any waits now.

    since: seconds from the reset to where the uptime of now begins; None: not known.
    """
    try:
        f = open(path, "rb")
    except OSError:
        return False
    try:
        return _read(f, ring, fields, since, feed)
    except OSError:
        return False
    finally:
        f.close()
        os.remove(path)


def _read(f, ring, fields, since, feed):
    end = f.seek(0, 2) - len(_END) - 4
    f.seek(max(0, end))
    if f.read(len(_END)) != _END:
        return False
    dropped = struct.unpack("<I", f.read(4))[0]
    f.seek(0)
    names = b""
    while b"\x00" not in names:
        names += f.read(64)
    start = names.find(b"\x00") + 1
    names = names[: start - 1].split(b"\n")
    form = "<" + "f" * len(names)
    size = _HEAD + struct.calcsize(form)
    if (end - start) % size:
        return False
    places = [names.index(field) if field in names else None for field in map(str.encode, fields)]
    f.seek(start)
    for number in range((end - start) // size):
        if number % _FEED_EVERY == 0:
            feed()
        record = f.read(size)  # not the whole file, for which there may be no memory
        uptime, time = struct.unpack_from("<iI", record, 0)
        kept = struct.unpack_from(form, record, _HEAD)
        values = [None if place is None else kept[place] for place in places]
        # A record without a time may get one from its uptime; one whose sensors are gone is dropped.
        if (time or since is not None) and any(v is not None and v == v for v in values):
            ring.push(uptime - (since or 0), time, values)
        else:
            ring.dropped += 1
    ring.dropped += dropped
    return ring.count > 0
