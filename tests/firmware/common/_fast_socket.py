"""The Unix port's sockets with time-outs that are SPEED times as short.

Names that end in `.test` are resolved to this machine, or to the address in the file `hosts`. If there is a file `dns.silent`, resolving
one fails after as many ms as it says.

MicroPython 1.11 as a Unix program has no time-outs: there `select` waits for what is received.
"""

import os

import _fast_time as time
import uselect
import usocket
from usocket import *  # noqa: F403

_speed = float(os.getenv("SPEED") or 1)


def getaddrinfo(host, port, *rest):
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
        for name in ("connect", "send", "sendto", "recv", "close", "setblocking"):
            setattr(self, name, getattr(self._socket, name))
        if not hasattr(self._socket, "settimeout"):
            self._poll = uselect.poll()
            self._poll.register(self._socket, uselect.POLLIN)
            self.recv = self._recv

    def _recv(self, size):
        if not self._poll.poll(self._ms):
            raise OSError(110)
        return self._socket.recv(size)

    def settimeout(self, seconds):
        if not hasattr(self._socket, "settimeout"):
            self._ms = int(seconds * 1000 / _speed) if _speed else 0 if seconds < 0.1 else int(seconds * 1000)
        elif _speed:
            self._socket.settimeout(seconds / _speed)
        elif seconds < 0.1:
            self._socket.setblocking(False)  # a look that takes no time, as nothing does
        else:
            self._socket.settimeout(seconds)
