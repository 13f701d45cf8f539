"""A page: a file with readings, of at most one block of the flash.

It starts with the names of the fields. Then come parts, one for each time that readings were added: the number of its first reading, the
number of the oldest reading that waited to be sent, how many readings there are, a digest, and per reading its time and one 32-bit float
per field (NaN: left out). A part that does not match its digest does not count, and none after it does.
"""

import hashlib
import os
import struct

FOLDER = "readings"  # in the root of the file system
BLOCK = 4096
_FOLDERS = 32  # each change of a file also wears the blocks of its folder: they take turns
_PART = "<IIH"
_DIGEST = 6
_HEAD = struct.calcsize(_PART) + _DIGEST


class Page:
    """The page that was read last, in memory that is allocated once."""

    def __init__(self, fields):
        self.fields = [field.encode() for field in fields]
        self.reading = 4 + 4 * len(fields)  # bytes of a reading
        self._names = b"\n".join(self.fields)
        self._data = bytearray(BLOCK)
        self.parts = []  # (number, number of the oldest that waited, count, place of the first reading)

    def read(self, slot):
        """Read a page. Returns the number of its bytes; 0 if nothing can be added: it is damaged, or has other fields."""
        self.parts = []
        try:
            with open(_path(slot), "rb") as f:
                size = f.readinto(self._data)
        except OSError:
            return 0
        data = memoryview(self._data)
        at = 2 + struct.unpack_from("<H", self._data)[0]
        if not 2 < at <= size:
            return 0
        names = bytes(data[2:at])
        fields = names.split(b"\n")
        self._form = "<" + "f" * len(fields)
        self._width = 4 + 4 * len(fields)
        self._places = None  # of our fields among those of the page, if these are others
        if names != self._names:
            self._places = [fields.index(field) if field in fields else None for field in self.fields]
        while at + _HEAD <= size:
            number, waiting, count = struct.unpack_from(_PART, self._data, at)
            place = at + _HEAD
            end = place + count * self._width
            if end > size:
                break
            if bytes(data[place - _DIGEST : place]) != _digest((names, data[at : place - _DIGEST], data[place:end])):
                break
            self.parts.append((number, waiting, count, place))
            at = end
        return size if at == size and self._places is None else 0

    @property
    def useful(self):
        """Whether it has one of our fields."""
        return self._places is None or any(place is not None for place in self._places)

    def spans(self):
        """Times of the first and the last reading of each part."""
        for _, _, count, place in self.parts:
            if count:
                yield self.time(place), self.time(place + (count - 1) * self._width)

    def find(self, number):
        """Place of a reading; 0: it is not there."""
        for first, _, count, place in self.parts:
            if first <= number < first + count:
                return place + (number - first) * self._width
        return 0

    def time(self, place):
        return struct.unpack_from("<I", self._data, place)[0]

    def values(self, place):
        """One per field of ours; NaN where it was left out."""
        values = struct.unpack_from(self._form, self._data, place + 4)
        if self._places is None:
            return values
        return [float("nan") if place is None else values[place] for place in self._places]

    # --- writing

    def room(self, used):
        """How many readings fit into one more part of a page with so many bytes, -1 if no part does."""
        left = BLOCK - (used or self._start()) - _HEAD
        return left // self.reading if left >= 0 else -1

    def write(self, slot, used, number, waiting, records):
        """Add a part to a page that has `used` bytes; 0: it is new. Returns how many it has afterwards."""
        names = self._names
        part = struct.pack(_PART, number, waiting, len(records))
        part += _digest([names, part] + records)
        if not used:
            _make_folder(slot)
        with open(_path(slot), "ab" if used else "wb") as f:
            if not used:
                f.write(struct.pack("<H", len(names)) + names)
            f.write(part)
            for record in records:
                f.write(record)
        return (used or self._start()) + _HEAD + len(records) * self.reading

    def _start(self):
        return 2 + len(self._names)


def slots():
    """The pages that there are, in no order."""
    for folder in range(_FOLDERS):
        try:
            names = os.listdir("%s/%d" % (FOLDER, folder))
        except OSError:
            continue
        for name in names:
            if name.isdigit():
                yield int(name) * _FOLDERS + folder


def remove(slot):
    try:
        os.remove(_path(slot))
    except OSError:
        pass


def _path(slot):
    return "%s/%d/%d" % (FOLDER, slot % _FOLDERS, slot // _FOLDERS)


def _make_folder(slot):
    for path in (FOLDER, "%s/%d" % (FOLDER, slot % _FOLDERS)):
        try:
            os.mkdir(path)
        except OSError:
            pass  # it is there


def _digest(pieces):
    found = hashlib.sha256()
    try:
        for piece in pieces:
            found.update(piece)
    finally:
        digest = found.digest()  # Pycom's hashing is blocked for good by a hash that is never asked for it
    return digest[:_DIGEST]
