# Sockets with addresses as tuples, as every board has them; the Unix port wants packed ones.
from _unix import socket as _socket

try:
    from io import IOBase
except ImportError:
    IOBase = object

AF_INET = 2
SOCK_STREAM = 1
SOCK_DGRAM = 2
TIMED_OUT = (11, 110, 115, 116, 119)  # EAGAIN, ETIMEDOUT and EINPROGRESS, as Linux and as the ESP32's C library number them


def packed(address):
    host, port = address[0], address[1]
    if not isinstance(host, str):
        raise TypeError("can't convert '%s' object to str implicitly" % type(host).__name__)
    return _socket.getaddrinfo(host, port, AF_INET)[0][-1]


def _unpack(address):
    address = bytes(address)
    return ".".join([str(b) for b in address[4:8]]), address[2] << 8 | address[3]


def getaddrinfo(host, port, af=0, type=0, proto=0, flags=0):
    try:
        found = _socket.getaddrinfo(host, port, AF_INET)
    except OSError:
        raise OSError(-202)  # what lwIP's failed look-up becomes
    return [(AF_INET, SOCK_STREAM, 0, "", _unpack(found[0][-1]))]


class socket(IOBase):
    # _guard(function, *arguments), the platform's: calls it, with the errors of the platform

    def __init__(self, af=AF_INET, type=SOCK_STREAM, proto=0, _have=None):
        self._s = _have if _have is not None else _socket.socket(af, type)
        self._timeout = None

    def settimeout(self, seconds):
        self._timeout = seconds
        if seconds is None:
            self._s.setblocking(True)
        elif seconds == 0:
            self._s.setblocking(False)
        else:
            self._s.setblocking(True)
            self._s.settimeout(seconds)

    def setblocking(self, flag):
        self.settimeout(None if flag else 0)

    def connect(self, address):
        self._guard(self._s.connect, packed(address))

    def send(self, data):
        return self._guard(self._s.send, data)

    def sendall(self, data):
        data = memoryview(data)
        while len(data):
            sent = self._guard(self._s.send, data)
            data = data[sent:]

    def sendto(self, data, address):
        return self._guard(self._s.sendto, data, packed(address))

    def recv(self, size):
        return self._guard(self._s.recv, size)

    def recvfrom(self, size):
        data, address = self._guard(self._s.recvfrom, size)
        return data, _unpack(address)

    def read(self, size=-1):
        return self._guard(self._s.read, size)

    def readinto(self, buffer, size=None):
        if size is not None:
            return self._guard(self._s.readinto, buffer, size)
        return self._guard(self._s.readinto, buffer)

    def readline(self):
        return self._guard(self._s.readline)

    def write(self, data, size=None):
        if size is not None:
            data = memoryview(data)[:size]
        return self._guard(self._s.write, data)

    def ioctl(self, request, argument):
        if request == 3:
            import select

            poll = select.poll()
            poll.register(self._s, argument)
            for _stream, event in poll.poll(0):
                return event
            return 0
        if request == 4:
            self._s.close()
            return 0
        if request == 10:
            return self._s.fileno()
        return -1

    def close(self):
        self._s.close()
