"""The serial port: a pseudo-terminal that comes and goes like a USB device, and a line that takes its time."""

import contextlib
import errno
import grp
import os
import select
import termios
import time
import tty


class Line:
    """One direction of the serial line: bytes go in at once and come out at `rate` bytes a second (0: at once)."""

    def __init__(self):
        self.queue = bytearray()
        self.rate = 11520.0
        self.clock = 0.0

    def put(self, data):
        if not self.queue:
            self.clock = time.monotonic()
        self.queue += data

    def due(self):
        """The bytes that have arrived by now."""
        count = len(self.queue)
        if self.rate:
            now = time.monotonic()
            count = min(count, int((now - self.clock) * self.rate + 1e-6))
            self.clock += count / self.rate
        data = bytes(self.queue[:count])
        del self.queue[:count]
        return data

    def wait(self):
        """Seconds until a few more bytes arrive, or None."""
        if not self.queue:
            return None
        if not self.rate:
            return 0.0
        return max(0.0, self.clock + min(len(self.queue), 16) / self.rate - time.monotonic())


class Port:
    """The pseudo-terminal. `link` and the file `port` in `directory` lead to it while it is there."""

    def __init__(self, directory, link=None):
        self.link, self.note = link, os.path.join(directory, "port")
        self.fd = self.path = None
        self.in_use = False  # a program on the host has it open

    def open(self):
        if self.fd is not None:
            return
        self.fd, slave = os.openpty()
        os.set_blocking(self.fd, False)
        tty.setraw(slave)
        self.path = os.ttyname(slave)
        os.close(slave)
        with contextlib.suppress(KeyError, PermissionError):  # as udev leaves a real one
            os.chown(self.path, -1, grp.getgrnam("dialout").gr_gid)
            os.chmod(self.path, 0o660)
        if self.link:
            os.makedirs(os.path.dirname(os.path.abspath(self.link)), exist_ok=True)
            temporary = f"{self.link}.{os.getpid()}"
            os.symlink(self.path, temporary)
            os.replace(temporary, self.link)
        with open(self.note + ".new", "w") as file:
            file.write(self.path + "\n")
        os.replace(self.note + ".new", self.note)

    def close(self):
        """The cable is out: whoever has the port open gets an error."""
        if self.fd is None:
            return
        for path in (self.link, self.note):
            if path:
                with contextlib.suppress(OSError):
                    os.unlink(path)
        os.close(self.fd)
        self.fd = self.path = None
        self.in_use = False

    def look(self):
        """Find out whether a program has opened the port: this end says POLLHUP as long as none has."""
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        events = dict(poll.poll(0)).get(self.fd, 0)
        self.in_use = bool(events & select.POLLIN or not events & select.POLLHUP)

    def left(self):
        """The program closed the port: what it did not read is gone."""
        self.in_use = False
        with contextlib.suppress(OSError):
            slave = os.open(self.path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
            termios.tcflush(slave, termios.TCIFLUSH)
            os.close(slave)

    def read(self, size):
        try:
            return os.read(self.fd, size)
        except BlockingIOError:
            return b""
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            self.left()
            return b""

    def write(self, data):
        """Give bytes to the program that has the port open (without one they are gone); returns how many it took."""
        if self.fd is None or not self.in_use:
            return len(data)
        try:
            return os.write(self.fd, data)
        except BlockingIOError:
            return 0
        except OSError:
            self.left()
            return len(data)
