"""Readings in the flash, where they outlast a loss of power: pages (tig.page), written in turn, the oldest of which makes room."""

import os
import struct

from tig import log, page
from tig.gaps import Gaps

_SHARE = 15, 32  # of the blocks of the file system, at most
_LEAST_FREE = 8  # one in so many blocks of the file system stays free, for uploads
_ENTRY = "<IIII"  # of a page: number of its first reading, how many, times of the first and the last
_ENTRY_SIZE = struct.calcsize(_ENTRY)
_NEVER = 0xFFFFFFFF


class Pages:
    def __init__(self, fields, capacity, gap):
        """Look at what is there. fields: their names; capacity: the most readings, if there is room; gap: seconds between two readings
        from which on others are missing."""
        self._page = page.Page(fields)
        status = os.statvfs(os.getcwd())
        self._blocks = status[0] * status[2] // page.BLOCK
        slots = list(page.slots())
        wanted = capacity * self._page.reading // (page.BLOCK - page.BLOCK // 8) + 2
        wanted = min(wanted, self._blocks * _SHARE[0] // _SHARE[1])
        self._limit = max([2, wanted] + [slot + 1 for slot in slots])  # what is there stays
        self._index = bytearray(self._limit * _ENTRY_SIZE)
        self._slot = self._limit - 1  # the page that is written
        self._used = page.BLOCK  # bytes of it
        self.failed = False  # the last attempt to write
        self.gaps = Gaps(gap)
        self.oldest = 0  # number of the oldest reading
        self.end = 0  # of the next one
        self.newest_time = 0  # of the last one
        self.waiting = 0  # number of the oldest reading that waited to be sent at the last write
        self._forget()
        self._open(slots)

    def _open(self, slots):
        newest = 0, 0
        for slot in slots:
            used = self._page.read(slot)
            if not self._page.parts:
                continue
            first = self._page.parts[0][0]
            number, waiting, count, _ = self._page.parts[-1]
            if (number + count, first) >= newest:
                newest = number + count, first
                self.end, self.waiting = number + count, waiting
                self._slot = slot
                self._used = used or page.BLOCK
            self._learn(slot, first)
        for slot in self._in_order():
            _, count, first, last = self._entry(slot)
            if count:
                self.gaps.look(self.newest_time, first)
                self.newest_time = last
        self.oldest = self._oldest_entry()[0]
        self.waiting = max(self.waiting, self.oldest)

    def _learn(self, slot, number):
        """Fill in the entry of the page that was read."""
        since = before = 0
        count = sum(part[2] for part in self._page.parts) if self._page.useful else 0
        for first, last in self._page.spans():
            if count:
                self.gaps.look(before, first)
            since = since or first
            before = last
        self._set(slot, number, count, since, before)

    # --- reading

    def count(self, end):
        """How many readings have a number below `end`."""
        found = 0
        for slot in range(self._limit):
            number, count, _, _ = self._entry(slot)
            found += max(0, min(count, end - number))
        return found

    def since(self):
        """Time of the oldest reading; 0: there is none."""
        return self._oldest_entry()[2]

    def time(self, number):
        """When a reading was made, in seconds since 1970; 0: it is not there, or has none of our fields."""
        place = self._find(number)
        return self._page.time(place) if place else 0

    def values(self, number):
        """One per field; NaN where it was left out. The reading must be there."""
        return self._page.values(self._find(number))

    def _find(self, number):
        """Place of a reading in the page in memory, which is changed for it; 0: it is not there."""
        if not self._first <= number < self._next:
            self._turn_to(number)
        return self._page.find(number)

    def _turn_to(self, number):
        """Read the page in which a reading is, if it is anywhere."""
        found = None
        self._first, self._next = 0, _NEVER
        for slot in range(self._limit):
            first, count, _, _ = self._entry(slot)
            if count and self._first <= first <= number:
                found, self._first = slot, first
            elif count and number < first < self._next:
                self._next = first
        if found is None:
            self._page.parts = []
        else:
            self._page.read(found)

    def _forget(self):
        """The page in memory is not the one in the flash."""
        self._first = self._next = 0

    # --- writing

    def save(self, ring):
        """Add the readings of the ring that are not in the flash yet, but for those that do not know their time."""
        number = max(self.end, ring.oldest)
        try:
            while number < ring.end:
                if ring.time(number):
                    number += self._add(ring, number)
                elif ring.gone(number):
                    number += 1
                else:
                    break
                self.end = number
            self.failed = False
        except Exception as e:
            if not self.failed:
                self.failed = True
                log.say("readings not in the flash: %s" % e)

    def delivered(self):
        """Note that no reading waits."""
        self._write(self._place(0), self.end, self.end, [])

    def _add(self, ring, number):
        """Add readings that follow each other without a gap, as many as fit; returns how many."""
        place = self._place(1)
        room = self._page.room(place[1])
        if room < 1:
            raise OSError(28)  # the names alone take it
        records = []
        before = ring.time(number)
        while len(records) < room and number + len(records) < ring.end:
            time = ring.time(number + len(records))
            if not time or time - before > self.gaps.longest:
                break
            before = time
            records.append(ring.record(number + len(records)))
        self._write(place, number, ring.first, records)
        return len(records)

    def _write(self, place, number, waiting, records):
        slot, used = place
        # If this fails, or is interrupted, the next part goes to another page.
        self._used = page.BLOCK
        self._forget()
        self._used = self._page.write(slot, used, number, waiting, records)
        self._slot = slot
        first, count, since, _ = self._entry(slot) if used else (number, 0, 0, 0)
        if records:
            since = since or struct.unpack_from("<I", records[0])[0]
            self.newest_time = struct.unpack_from("<I", records[-1])[0]
        self._set(slot, first, count + len(records), since, self.newest_time)
        self.oldest = self._oldest_entry()[0]

    def _place(self, least):
        """(page, its bytes) to which at least so many readings can be added: the one that is written, the next one while there is
        room, or the oldest."""
        if self._page.room(self._used) >= least:
            return self._slot, self._used
        status = os.statvfs(os.getcwd())
        if status[0] * status[3] // page.BLOCK > self._blocks // _LEAST_FREE:
            return (self._slot + 1) % self._limit, 0
        old = [slot for slot in self._in_order() if slot != self._slot]
        if not old:
            raise OSError(28)
        if len(old) > 1:
            # Something else takes the room: give back a page each time, until there is enough again.
            page.remove(old[0])
            self._set(old.pop(0), 0, 0, 0, 0)
        return old[0], 0

    # --- the index

    def _entry(self, slot):
        return struct.unpack_from(_ENTRY, self._index, slot * _ENTRY_SIZE)

    def _set(self, slot, number, count, first, last):
        struct.pack_into(_ENTRY, self._index, slot * _ENTRY_SIZE, number, count, first, last)

    def _in_order(self):
        """The pages that there are, the oldest first."""
        for step in range(self._limit):
            slot = (self._slot + 1 + step) % self._limit
            if self._entry(slot)[3]:
                yield slot

    def _oldest_entry(self):
        for slot in self._in_order():
            entry = self._entry(slot)
            if entry[1]:
                return entry
        return self.end, 0, 0, 0
