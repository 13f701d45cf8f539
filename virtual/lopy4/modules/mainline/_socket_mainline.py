# socket of the ESP32 port: a time-out is OSError(ETIMEDOUT).
import _network
from _network import AF_INET, IP_ADD_MEMBERSHIP, IPPROTO_IP, IPPROTO_TCP, IPPROTO_UDP
from _network import SO_REUSEADDR, SOCK_DGRAM, SOCK_RAW, SOCK_STREAM, SOL_SOCKET, getaddrinfo

AF_INET6 = 10
SO_BROADCAST = 0x20


class socket(_network.socket):
    def _guard(self, function, *arguments):
        try:
            return function(*arguments)
        except OSError as error:
            if self._timeout and error.args[0] in _network.TIMED_OUT:
                raise OSError(110)
            raise
