"""The way to the broker: Wi-Fi, time, connection, and then status, crash report and readings, oldest first.

`step` is called in every turn of the main loop and never takes long: what may block (name look-up, connecting, asking the time)
is begun only where there is room before the next reading, or right after one, and one of them in a turn at the most. How long a
name server is silent is not ours to say: a look-up waits for as much room as the last one took.

Readings and time. A reading carries the time at which it was made. One that was made before the clock was known waits for the
clock, which then gives it its time by the uptime at which it was made. Where the clock does not come within CLOCK_GRACE_S of the
broker's welcome, each new reading is sent at once and without a time, so that the server stamps it on arrival; those that are
older than FRESH_S stay and wait.
"""

import errno
import time

from tig import crash, log, sntp
from tig.address import Address
from tig.backoff import Backoff
from tig.mqtt import Client, MqttError
from tig.status import OFFLINE, PERIOD_MS

ROOM_MS = 5000  # before the next reading, for what may block
CLOCK_EVERY_S = 3600
CLOCK_TIMEOUT_MS = 2000
CLOCK_GRACE_S = 30
FRESH_S = 5
IDLE_MS = 100
BUSY_MS = 2
WIFI_AFTER = 10  # failures in a row, after which Wi-Fi is begun anew: it may be up and lead nowhere


