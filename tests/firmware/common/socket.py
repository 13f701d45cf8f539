"""MicroPython's `socket` with time-outs in the time of `time`: SPEED times as short."""

import os

import usocket
from usocket import *  # noqa: F403

_speed = float(os.getenv("SPEED") or 1) or 1000


class socket:
    def __init__(self, *arguments):
        self._socket = usocket.socket(*arguments)
        for name in ("connect", "send", "sendto", "recv", "close"):
            setattr(self, name, getattr(self._socket, name))

    def settimeout(self, seconds):
        self._socket.settimeout(seconds / _speed)
