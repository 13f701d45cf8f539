"""The serial line to a device: one port, opened for us alone."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import os
import termios
import time

try:
    import serial

    PYSERIAL = True
except ImportError:
    PYSERIAL = False

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.tig_pi.stack.plugins.module_utils.lopy4.ports import listed

BAUD = 115200


class DeviceError(Exception):
    """What is wrong with the device or its port, and what to do about it."""


class Gone(DeviceError):
    """The connection was lost, as when the cable is pulled."""


def require_pyserial(module: AnsibleModule, **unknown: object) -> None:
    """End the module if pyserial is missing. In check mode it does not fail, because the run would install pyserial first.

    Args:
        unknown: the module's result in check mode.
    """
    if PYSERIAL:
        return
    if module.check_mode:
        module.exit_json(msg="python3-serial is not installed yet, so the devices cannot be read.", **unknown)
    module.fail_json(msg=missing_required_lib("pyserial (Debian: python3-serial)"))


def holders(path: str) -> list[str]:
    """Programs on this host that have the port open, as "name (process 7)"; those of other users only if we may see them."""
    try:
        there, found = os.stat(path), []
    except OSError:  # it is just being pulled
        return []
    for directory in glob.glob("/proc/[0-9]*"):
        pid = directory.rpartition("/")[2]
        if int(pid) == os.getpid():
            continue
        try:
            # By what it is and not by its name alone: a container has a /dev/pts/1 of its own.
            if any(
                os.readlink(entry).startswith("/dev/") and os.path.samestat(os.stat(entry), there)
                for entry in glob.glob(f"{directory}/fd/*")
            ):
                with open(f"{directory}/comm", encoding="utf-8", errors="replace") as file:
                    found.append(f"{file.read().strip()} (process {pid})")
        except OSError:
            continue
    return found


class Line:
    """One open port.

    Args:
        path: the port, such as /dev/serial/by-id/usb-Pycom_….
        baud: bits per second.

    Raises:
        DeviceError: there is no such port, it is in use, or we may not open it.
    """

    PATIENCE = 1.0  # seconds that a program may need to close the port

    def __init__(self, path: str, baud: int = BAUD, bits: int = 8) -> None:
        self.path = path
        self.sent = 0
        self.pending = b""
        if not os.path.exists(path):
            raise DeviceError(f"There is no port {path}. {listed()} Is the device plugged in?")
        # Neither an advisory lock nor TIOCEXCL (which root bypasses) keeps `screen` or `cat` from sharing the port and taking some
        # of the bytes.
        deadline = time.monotonic() + self.PATIENCE
        while users := holders(path):
            if time.monotonic() > deadline:
                raise DeviceError(self._in_use(users))
            time.sleep(0.1)
        try:
            self.serial = serial.Serial(path, baud, bytesize=bits, timeout=0, write_timeout=20, exclusive=True)
            fcntl.ioctl(self.serial.fileno(), termios.TIOCEXCL)
        except (OSError, ValueError) as error:
            raise DeviceError(self._refused(error)) from error

    def _refused(self, error: Exception) -> str:
        number = getattr(error, "errno", None)
        if number in (errno.EACCES, errno.EPERM):
            return f"No permission to open {self.path}: run as root, or add the user to group dialout and log in again."
        if number in (errno.EBUSY, errno.EAGAIN, errno.EWOULDBLOCK) or "exclusively lock" in str(error):
            return self._in_use(holders(self.path) or ["a program of another user"])
        return f"{self.path} can't be opened: {error}. {listed()}"

    def _in_use(self, users: list[str]) -> str:
        return f"{self.path} is in use by {', '.join(users)}. Close it and run again."

    def close(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            fcntl.ioctl(self.serial.fileno(), termios.TIOCNXCL)
        self.serial.close()

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _gone(self, error: Exception) -> Gone:
        return Gone(
            f"The connection to {self.path} was lost ({error}): was the cable pulled? Plug the device in and run again."
        )

    def write(self, data: bytes) -> None:
        try:
            self.serial.write(data)
        except (OSError, ValueError) as error:  # SerialException is an OSError
            raise self._gone(error) from error
        self.sent += len(data)

    def receive(self, timeout: float) -> bytes:
        """What has arrived, after waiting `timeout` seconds at most; b"" for nothing."""
        if self.pending:
            data, self.pending = self.pending, b""
            return data
        try:
            self.serial.timeout = timeout
            data = self.serial.read(1)
            if data:
                data += self.serial.read(self.serial.in_waiting)
        except (OSError, ValueError) as error:
            raise self._gone(error) from error
        return data

    def read_until(self, ends: tuple[bytes, ...], timeout: float) -> bytes | None:
        """Everything up to and including the first of `ends`; what follows is kept for the next read. None: it did not come in time."""
        data, deadline = bytearray(), time.monotonic() + timeout
        while True:
            left = deadline - time.monotonic()
            if left < 0:
                self.pending = bytes(data) + self.pending
                return None
            start = max(0, len(data) - 64)
            data += self.receive(min(left, 1))
            found = [(data.find(end, start), end) for end in ends]
            found = [(at + len(end), end) for at, end in found if at >= 0]
            if found:
                cut = min(found)[0]
                self.pending = bytes(data[cut:]) + self.pending
                return bytes(data[:cut])

    def drop(self) -> bytes:
        """Discard what has arrived; returns it."""
        data = self.receive(0)
        while True:
            more = self.receive(0)
            if not more:
                return data
            data += more
