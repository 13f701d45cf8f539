"""The status of the device, retained on `<topic>/status`."""

import gc
import json
import time

from tig import VERSION

OFFLINE = b'{"state":"offline"}'  # the last will
PERIOD_MS = 60000
OVERDUE_S = 10  # to send the readings takes some seconds
EARLY_MS = 29500  # two transmissions of readings are seldom closer than what remains, 30.5 s


class Status:
    BRANCH = "/status"
    RETAINED = True
    REPEATABLE = False  # it is made for the moment at which it is sent

    def __init__(self, slot, reset_cause, clock, ring, sampler, send_delay):
        """send_delay: seconds for which a reading may wait for later ones."""
        self._slot = slot
        self._reset = reset_cause
        self._clock = clock
        self._ring = ring
        self._sampler = sampler
        self._delay = send_delay
        self._more = None
        self._sent = None  # its key when it was last sent on this connection
        self._sent_at = 0
        self.waiting_for = "wifi"

    def add(self, more):
        """more() -> a dictionary of further entries."""
        self._more = more

    def failed(self):
        return self._sampler.failed

    def welcome(self):
        self._sent = None

    def due(self, reading=False):
        """On every connection, after every change of what matters, and every minute: a little earlier if a reading is sent,
        too, since the database then writes both to its card at once."""
        period = PERIOD_MS - EARLY_MS if reading else PERIOD_MS
        if self._sent is None or time.ticks_diff(time.ticks_ms(), self._sent_at) > period:
            return True
        return self._sent != self._key()

    def message(self):
        self._sent = self._key()
        self._sent_at = time.ticks_ms()
        return self._text()

    def acknowledged(self):
        pass

    def _key(self):
        return self.waiting_for, tuple(self.failed()), self._ring.dropped

    def _held(self):
        """Readings that could not be sent yet: none while the oldest one may wait for later ones."""
        ring = self._ring
        if ring.count and self._clock.uptime() - ring.uptime(ring.first) > self._delay + OVERDUE_S:
            return ring.count
        return 0

    def _text(self):
        status = {
            "state": "online",
            "version": VERSION,
            "slot": self._slot,
            "reset": self._reset,
            "uptime": self._clock.uptime(),
            "free": gc.mem_free(),
            "waiting_for": self.waiting_for,
            "failed": self.failed(),
            "held": self._held(),
            "dropped": self._ring.dropped,
        }
        status.update(self._more() if self._more else {})
        if self._clock.known:
            status["time"] = self._clock.now()
            status["kept"] = self._ring.kept
            status["kept_since"] = self._ring.since()
            status["gaps"] = self._ring.gaps()
        return json.dumps(status).encode()
