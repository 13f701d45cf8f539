"""Commands to a running device: `execute` in its own process, `Control` from another one, which a `Listener` serves."""

import contextlib
import json
import os
import socket

from .cells import TORN
from .status import status


def _switch(word):
    if word in ("up", "on", True, "true", "1"):
        return True
    if word in ("down", "off", False, "false", "0"):
        return False
    raise ValueError(f"say up or down, not '{word}'")


def _status(device):
    return status(device)


def _sensor(device, name, fault="none"):
    if name not in device.hardware.sensors:
        raise ValueError(
            "there is no sensor '{}'; available: {}".format(name, ", ".join(sorted(device.hardware.sensors)))
        )
    device.hardware.sensors[name].set_fault(fault)


def _set(device, **values):
    for name, value in values.items():
        device.hardware.environment.set(name, None if value in (None, "auto") else value)


def _wifi(device, state=None, ssid=None, password=None, hidden=None):
    """up or down; or what the access point is now called, which password it wants, whether it hides its name."""
    wifi = device.hardware.wifi
    if state is not None:
        wifi.up = _switch(state)
    if ssid is not None:
        wifi.ssid = ssid
    if password is not None:
        wifi.password = password
    if hidden is not None:
        wifi.hidden = _switch(hidden)
    if wifi.wanted and wifi.problem():
        device.page.wifi = 0
        wifi.joins_at = device.page.now_us() + wifi.join_us


def _ntp(device, state):
    device.page.ntp_down = not _switch(state)


def _unplug(device, after_bytes=None):
    """Pull the cable, now or after this number of further bytes from the host."""
    if after_bytes is None:
        device.unplug()
    else:
        device.uart.unplug_after = int(after_bytes)


def _plug(device):
    device.plug()


def _power_cut(device, at_block_write=None, torn="none"):
    """Cut the power, now or at the n-th block write from here; torn says what that write leaves; see cells.TORN."""
    if at_block_write is None:
        device.unplug()
        return
    if torn not in TORN:
        raise ValueError(f"torn is one of {', '.join(TORN)}, not '{torn}'")
    device.page.torn = TORN.index(torn)
    device.page.cut_at_write = device.page.block_writes + int(at_block_write)


def _reset(device):
    """The board's reset button."""
    if device.state == "off":
        raise ValueError("the device has no power: plug it in")
    device.boot("hard")


def _speed(device, factor):
    """Device seconds per second; 0: sleeping takes no time at all."""
    factor = float(factor)
    if factor < 0:
        raise ValueError("the clock cannot run backwards")
    device.page.set_speed(factor)


def _output(device):
    return bytes(device.uart.tail).decode("utf-8", "replace")


COMMANDS = {
    "status": _status,
    "sensor": _sensor,
    "set": _set,
    "wifi": _wifi,
    "ntp": _ntp,
    "unplug": _unplug,
    "plug": _plug,
    "power-cut": _power_cut,
    "reset": _reset,
    "speed": _speed,
    "output": _output,
}


def execute(device, do, arguments):
    if do not in COMMANDS:
        raise ValueError("there is no command '{}'; available: {}".format(do, ", ".join(COMMANDS)))
    try:
        return COMMANDS[do](device, **arguments)
    except TypeError as error:
        raise ValueError(f"{do}: {error}") from None


class Listener:
    """The control socket DIRECTORY/control: lines of JSON, each a command. run(do, arguments) carries one out."""

    def __init__(self, directory, run):
        self.path, self.run = os.path.join(directory, "control"), run
        self.clients = {}
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        folder = os.open(directory, os.O_RDONLY)
        try:
            path = f"/proc/self/fd/{folder}/control"  # socket paths are short
            with contextlib.suppress(OSError):
                os.unlink(path)
            self.socket.bind(path)
        finally:
            os.close(folder)
        self.socket.listen(4)

    @property
    def sources(self):
        """What to wait for."""
        return [self.socket, *self.clients]

    def serve(self, source):
        """One of the sources has something."""
        if source is self.socket:
            client, _ = self.socket.accept()
            self.clients[client] = b""
            return
        try:
            data = source.recv(65536)
        except OSError:
            data = b""
        if not data:
            del self.clients[source]
            source.close()
            return
        *lines, self.clients[source] = (self.clients[source] + data).split(b"\n")
        for line in lines:
            with contextlib.suppress(OSError):
                source.sendall(json.dumps(self.answer(line)).encode() + b"\n")

    def answer(self, line):
        try:
            request = json.loads(line)
            return {"ok": True, "value": self.run(request.pop("do"), request)}
        except Exception as error:
            return {"ok": False, "error": str(error) or type(error).__name__}

    def close(self):
        for source in (*self.clients, self.socket):
            source.close()
        with contextlib.suppress(OSError):
            os.unlink(self.path)


class Control:
    """The control socket of a device that runs elsewhere."""

    def __init__(self, directory):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        folder = os.open(directory, os.O_RDONLY)
        try:
            self.socket.connect(f"/proc/self/fd/{folder}/control")
        finally:
            os.close(folder)
        self.file = self.socket.makefile("rw")

    def __call__(self, do, **arguments):
        self.file.write(json.dumps(dict(arguments, do=do)) + "\n")
        self.file.flush()
        answer = json.loads(self.file.readline())
        if not answer["ok"]:
            raise ValueError(answer["error"])
        return answer["value"]

    def close(self):
        self.file.close()
        self.socket.close()
