"""MicroPython's `socket` with time-outs in the time of `time`: SPEED times as short.

Names in `.test` are this machine's, or what the file `hosts` says. The file `dns.silent` says how many ms a question for one
waits before it is given up.
"""

import os
import time

import usocket
from usocket import *  # noqa: F403

_speed = float(os.getenv("SPEED") or 1)


def getaddrinfo(host, port):
    if host.endswith(".test"):
        if "dns.silent" in os.listdir():
            with open("dns.silent") as f:
                time.sleep_ms(int(f.read()))
            raise OSError(-2)
        host = "127.0.0.1"
        if "hosts" in os.listdir():
            with open("hosts") as f:
                host = f.read()
    return usocket.getaddrinfo(host, port)


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
