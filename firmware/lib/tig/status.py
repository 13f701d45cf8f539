"""What the device says about itself, retained on `<topic>/status`."""

import gc
import json

from tig import VERSION

OFFLINE = b'{"state":"offline"}'  # the last will
PERIOD_MS = 60000


class Status:
    def __init__(self, slot, reset_cause, clock, ring, sampler):
        self._slot = slot
        self._reset = reset_cause
        self._clock = clock
        self._ring = ring
        self._sampler = sampler
        self.waiting_for = "wifi"

    def failed(self):
        return self._sampler.failed

    def key(self):
        """What has to change for the status to be worth sending at once."""
        return self.waiting_for, tuple(self.failed()), self._ring.dropped

    def message(self):
        status = {
            "state": "online",
            "version": VERSION,
            "slot": self._slot,
            "reset": self._reset,
            "uptime": self._clock.uptime(),
            "free": gc.mem_free(),
            "waiting_for": self.waiting_for,
            "failed": self.failed(),
            "held": self._ring.count,
            "dropped": self._ring.dropped,
        }
        if self._clock.known:
            status["time"] = self._clock.now()
        return json.dumps(status).encode()
