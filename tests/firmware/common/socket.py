"""MicroPython's `socket` with time-outs in the time of `time`: SPEED times as short."""

import os

import usocket
from usocket import *  # noqa: F403

_speed = float(os.getenv("SPEED") or 1)


class socket:
    def __init__(self, *arguments):
        self._socket = usocket.socket(*arguments)
        for name in ("connect", "send", "sendto", "recv", "close"):
            setattr(self, name, getattr(self._socket, name))

    def settimeout(self, seconds):
        if _speed:
            self._socket.settimeout(seconds / _speed)
        elif seconds < 0.1:
            self._socket.setblocking(False)  # a look that takes no time, as nothing does
        else:
            self._socket.settimeout(seconds)
