# network of the ESP32 port: one station, one access point.
import _hardware
from _hardware import call as _call

STA_IF = 0
AP_IF = 1
STAT_IDLE = 1000
STAT_CONNECTING = 1001
STAT_GOT_IP = 1010
STAT_NO_AP_FOUND = 201
STAT_WRONG_PASSWORD = 202
STAT_BEACON_TIMEOUT = 200
STAT_ASSOC_FAIL = 203
STAT_HANDSHAKE_TIMEOUT = 204


class WLAN:
    def __init__(self, interface=0):
        self._if = interface
        self._reconnects = -1

    def _on(self):
        return bool(_call("wlan_mode") & (1 << self._if))

    def active(self, on=None):
        if on is None:
            return self._on()
        mode = _call("wlan_mode")
        bit = 1 << self._if
        _call("wlan_mode", mode | bit if on else mode & ~bit)
        return bool(on)

    def connect(self, ssid=None, key=None, *, bssid=None):
        if not self._on():
            raise OSError("Wifi Not Started")
        if _call("wlan_status")[2] and not self.isconnected():
            raise OSError("Wifi Internal Error")
        _call("wlan_connect", ssid, key, None)

    def disconnect(self):
        if not self._on():
            raise OSError("Wifi Not Started")
        _call("wlan_disconnect")

    def isconnected(self):
        if self._if:
            return False
        if _hardware.clock(5, 0):
            return True
        return _call("wlan_status")[0]

    def status(self, what=None):
        if what == "rssi":
            if not self.isconnected():
                raise OSError("Wifi Not Connected")
            return -61
        if what is not None:
            raise ValueError("unknown status param")
        connected, reason, joining = _call("wlan_status")
        if connected:
            return STAT_GOT_IP
        if joining:
            if self._reconnects == 0 and reason:
                return STAT_WRONG_PASSWORD if reason == "wrong password" else STAT_NO_AP_FOUND
            return STAT_CONNECTING
        if reason:
            return STAT_WRONG_PASSWORD if reason == "wrong password" else STAT_NO_AP_FOUND
        return STAT_IDLE

    def ifconfig(self, config=None):
        if config is not None:
            return None
        return tuple(_call("wlan_ifconfig"))

    def config(self, *what, **keywords):
        if keywords:
            for key in keywords:
                if key == "reconnects":
                    self._reconnects = keywords[key]
                elif key not in ("pm", "ssid", "key", "security", "channel", "hidden", "txpower", "dhcp_hostname", "mac"):
                    raise ValueError("unknown config param")
            return None
        if what[0] == "mac":
            import binascii

            return binascii.unhexlify(_call("mac"))
        if what[0] in ("ssid", "essid"):
            return _call("wlan_ssid") or ""
        if what[0] == "reconnects":
            return self._reconnects
        if what[0] == "channel":
            return 6
        if what[0] == "pm":
            return 1
        raise ValueError("unknown config param")
