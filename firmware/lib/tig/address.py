"""The address of a host name. The known address is tried first; after it failed, the name is looked up again, and if that fails too,
the known address is tried once more. How long a look-up blocks is up to the platform."""

import socket
import time

ROOM_MS = 5000  # before the next reading, for anything that may block
LONGEST_MS = 60000  # a look-up that took longer may start where there is so much room


class Address:
    def __init__(self, host, port):
        self.host = host
        self.port = port
        self._known = None
        self._doubted = False
        self._took_ms = 0

    def fits(self, room_ms):
        """Whether there is room for `get` and for what follows it; a look-up is expected to take as long as the last one."""
        return room_ms >= max(ROOM_MS, self._took_ms if self._known is None or self._doubted else 0)

    def doubt(self):
        """The address did not work. (A failed look-up is no reason for another one.)"""
        self._doubted = not self._doubted

    def get(self):
        """The address for `socket`; raises OSError if the name cannot be resolved."""
        if self._known is None or self._doubted:
            started = time.ticks_ms()
            try:
                found = socket.getaddrinfo(self.host, self.port)
            finally:
                self._took_ms = min(LONGEST_MS, time.ticks_diff(time.ticks_ms(), started))
            if not found:
                raise OSError("no address for " + self.host)
            self._known = found[0][-1]
            self._doubted = False
        return self._known