class Link:
    def __init__(self, settings, board, wifi, clock, ring, status, encode):
        """encode(values, time) -> the message of a reading as bytes."""
        broker = settings["broker"]
        self._broker = Address(broker["host"], broker["port"])
        self._server = Address(settings["time"]["server"], settings["time"]["port"])
        self._topic = settings["topic"]
        self._wifi = wifi
        self._clock = clock
        self._ring = ring
        self._status = status
        self._encode = encode
        self._client = Client(
            settings["name"] + "-" + board.uid()[-6:],
            broker["user"],
            broker["password"],
            broker["keepalive"],
            self._topic + "/status",
            OFFLINE,
        )
        self._connect_pause = Backoff(1000, 60000)
        self._clock_pause = Backoff(2000, 60000)
        self._clock_set = None  # uptime
        self._connected = False
        self._sending = None  # (what, number): "reading", "status" or "crash"
        self._again = False
        self._said = None  # the status key that was sent last
        self._said_at = 0
        self._said_last = False  # what was sent last is the status
        self._crashed = crash.report() is not None
        self.reached = False  # the broker has let it in
        self.delivered = False  # a reading was acknowledged

    def step(self, room_ms):
        """One turn; room_ms until the next reading. Returns how long the loop may pause, in ms."""
        if not self._wifi.step():
            self._drop(None)
            self._waits("wifi")
            return IDLE_MS
        if not self._client.ready:
            self._waits("broker")
        if self._keep_clock(room_ms):
            return IDLE_MS
        try:
            return self._talk() if self._connected or self._connect(room_ms) else IDLE_MS
        except (OSError, MqttError) as e:
            self._drop(e)
            return IDLE_MS

    def _waits(self, word):
        self._status.waiting_for = word

    def _lack(self):
        if not self._clock.known:
            return "time"
        return "sensor" if self._status.failed() else "none"

    def _keep_clock(self, room_ms):
        """Ask for the time where it is due; whether it was."""
        if self._clock_set is not None and self._clock.uptime() - self._clock_set < CLOCK_EVERY_S:
            return False
        if room_ms < max(ROOM_MS, self._server.takes_ms()) or not self._clock_pause.due():
            return False
        known = self._clock.known
        try:
            step = sntp.ask(self._server.get(), CLOCK_TIMEOUT_MS, self._clock)
        except (OSError, sntp.NoTime) as e:
            self._server.doubt()
            self._clock_pause.fail()
            if self._clock_pause.failures == 1:
                log.say("time: %s from %s" % (_words(e), self._server.host))
            return True
        self._clock_pause.reset()
        self._clock_set = self._clock.uptime()
        if not known:
            self._ring.stamp(self._clock)
            log.say("time: known, %d" % self._clock.now())
        elif abs(step) > 1:
            log.say("time: corrected by %d s" % step)
        return True

    def _connect(self, room_ms):
        if room_ms < max(ROOM_MS, self._broker.takes_ms()) or not self._connect_pause.due():
            return False
        self._connected = True
        self._client.connect(self._broker.get())
        return True

    def _drop(self, error):
        if not self._connected:
            return
        self._connected = False
        welcome = self._client.ready
        self._client.close()
        if error is None:
            log.say("broker: disconnected")
            return
        if not welcome:
            self._broker.doubt()
        pause = self._connect_pause.fail()
        log.say("broker: %s, next attempt in %d s" % (_words(error), (pause + 999) // 1000))
        if self._connect_pause.failures % WIFI_AFTER == 0:
            self._wifi.restart()

    def _talk(self):
        greeting = not self._client.ready
        arrived = self._client.step()
        if not self._client.ready:
            return BUSY_MS
        self._waits(self._lack())
        if greeting:
            self.reached = True
            log.say("broker: connected to %s:%d" % (self._broker.host, self._broker.port))
            self._ready_at = self._clock.uptime()  # ticks would not tell more than six days
            self._said = None
            self._said_last = False
            self._again = self._sending is not None
        elif arrived:
            self._arrived()
        elif self._sending:
            return BUSY_MS
        return BUSY_MS if self._send_next() else IDLE_MS

    def _arrived(self):
        what, number = self._sending
        self._sending = None
        self._connect_pause.reset()
        if what == "reading":
            self._ring.remove(number)
            self.delivered = True
        elif what == "crash":
            crash.forget()
            self._crashed = False

    def _send_next(self):
        """Begin to send what is next in turn; False when there is nothing."""
        again = self._again
        self._again = False
        what, number = self._sending or (None, 0)
        if what == "status" or (what is None and self._status_due()):
            self._sending = ("status", 0)
            self._said_last = True
            self._said = self._status.key()
            self._said_at = time.ticks_ms()
            self._publish("/status", self._status.message(), True, False)
            return True
        if what == "crash" or (what is None and self._crashed):
            message = crash.report()
            if message:
                self._sending = ("crash", 0)
                self._publish("/crash", message, False, again)
                return True
            self._crashed = False
            what = None
        if what is None:
            number = self._next_reading()
        if not self._sendable(number):
            # Nothing, or what was under way has made room or become too old to be sent without a time.
            self._sending = None
            return False
        record = self._ring.get(number)
        self._sending = ("reading", number)
        self._said_last = False
        self._publish("/reading", self._encode(record[2:], record[1]), False, again)
        return True

    def _publish(self, branch, message, retain, again):
        self._client.publish(self._topic + branch, message, retain, again)

    def _status_due(self):
        if self._said_last and self._sendable(self._next_reading()):
            return False  # a broker that takes a minute for each message would get nothing but the status
        if self._said is None or time.ticks_diff(time.ticks_ms(), self._said_at) > PERIOD_MS:
            return True
        return self._said != self._status.key()

    def _next_reading(self):
        ring = self._ring
        if not ring.count:
            return None
        if ring.get(ring.first)[1]:
            return ring.first
        return ring.first + ring.count - 1

    def _sendable(self, number):
        """A reading is there, and has its time, or is fresh enough for the time of its arrival to be right."""
        if number is None or not self._ring.has(number):
            return False
        uptime, stamp = self._ring.get(number)[:2]
        if stamp:
            return True
        now = self._clock.uptime()
        return now - self._ready_at > CLOCK_GRACE_S and now - uptime <= FRESH_S


def _words(error):
    if isinstance(error, OSError) and error.args:
        return str(errno.errorcode.get(error.args[0], "error %s" % error.args[0]))
    return str(error)
