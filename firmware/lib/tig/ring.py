"""The newest readings, each with its own time, in memory that is allocated once.

Readings that were delivered stay until their space is needed, so that they can be sent again. A record is its uptime and its UTC time
in seconds (0: not known yet) and one 32-bit float per field (NaN: left out). The uptime of a reading that is older than the last reset
is negative. When the ring is full of readings that wait, the oldest makes room and is counted in `dropped`.

Readings that are older than those in memory may be in the flash (tig.pages): they have the running numbers before, and may wait there.
"""

import gc
import struct

from tig.gaps import Gaps

_HEAD = struct.calcsize("<iI")
_NAN = float("nan")
_DELIVERED = -0x3FFFFFFF  # no uptime
_LONG_AGO = -0x20000000
_PAGE = 4096  # bytes that are allocated at a time
_OVERHEAD = 80  # bytes that the allocation of a page takes beside it, at most
_SPARE = 384 * 1024  # bytes of memory that are left to the program, if there is as much


class Ring:
    def __init__(self, capacity, fields, gap=0):
        """capacity: the most records, if there is memory for them; fields per record; gap: seconds between two readings from which
        on others are missing."""
        self._values = "<" + "f" * fields
        self._size = _HEAD + 4 * fields
        self._allocate(capacity)
        self.oldest = 0  # running number of the oldest record in memory
        self.first = 0  # of the oldest one that waits, in memory or in the flash
        self.end = 0  # of the next one
        self.dropped = 0
        self._gaps = Gaps(gap)
        self._newest_time = 0
        self._flash = None  # tig.pages

    def attach(self, pages):
        """Go on where the readings in the flash end; those of them that waited wait again."""
        self._flash = pages
        self._gaps = pages.gaps
        self._newest_time = pages.newest_time
        self.first = pages.waiting
        self.oldest = self.end = pages.end
        self._pass()

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
            self._make_room()
        page, at = self._at(self.end)
        struct.pack_into("<iI", page, at, uptime, time or 0)
        struct.pack_into(self._values, page, at + _HEAD, *[_NAN if value is None else value for value in values])
        self.end += 1
        if time:
            self._look_for_gap(time)

    def _make_room(self):
        number = self.oldest
        if number >= self.first and not self.gone(number) and not self._in_flash(number):
            self.dropped += 1
        self.oldest += 1
        self._pass()

    def _in_flash(self, number):
        return self._flash is not None and self._flash.oldest <= number < self._flash.end

    def store(self):
        """Add to the flash what is not there yet."""
        self._flash.save(self)
        if self.first < self.begin:
            # It needed the room of readings that wait.
            self.dropped += self.begin - self.first
            self.first = self.begin
            self._pass()

    @property
    def count(self):
        """Records that wait, and those between them that are gone."""
        return self.end - self.first

    @property
    def begin(self):
        """Running number of the oldest record in memory or in the flash."""
        return min(self.oldest, self._flash.oldest) if self._flash else self.oldest

    @property
    def kept(self):
        """Records in memory or in the flash, delivered or not."""
        return self.end - self.oldest + (self._flash.count(self.oldest) if self._flash else 0)

    def since(self):
        """Time of the oldest record that has one; 0: none has."""
        found = self._flash.since() if self.begin < self.oldest else 0
        if found:
            return found
        for number in range(self.oldest, self.end):
            time = self.time(number)
            if time:
                return time
        return 0

    def gaps(self):
        """[time before, time after] where readings are missing; where there are too many, the oldest are one."""
        return self._gaps.since(self.since())

    def _look_for_gap(self, time):
        before = self._newest_time
        if time <= before:
            return  # the clock was set back
        self._newest_time = time
        self._gaps.look(before, time)

    def has(self, number):
        """Whether a record waits."""
        return self.first <= number < self.end

    def uptime(self, number):
        """When the record with a running number was made, in seconds of uptime."""
        if number < self.oldest:
            return _LONG_AGO
        page, at = self._at(number)
        return struct.unpack_from("<i", page, at)[0]

    def time(self, number):
        """The same in seconds since 1970, or 0."""
        if number < self.oldest:
            return self._flash.time(number) if self._flash else 0
        page, at = self._at(number)
        return struct.unpack_from("<I", page, at + 4)[0]

    def values(self, number):
        """One per field; NaN where it was left out."""
        if number < self.oldest:
            return self._flash.values(number)
        page, at = self._at(number)
        return struct.unpack_from(self._values, page, at + _HEAD)

    def record(self, number):
        """Time and values as they are in memory."""
        if number < self.oldest:
            return struct.pack("<I", self.time(number)) + struct.pack(self._values, *self.values(number))
        page, at = self._at(number)
        return memoryview(page)[at + 4 : at + self._size]

    def gone(self, number):
        """Whether a record is not sent any more, though it is not before `first`: it was sent before its turn, or is lost."""
        if number < self.oldest:
            return not self.time(number) or all(value != value for value in self.values(number))
        return self.uptime(number) == _DELIVERED

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
        else:
            page, at = self._at(number)
            struct.pack_into("<iI", page, at, _DELIVERED, 0)
        self._pass()

    def _pass(self):
        """Neither the oldest nor the newest that waits may be one that is gone."""
        while self.end > max(self.first, self.oldest) and self.gone(self.end - 1):
            self.end -= 1
            if self._flash:
                self._flash.end = min(self._flash.end, self.end)
        while self.first < self.end and self.gone(self.first):
            self.first += 1

    def stamp(self, clock):
        """Give every record that waits for a clock its time."""
        for number in range(max(self.first, self.oldest), self.end):
            if not self.time(number) and not self.gone(number):
                page, at = self._at(number)
                time = clock.at(self.uptime(number))
                struct.pack_into("<I", page, at + 4, time)
                self._look_for_gap(time)
