"""Sends delivered readings again, for a server that has lost them: slowly, and behind everything else.

A reading that is sent again has the same time and the same values, so a server that has it stores nothing new.
"""

import time

from tig.commands import Refused
from tig.readings import Readings

PAUSE_MS = 100  # between two of them
LOOK = 200  # records that are looked at in a turn


class Replay:
    BRANCH = Readings.BRANCH
    RETAINED = False
    REPEATABLE = True

    def __init__(self, ring, encode, done):
        """encode(values, time) -> the message of a reading as bytes; done(names, sent): a request was carried out."""
        self._ring = ring
        self._encode = encode
        self._done = done
        self.names = []  # of the requests under way
        self._sending = None  # number in the ring
        self._last = time.ticks_ms()

    def request(self, name, command):
        """Carry out a command: send the readings from `since` to `until` (seconds since 1970; absent: now). A request that is under
        way is carried out with it."""
        since, until = command.get("since"), command.get("until")
        for moment in (since, until):
            if type(moment) is not int and not (moment is None and since is not None):
                raise Refused("since and until must be whole numbers, seconds since 1970")
        if self.names:
            self._since = min(self._since, since)
            self._until = None if None in (until, self._until) else max(until, self._until)
        else:
            self._since, self._until = since, until
        self.names.append(name)
        self._next = self._ring.begin
        self._end = self._ring.first  # those from here on have not been delivered, and are sent anyway
        self._sent = 0

    def welcome(self):
        pass

    def due(self):
        # Ticks of Pycom's firmware jump when the clock is set.
        return bool(self.names) and not 0 <= time.ticks_diff(time.ticks_ms(), self._last) < PAUSE_MS

    def message(self):
        self._last = time.ticks_ms()
        ring = self._ring
        if self._sending is None or not ring.time(self._sending):
            self._sending = self._find()
        if self._sending is None:
            return None
        return self._encode(ring.values(self._sending), ring.time(self._sending))

    def _find(self):
        """The next record to send; None if there is none among those that are looked at in a turn."""
        ring = self._ring
        self._next = max(self._next, ring.begin)
        for number in range(self._next, self._end):
            if number >= self._next + LOOK:
                self._next = number
                return None
            at = ring.time(number)
            wanted = at >= self._since and at and (self._until is None or at <= self._until)
            # Those in the flash may be of sensors that are gone.
            if wanted and any(value == value for value in ring.values(number)):
                self._next = number + 1
                return number
        names = self.names
        self.names = []
        self._done(names, self._sent)
        return None

    def acknowledged(self):
        self._last = time.ticks_ms()
        self._sending = None
        self._sent += 1
