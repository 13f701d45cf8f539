"""Sets the clock by the time server, and gives the readings that wait for it their time."""

from tig import log, sntp
from tig.address import Address
from tig.backoff import Backoff
from tig.errors import words

EVERY_S = 3600
TIMEOUT_MS = 2000


class Timekeeper:
    def __init__(self, settings, clock, ring):
        self._server = Address(settings["server"], settings["port"])
        self._clock = clock
        self._ring = ring
        self._pause = Backoff(2000, 60000)
        self._set_at = None  # uptime

    def step(self, room_ms):
        """Ask for the time if it is time to, and there is room for it; whether it did."""
        if self._set_at is not None and self._clock.uptime() - self._set_at < EVERY_S:
            return False
        if not self._server.fits(room_ms) or not self._pause.due():
            return False
        known = self._clock.known
        try:
            step = sntp.ask(self._server.get(), TIMEOUT_MS, self._clock)
        except (OSError, sntp.NoTime) as e:
            self._server.doubt()
            self._pause.fail()
            if self._pause.failures == 1:
                log.say("time: %s from %s" % (words(e), self._server.host))
            return True
        self._pause.reset()
        self._set_at = self._clock.uptime()
        if not known:
            self._ring.stamp(self._clock)
            log.say("time: known, %d" % self._clock.now())
        elif abs(step) > 1:
            log.say("time: corrected by %d s" % step)
        return True
