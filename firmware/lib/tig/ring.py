"""The newest readings, each with its own time, in a block of memory that is allocated once.

A record is its uptime and its UTC time in seconds (0: not known yet) and one 32-bit float per field (NaN: left out). The uptime
of a reading that is older than the last reset is negative. When the ring is full, the oldest record makes room and is counted in `dropped`.
"""

import os
import struct

_HEAD = struct.calcsize("<iI")
_NAN = float("nan")
_DELIVERED = -0x3FFFFFFF  # no uptime
_END = b"\x00whole\x00"


def _signature(fields):
    return "\n".join(fields).encode() + b"\x00"


class Ring:
    def __init__(self, capacity, fields):
        """capacity in records, fields per record."""
        self._values = "<" + "f" * fields
        self._size = _HEAD + 4 * fields
        self._memory = bytearray(capacity * self._size)
        self.capacity = capacity
        self.first = 0  # running number of the oldest record
        self.count = 0
        self.dropped = 0

    def push(self, uptime, time, values):
        """Add a reading: uptime and time in seconds (time None: not known), values with None for what is missing."""
        if self.count == self.capacity:
            self.first += 1
            self.count -= 1
            self.dropped += 1
            self._pass_delivered()
        at = self._at(self.first + self.count)
        struct.pack_into("<iI", self._memory, at, uptime, time or 0)
        struct.pack_into(self._values, self._memory, at + _HEAD, *[_NAN if value is None else value for value in values])
        self.count += 1

    def has(self, number):
        return self.first <= number < self.first + self.count

    def uptime(self, number):
        """When the record with a running number was made, in seconds of uptime."""
        return struct.unpack_from("<i", self._memory, self._at(number))[0]

    def time(self, number):
        """The same in seconds since 1970, or 0."""
        return struct.unpack_from("<I", self._memory, self._at(number) + 4)[0]

    def values(self, number):
        """One per field; NaN where it was left out."""
        return struct.unpack_from(self._values, self._memory, self._at(number) + _HEAD)

    def _at(self, number):
        return number % self.capacity * self._size

    def remove(self, number):
        """Remove a delivered record by its number."""
        if number < self.first:
            self.dropped -= 1  # it made room while it was under way, but arrived
        elif number == self.first:
            self.first += 1
            self.count -= 1
        elif number == self.first + self.count - 1:
            self.count -= 1
        else:
            struct.pack_into("<i", self._memory, self._at(number), _DELIVERED)
        self._pass_delivered()

    def _pass_delivered(self):
        """Neither the oldest nor the newest is one that was delivered."""
        while self.count and self.uptime(self.first) == _DELIVERED:
            self.first += 1
            self.count -= 1
        while self.count and self.uptime(self.first + self.count - 1) == _DELIVERED:
            self.count -= 1

    def save(self, path, fields, reset=None):
        """Write the records to a file. Those that do not know their time can have one only if the uptime at the coming reset is
        known (`reset`); else they count as dropped."""
        with open(path, "wb") as f:
            f.write(_signature(fields))
            dropped = self.dropped
            for number in range(self.first, self.first + self.count):
                uptime = self.uptime(number)
                if uptime == _DELIVERED:
                    continue
                if not self.time(number) and reset is None:
                    dropped += 1
                    continue
                # The reset is the only moment that the next program knows, too.
                f.write(struct.pack("<iI", uptime - (reset or 0), self.time(number)))
                at = self._at(number) + _HEAD
                f.write(memoryview(self._memory)[at : at + self._size - _HEAD])
            f.write(_END + struct.pack("<I", dropped))

    def load(self, path, fields, since=None):
        """Add the records of a file if it is complete, and remove it; fields are matched by name. True if there were any.

        since: seconds from the reset to where the uptime of now begins; None: not known.
        """
        try:
            with open(path, "rb") as f:
                data = f.read()
            os.remove(path)
        except OSError:
            return False
        start = data.find(b"\x00") + 1
        names = data[: max(0, start - 1)].split(b"\n")
        form = "<" + "f" * len(names)
        size = _HEAD + struct.calcsize(form)
        end = len(data) - len(_END) - 4
        if not start or end < start or data[end : end + len(_END)] != _END or (end - start) % size:
            return False
        places = [names.index(field) if field in names else None for field in map(str.encode, fields)]
        for at in range(start, end, size):
            uptime, time = struct.unpack_from("<iI", data, at)
            kept = struct.unpack_from(form, data, at + _HEAD)
            values = [None if place is None else kept[place] for place in places]
            # A record without a time may get one from its uptime; one whose sensors are gone is dropped.
            if (time or since is not None) and any(v is not None and v == v for v in values):
                self.push(uptime - (since or 0), time, values)
            else:
                self.dropped += 1
        self.dropped += struct.unpack("<I", data[-4:])[0]
        return self.count > 0

    def stamp(self, clock):
        """Give every record that waits for a clock its time."""
        for number in range(self.first, self.first + self.count):
            uptime = self.uptime(number)
            if not self.time(number) and uptime != _DELIVERED:
                struct.pack_into("<I", self._memory, self._at(number) + 4, clock.at(uptime))
