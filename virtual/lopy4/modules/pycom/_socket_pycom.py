# usocket of Pycom's modusocket.c on a LoPy4: a time-out is a TimeoutError, which is an OSError.
import _network
from _network import AF_INET, IP_ADD_MEMBERSHIP, IPPROTO_IP, IPPROTO_TCP, IPPROTO_UDP
from _network import SO_REUSEADDR, SOCK_DGRAM, SOCK_RAW, SOCK_STREAM, SOL_SOCKET, getaddrinfo

AF_LORA = 0
AF_SIGFOX = 5
error = OSError


class TimeoutError(OSError):
    pass


timeout = TimeoutError


class socket(_network.socket):
    @staticmethod
    def timeout_error():
        return timeout("timed out")


def dnsserver(*arguments):
    return ("127.0.0.1", "0.0.0.0")
