# Pycom's own module: LED, pulses, non-volatile storage, boot settings.
from _hardware import call as _call

FAT = 0
LittleFS = 1


def heartbeat(on=None):
    if on is None:
        return _call("heartbeat")
    _call("heartbeat", bool(on))


def rgbled(color=None):
    if color is None:
        return _call("rgbled")
    _call("rgbled", int(color) & 0xFFFFFF)


def pulses_get(pin, timeout):
    from machine import Pin

    if not isinstance(pin, Pin):
        pin = Pin(pin)
    return [tuple(pulse) for pulse in _call("pulses_get", pin._gpio, int(timeout))]


def nvs_set(key, value):
    if isinstance(value, (bytes, bytearray)):
        value = str(value, "utf-8")
    if isinstance(value, str):
        if len(value) >= 1984:
            raise ValueError("value too long (max: 1984)")
    elif isinstance(value, int):
        value = value & 0xFFFFFFFF
    else:
        raise ValueError("Value must be string, bytes or integer")
    if not 0 < len(key) <= 15:
        raise ValueError("Key is too long" if key else "Key is invalid")
    _call("nvs_set", key, value)


def nvs_get(key, *default):
    value = _call("nvs_get", key)
    if value is None:
        if default:
            return default[0]
        raise ValueError("No matching object for the provided key")
    return value


def nvs_erase(key):
    if not _call("nvs_erase", key):
        raise KeyError("key not found")


def _setting(name):
    def function(value=None):
        if value is None:
            return _call("setting", name)
        _call("setting", name, value)

    return function


wifi_on_boot = _setting("wifi_on_boot")
wdt_on_boot = _setting("wdt_on_boot")
pybytes_on_boot = _setting("pybytes_on_boot")
smart_config_on_boot = _setting("smart_config_on_boot")


def wdt_on_boot_timeout(ms=None):
    if ms is None:
        return _call("setting", "wdt_on_boot_timeout")
    if ms < 5000:
        raise ValueError("WDT on boot timeout must be >=5000 ms")
    _call("setting", "wdt_on_boot_timeout", ms)


def bootmgr(*, boot_partition=255, fs_type=255, safeboot=255, reset=False):
    if boot_partition == fs_type == safeboot == 255:
        return ("Factory", _call("file_system"), "SafeBoot: False", "Status: Ready")
    if fs_type != 255 and fs_type not in (FAT, LittleFS):
        raise ValueError("Error invalid filesystem type!")
    _call("bootmgr", None if fs_type == 255 else fs_type, bool(reset))
