"""The newest readings, each with its own time, in memory that is allocated once.

Readings that were delivered stay until their space is needed, so that they can be sent again. A record is its uptime and its UTC time
in seconds (0: not known yet) and one 32-bit float per field (NaN: left out). The uptime of a reading that is older than the last reset
is negative. When the ring is full of readings that wait, the oldest makes room and is counted in `dropped`.
"""

import gc
import os
import struct

_HEAD = struct.calcsize("<iI")
_NAN = float("nan")
_DELIVERED = -0x3FFFFFFF  # no uptime
_END = b"\x00whole\x00"
_PAGE = 4096  # bytes that are allocated at a time
_OVERHEAD = 80  # bytes that the allocation of a page takes beside it, at most
_SPARE = 384 * 1024  # bytes of memory that are left to the program, if there is as much
_GAPS = 16


def _signature(fields):
    return "\n".join(fields).encode() + b"\x00"


class Ring:
    def __init__(self, capacity, fields, gap=0):
        """capacity: the most records, if there is memory for them; fields per record; gap: seconds between two readings from which
        on others are missing."""
        self._values = "<" + "f" * fields
        self._size = _HEAD + 4 * fields
        self._allocate(capacity)
        self.oldest = 0  # running number of the oldest record
        self.first = 0  # of the oldest one that waits
        self.count = 0  # records that wait
        self.dropped = 0
        self._gap = gap
        self._gaps = []  # times before and after
        self._newest_time = 0

    def _allocate(self, capacity):
        self._each = min(capacity, max(1, _PAGE // self._size))
        wanted = (capacity + self._each - 1) // self._each
        gc.collect()
        free = gc.mem_free()
        wanted = max(1, min(wanted, max(free - _SPARE, free // 3) // (self._each * self._size + _OVERHEAD)))
        self._pages = [bytearray(self._each * self._size)]
        try:
            while len(self._pages) < wanted:
                self._pages.append(bytearray(self._each * self._size))
        except MemoryError:
            pass  # no block of that size is left
        self.capacity = min(capacity, len(self._pages) * self._each)

    def push(self, uptime, time, values):
        """Add a reading: uptime and time in seconds (time None: not known), values with None for what is missing."""
        if self.end - self.oldest == self.capacity:
            if self.oldest == self.first:
                self.first += 1
                self.count -= 1
                self.dropped += 1
                self._pass_delivered()
            self.oldest += 1
        page, at = self._at(self.end)
        struct.pack_into("<iI", page, at, uptime, time or 0)
        struct.pack_into(self._values, page, at + _HEAD, *[_NAN if value is None else value for value in values])
        self.count += 1
        if time:
            self._look_for_gap(time)

    @property
    def end(self):
        """Running number of the next record."""
        return self.first + self.count

    @property
    def kept(self):
        """Records in the ring, delivered or not."""
        return self.end - self.oldest

    def since(self):
        """Time of the oldest record that has one; 0: none has."""
        for number in range(self.oldest, self.end):
            time = self.time(number)
            if time:
                return time
        return 0

    def gaps(self):
        """[time before, time after] where readings are missing; where there are too many, the oldest are one."""
        since = self.since()
        self._gaps = [gap for gap in self._gaps if gap[1] > since]
        return self._gaps

    def _look_for_gap(self, time):
        before = self._newest_time
        if time <= before:
            return  # the clock was set back
        self._newest_time = time
        if before and self._gap and time - before > self._gap:
            self._gaps.append([before, time])
            if len(self._gaps) > _GAPS:
                self._gaps[:2] = [[self._gaps[0][0], self._gaps[1][1]]]

    def has(self, number):
        """Whether a record waits."""
        return self.first <= number < self.end

    def uptime(self, number):
        """When the record with a running number was made, in seconds of uptime."""
        page, at = self._at(number)
        return struct.unpack_from("<i", page, at)[0]

    def time(self, number):
        """The same in seconds since 1970, or 0."""
        page, at = self._at(number)
        return struct.unpack_from("<I", page, at + 4)[0]

    def values(self, number):
        """One per field; NaN where it was left out."""
        page, at = self._at(number)
        return struct.unpack_from(self._values, page, at + _HEAD)

    def _at(self, number):
        """(page, offset) of a record."""
        place = number % self.capacity
        return self._pages[place // self._each], place % self._each * self._size

    def remove(self, number, timed=True):
        """A record was delivered: it no longer waits. timed: with its time; else it cannot be sent again as the same reading."""
        if number < self.first:
            self.dropped -= 1  # it made room while it was under way, but arrived
        elif number == self.first and timed:
            self.first += 1
            self.count -= 1
        else:
            page, at = self._at(number)
            struct.pack_into("<iI", page, at, _DELIVERED, 0)
        self._pass_delivered()

    def _pass_delivered(self):
        """Neither the newest nor the oldest that waits is one that was delivered."""
        while self.count and self.uptime(self.end - 1) == _DELIVERED:
            self.count -= 1
        while self.count and self.uptime(self.first) == _DELIVERED:
            self.first += 1
            self.count -= 1

    def save(self, path, fields, reset=None):
        """Write the records that wait to a file. Those that do not know their time can have one only if the uptime at the coming reset is
        known (`reset`); else they count as dropped."""
        with open(path, "wb") as f:
            f.write(_signature(fields))
            dropped = self.dropped
            for number in range(self.first, self.end):
                uptime = self.uptime(number)
                if uptime == _DELIVERED:
                    continue
                if not self.time(number) and reset is None:
                    dropped += 1
                    continue
                # The reset is the only moment that the next program knows, too.
                f.write(struct.pack("<iI", uptime - (reset or 0), self.time(number)))
                page, at = self._at(number)
                f.write(memoryview(page)[at + _HEAD : at + self._size])
            f.write(_END + struct.pack("<I", dropped))

    def load(self, path, fields, since=None):
        """Add the records of a file if it is complete, and remove it; fields are matched by name. True if there were any.

        since: seconds from the reset to where the uptime of now begins; None: not known.
        """
        try:
            f = open(path, "rb")
        except OSError:
            return False
        try:
            return self._read(f, fields, since)
        except OSError:
            return False
        finally:
            f.close()
            os.remove(path)

    def _read(self, f, fields, since):
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
        for _ in range((end - start) // size):
            record = f.read(size)  # not the whole file, for which there may be no memory
            uptime, time = struct.unpack_from("<iI", record, 0)
            kept = struct.unpack_from(form, record, _HEAD)
            values = [None if place is None else kept[place] for place in places]
            # A record without a time may get one from its uptime; one whose sensors are gone is dropped.
            if (time or since is not None) and any(v is not None and v == v for v in values):
                self.push(uptime - (since or 0), time, values)
            else:
                self.dropped += 1
        self.dropped += dropped
        return self.count > 0

    def stamp(self, clock):
        """Give every record that waits for a clock its time."""
        for number in range(self.first, self.end):
            uptime = self.uptime(number)
            if not self.time(number) and uptime != _DELIVERED:
                page, at = self._at(number)
                time = clock.at(uptime)
                struct.pack_into("<I", page, at + 4, time)
                self._look_for_gap(time)
