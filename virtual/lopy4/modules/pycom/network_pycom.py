# network of Pycom's firmware: WLAN (modwlan.c) and the telnet and FTP server, as far as a program that turns them off needs it.
import binascii as _binascii
from ucollections import namedtuple as _namedtuple

import _hardware
from _hardware import call as _call
from _timeout_pycom import timeout as _timeout


class WLAN:
    STA = 1
    AP = 2
    STA_AP = 3
    WPA2 = 3

    _only = None

    def __new__(cls, *arguments, **keywords):
        if cls._only is None:
            cls._only = object.__new__(cls)
        return cls._only

    def __init__(self, id=0, **keywords):
        if id != 0:
            raise OSError("resource not available")
        if keywords or not _call("wlan_mode"):
            self.init(**keywords)

    def init(
        self,
        mode=1,
        ssid=None,
        auth=None,
        channel=1,
        antenna=None,
        power_save=False,
        hidden=False,
        bandwidth=1,
        max_tx_pwr=0,
        country=None,
    ):
        if mode & 2 and ssid is None:
            raise ValueError("AP SSID not given")
        _call("wlan_mode", mode)

    def deinit(self):
        _call("wlan_disconnect")
        _call("wlan_mode", 0)

    def connect(
        self,
        ssid,
        auth=None,
        *,
        bssid=None,
        timeout=None,
        ca_certs=None,
        keyfile=None,
        certfile=None,
        identity=None,
        hostname=None,
        channel=None
    ):
        if _call("wlan_mode") == self.AP:
            raise OSError("the requested operation is not possible")
        if not 0 < len(ssid) <= 32:
            raise ValueError("invalid argument(s) value")
        key = None
        if auth is not None:
            if len(auth) == 2:
                key = auth[1]
            elif len(auth) not in (1, 3):
                raise TypeError("invalid argument(s) type")
        _call("wlan_connect", ssid, key, timeout)

    def disconnect(self):
        _call("wlan_disconnect")

    def isconnected(self):
        if _hardware.clock(5, 0):
            return True
        state = _call("wlan_connected")
        if state == "timeout":
            raise _timeout("Connection to AP Timeout!")
        return bool(state)

    def ifconfig(self, id=0, config=None):
        if config is not None:
            return None
        return tuple(_call("wlan_ifconfig"))


class Server:
    def __init__(self, id=0, login=("micro", "python"), timeout=300):
        _call("server", True)

    def deinit(self):
        _call("server", False)
