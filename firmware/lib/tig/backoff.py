"""When to try again: at once, then after a pause that doubles up to a limit. Each pause is varied by up to 25 %, so that many
devices do not come back at the same moment after a power cut."""

import os
import time


class Backoff:
    def __init__(self, first_ms, limit_ms):
        self._first = first_ms
        self._limit = limit_ms
        self.reset()

    def reset(self):
        self._pause = self._first
        self._until = None
        self.failures = 0

    def due(self):
        if self._until is not None and time.ticks_diff(self._until, time.ticks_ms()) <= 0:
            self._until = None
        return self._until is None

    def fail(self):
        """Note a failure; returns the pause in ms."""
        self.failures += 1
        pause = self._pause * (192 + os.urandom(1)[0] // 2) // 256
        self._until = time.ticks_add(time.ticks_ms(), pause)
        self._pause = min(self._pause * 2, self._limit)
        return pause
