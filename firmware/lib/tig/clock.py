"""Uptime that survives the wrap of the tick counter, and UTC from the moment a time server has answered.

All times are whole seconds: a LoPy4's floats have 24 bits, too few for seconds since 1970. The platform's own epoch
(1970 on Pycom, 2000 on MicroPython for the ESP32) is not used.
"""

import time


class Clock:
    def __init__(self, ticks=time.ticks_ms, diff=time.ticks_diff):
        self._ticks = ticks
        self._diff = diff
        self._last = ticks()
        self._ms = 0
        self._seconds = 0
        self._offset = 0
        self._fraction = 0
        self.known = False

    def uptime(self):
        """Seconds since the start. Must be called at least once in six days, which every turn of the loop does."""
        now = self._ticks()
        passed = self._diff(now, self._last)
        if passed > 0:
            self._last = now
            self._ms += passed
            self._seconds += self._ms // 1000
            self._ms %= 1000
        return self._seconds

    def set(self, seconds, ms):
        """Set the UTC time of now: seconds since 1970, and milliseconds. Returns the step in seconds, None the first time."""
        before = self.now()
        self._offset = seconds - self._seconds
        self._fraction = ms - self._ms
        if self._fraction < 0:
            self._fraction += 1000
            self._offset -= 1
        self.known = True
        return None if before is None else self.now() - before

    def now(self):
        """Seconds since 1970, or None."""
        seconds = self.uptime()
        if not self.known:
            return None
        return self._offset + seconds + (self._ms + self._fraction) // 1000

    def at(self, uptime):
        """Seconds since 1970 of an earlier uptime (seconds). The clock must be known."""
        return self._offset + uptime + (1 if self._fraction >= 500 else 0)
