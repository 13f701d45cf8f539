"""Keeps Wi-Fi up. Whether it is lost, hidden, has another password or its router restarts: the answer is another attempt."""

import time

from tig import log
from tig.backoff import Backoff

ATTEMPT_MS = 20000
RESTART_AFTER = 5  # failed attempts in a row, after which the interface is switched off and on


class Wifi:
    def __init__(self, board, ssid, password):
        self._board = board
        self._ssid = ssid
        self._password = password
        self._pause = Backoff(1000, 60000)
        self._deadline = None
        self._started = False
        self.up = False

    def step(self):
        """One short step; returns whether there is a connection."""
        if self._started and self._board.wifi_connected():
            if not self.up:
                self.up = True
                self._deadline = None
                self._pause.reset()
                log.say("wifi: connected as " + self._board.wifi_address())
            return True
        if self.up:
            self.up = False
            log.say("wifi: lost")
        try:
            self._try()
        except (OSError, RuntimeError, ValueError) as e:
            self._fail(str(e))
        return False

    def _try(self):
        now = time.ticks_ms()
        if self._deadline is not None:
            if time.ticks_diff(self._deadline, now) <= 0:
                self._fail(self._board.wifi_reason())
            return
        if not self._pause.due():
            return
        if not self._started:
            self._board.wifi_start()
            self._started = True
        if self._pause.failures == 0:
            log.say("wifi: connecting to " + self._ssid)
        self._board.wifi_connect(self._ssid, self._password, ATTEMPT_MS)
        self._deadline = time.ticks_add(now, ATTEMPT_MS)

    def _fail(self, reason):
        self._deadline = None
        pause = self._pause.fail()
        log.say("wifi: no connection%s, next attempt in %d s" % (" (%s)" % reason if reason else "", (pause + 999) // 1000))
        if self._pause.failures % RESTART_AFTER == 0:
            self.restart()

    def restart(self):
        """Switch the interface off; the next attempt switches it on."""
        if self._started:
            self._started = False
            try:
                self._board.wifi_stop()
            except (OSError, RuntimeError):
                pass
