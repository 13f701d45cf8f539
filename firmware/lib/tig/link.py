"""The way to the broker: Wi-Fi, time, connection, messages; each has a file of its own.

`step` is called in every turn of the main loop and never takes long: whatever may block (a name look-up, connecting, asking for
the time) starts only where there is room before the next reading, or right after one, and only one of them in a turn.
"""

from tig import log
from tig.commands import Commands
from tig.connection import Connection
from tig.crash import CrashReport
from tig.mqtt import MqttError
from tig.outbox import Outbox
from tig.readings import Readings
from tig.replay import Replay
from tig.timekeeper import Timekeeper

IDLE_MS = 100
BUSY_MS = 2
WIFI_AFTER = 10  # failures in a row, after which Wi-Fi is restarted: it may be up and lead nowhere


class Link:
    def __init__(self, settings, board, wifi, clock, ring, status, encode):
        """encode(values, time) -> the message of a reading as bytes."""
        self._wifi = wifi
        self._clock = clock
        self._status = status
        self._timekeeper = Timekeeper(settings["time"], clock, ring)
        self._readings = Readings(ring, clock, encode, settings["interval"], settings["send_delay"])
        self._replay = Replay(ring, encode, self._replayed)
        self._commands = Commands({"replay": self._replay.request})
        status.add(lambda: {"replaying": self._replay.names, "ignored": self._commands.ignored})
        self._connection = Connection(settings, board.uid(), self._commands.take)
        self._outbox = Outbox(
            self._connection, settings["topic"], status, CrashReport(), self._commands, self._readings, self._replay
        )
        self.reached = False  # the broker has accepted the device

    def _replayed(self, names, sent):
        for name in names:
            self._commands.done(name, sent=sent)

    @property
    def delivered(self):
        """Whether the broker has acknowledged a reading."""
        return self._readings.delivered

    def step(self, room_ms):
        """One turn; room_ms until the next reading. Returns how long the loop may pause, in ms."""
        if not self._wifi.step():
            self._connection.close()
            self._status.waiting_for = "wifi"
            return IDLE_MS
        if not self._connection.ready:
            self._status.waiting_for = "broker"
        if self._timekeeper.step(room_ms):
            return IDLE_MS
        try:
            if self._connection.open or self._connection.begin(room_ms):
                return self._talk()
        except (OSError, MqttError) as e:
            if self._connection.fail(e) % WIFI_AFTER == 0:
                self._wifi.restart()
        return IDLE_MS

    def _talk(self):
        welcome = not self._connection.ready
        acknowledged = self._connection.step()
        if not self._connection.ready:
            return BUSY_MS
        self._status.waiting_for = self._lack()
        if welcome:
            self.reached = True
            log.say("broker: connected to %s" % self._connection.name)
            self._outbox.welcome()
        elif acknowledged:
            self._connection.works()
            self._outbox.acknowledged()
        elif self._outbox.sending:
            return BUSY_MS
        return BUSY_MS if self._outbox.send_next() else IDLE_MS

    def _lack(self):
        if not self._clock.known:
            return "time"
        return "sensor" if self._status.failed() else "none"
