"""Just enough of Pycom's `network`. The file `wifi.down` takes the network away."""

import machine


class TimeoutError(OSError):
    """As Pycom names it, though not among the built-in names."""


class WLAN:
    STA, AP = 1, 2
    WPA2 = 3

    def __init__(self, id=0, *, mode=1):
        self._wanted = False

    def connect(self, ssid, auth=None, *, timeout=None):
        self._wanted = True

    def isconnected(self):
        if self._wanted and machine.exists("wifi.down"):
            self._wanted = False
            raise TimeoutError("Connection to AP Timeout!")
        return self._wanted

    def deinit(self):
        self._wanted = False

    def ifconfig(self):
        return ("127.0.0.1", "255.0.0.0", "127.0.0.1", "127.0.0.1")


class Server:
    def deinit(self):
        pass
