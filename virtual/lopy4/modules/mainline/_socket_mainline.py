# socket of the ESP32 port: a time-out is OSError(ETIMEDOUT).
import _network
from _network import (
    IPPROTO_IP,
)

AF_INET6 = 10
IPPROTO_IP = 0
SO_BROADCAST = 0x20


class socket(_network.socket):
    @staticmethod
    def timeout_error():
        return OSError(110)
