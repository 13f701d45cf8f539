# usocket of Pycom's modusocket.c on a LoPy4. A time-out is a socket.timeout, which is an OSError and has no built-in name; without
# blocking, nothing yet and closed are both b"". A socket whose connecting failed is closed.
import _network
from _errno_pycom import EAGAIN, number
from _network import AF_INET, SOCK_DGRAM, SOCK_STREAM, getaddrinfo
from _timeout_pycom import timeout


class socket(_network.socket):
    def _guard(self, function, *arguments):
        try:
            return function(*arguments)
        except OSError as error:
            found = number(error.args[0])
        if self._timeout and found in _network.TIMED_OUT:
            raise timeout("timed out")
        raise OSError(found)

    def _stream(self, function, *arguments):
        # The methods of a stream know no time-out: nothing has come.
        try:
            return self._guard(function, *arguments)
        except timeout:
            return None

    def connect(self, address):
        try:
            self._guard(self._s.connect, _network.packed(address))
        except OSError:
            if self._timeout:
                self.close()
            raise

    def recv(self, size):
        try:
            return self._guard(self._s.recv, size)
        except OSError as error:
            if self._timeout == 0 and error.args[0] == EAGAIN:
                return b""
            raise

    def read(self, size=-1):
        return self._stream(self._s.read, size)

    def readinto(self, buffer, *size):
        return self._stream(self._s.readinto, buffer, *size)

    def readline(self):
        return self._stream(self._s.readline)
