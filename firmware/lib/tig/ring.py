"""The newest readings, each with its own time, in one block of memory that is reserved once.

A record is its uptime and its UTC time in seconds (0: not known yet) and one 32-bit float per field (NaN: left out). The uptime
of a reading that is older than the last reset is negative. When the ring is full the oldest record makes room, and is counted in `dropped`.
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
        self._format = "<iI" + "f" * fields
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
        struct.pack_into(
            self._format,
            self._memory,
            (self.first + self.count) % self.capacity * self._size,
            uptime,
            time or 0,
            *[_NAN if value is None else value for value in values]
        )
        self.count += 1

    def has(self, number):
        return self.first <= number < self.first + self.count

    def get(self, number):
        """(uptime, time or 0, value, ...) of the record with a running number; a value that is NaN was left out."""
        return struct.unpack_from(self._format, self._memory, number % self.capacity * self._size)

    def remove(self, number):
        """Take a delivered record out, by its number."""
        if number < self.first:
            self.dropped -= 1  # it made room while it was under way, and arrived all the same
        elif number == self.first:
            self.first += 1
            self.count -= 1
        elif number == self.first + self.count - 1:
            self.count -= 1
        else:
            struct.pack_into("<i", self._memory, number % self.capacity * self._size, _DELIVERED)
        self._pass_delivered()

    def _pass_delivered(self):
        """Neither the oldest nor the newest is one that was delivered."""
        while self.count and self.get(self.first)[0] == _DELIVERED:
            self.first += 1
            self.count -= 1
        while self.count and self.get(self.first + self.count - 1)[0] == _DELIVERED:
            self.count -= 1

    def save(self, path, fields, reset=None):
        """Write the records to a file. Those that do not know their time can have one only if the uptime at the coming reset is
        known (`reset`); else they count as dropped."""
        with open(path, "wb") as f:
            f.write(_signature(fields))
            dropped = self.dropped
            for number in range(self.first, self.first + self.count):
                record = self.get(number)
                if record[0] == _DELIVERED:
                    continue
                if not record[1] and reset is None:
                    dropped += 1
                    continue
                # The reset is the only moment that the next program knows, too.
                f.write(struct.pack(self._format, record[0] - (reset or 0), *record[1:]))
            f.write(_END + struct.pack("<I", dropped))

    def load(self, path, fields, since=None):
        """Take in the records of a file, if it is whole, and remove it; a field goes where its name is. True if there were any.

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
        form = "<iI" + "f" * len(names)
        size = struct.calcsize(form)
        end = len(data) - len(_END) - 4
        if not start or end < start or data[end : end + len(_END)] != _END or (end - start) % size:
            return False
        places = [names.index(field) if field in names else None for field in map(str.encode, fields)]
        for at in range(start, end, size):
            record = struct.unpack_from(form, data, at)
            values = [None if place is None else record[2 + place] for place in places]
            # One that has no time may get one by its uptime; one whose sensors are no longer there says nothing.
            if (record[1] or since is not None) and any(v is not None and v == v for v in values):
                self.push(record[0] - (since or 0), record[1], values)
            else:
                self.dropped += 1
        self.dropped += struct.unpack("<I", data[-4:])[0]
        return self.count > 0

    def stamp(self, clock):
        """Give every record that waits for a clock its time."""
        for number in range(self.first, self.first + self.count):
            at = number % self.capacity * self._size
            uptime, time = struct.unpack_from("<iI", self._memory, at)
            if not time and uptime != _DELIVERED:
                struct.pack_into("<I", self._memory, at + 4, clock.at(uptime))
