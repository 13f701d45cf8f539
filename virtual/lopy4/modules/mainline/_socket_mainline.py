# socket of the ESP32 port: a time-out is OSError(ETIMEDOUT).
import _network
from _network import AF_INET, SOCK_DGRAM, SOCK_STREAM, getaddrinfo


class socket(_network.socket):
    def _guard(self, function, *arguments):
        try:
            return function(*arguments)
        except OSError as error:
            if self._timeout and error.args[0] in _network.TIMED_OUT:
                raise OSError(110)
            raise
