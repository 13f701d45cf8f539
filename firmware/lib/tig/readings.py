"""Which reading is sent next: the oldest that has its time.

A reading that was made before the clock was known waits for the clock, which gives it its time by the uptime at which it was
made. If the clock does not come within CLOCK_GRACE_S of the broker's welcome, each new reading is sent at once and without a
time, so that the server stamps it on arrival; those that are older than FRESH_S wait.

A reading with a time waits for later ones, at most `send_delay` seconds, since those that arrive together are one write to the
server's card. The newest never waits for its successor if the oldest would wait too long. What a new connection finds is sent at once.
"""

CLOCK_GRACE_S = 30
FRESH_S = 5
ROUNDING_S = 1  # uptimes are whole seconds
OVERDUE_S = 5  # a successor that is late by so much will not come


class Readings:
    BRANCH = "/reading"
    RETAINED = False
    REPEATABLE = True

    def __init__(self, ring, clock, encode, interval, send_delay):
        """encode(values, time) -> the message of a reading as bytes. interval: seconds between two readings; send_delay: seconds
        for which a reading may wait for later ones."""
        self._ring = ring
        self._clock = clock
        self._encode = encode
        self._interval = interval
        self._delay = send_delay
        self._gathering = False  # those that wait are new since all others were sent
        self._sending = None  # number in the ring
        self._timed = False  # it was sent with its time
        self._welcome_at = 0
        self.delivered = False  # one was acknowledged

    def welcome(self):
        self._gathering = False
        self._welcome_at = self._clock.uptime()  # ticks cannot measure more than six days

    def due(self):
        number = self._next()
        return self._ready(number) and not self._early(number)

    def message(self):
        number = self._next() if self._sending is None else self._sending
        if not self._ready(number):
            self._sending = None  # it made room while it was under way, or is now too old to be sent without a time
            return None
        self._gathering = False
        self._sending = number
        self._timed = bool(self._ring.time(number))
        return self._encode(self._ring.values(number), self._ring.time(number))

    def acknowledged(self):
        self._ring.remove(self._sending, self._timed)
        self._sending = None
        self._gathering = not self._ring.count
        self.delivered = True

    def _next(self):
        ring = self._ring
        if not ring.count:
            return None
        return ring.first if ring.time(ring.first) else ring.first + ring.count - 1

    def _early(self, number):
        """Whether it waits for later ones."""
        ring = self._ring
        if not self._gathering or not ring.time(number):
            return False
        oldest, newest = ring.uptime(ring.first), ring.uptime(ring.end - 1)
        if self._clock.uptime() - newest > self._interval + OVERDUE_S:
            return False
        return newest + self._interval - oldest <= self._delay + ROUNDING_S

    def _ready(self, number):
        """It is there, and has its time, or is fresh enough for the time of its arrival to be right."""
        if number is None or not self._ring.has(number):
            return False
        if self._ring.time(number):
            return True
        now = self._clock.uptime()
        return now - self._welcome_at > CLOCK_GRACE_S and now - self._ring.uptime(number) <= FRESH_S
