"""The device's own settings: `settings.json` of the slot, rendered by the role.

Every mistake is a SettingsError that names the entry, but not its value, which may be a secret.
"""

import json


class SettingsError(Exception):
    pass


# entry: (type, default, smallest, largest), of a text in bytes; no default: the entry must be there
_SCHEMA = (
    ("name", str, None, 1, 64),
    ("topic", str, None, 1, 200),
    ("interval", int, 15, 2, 86400),
    ("send_delay", int, 30, 0, 60),
    ("ring", int, 100000, 1, 1000000),
    ("watchdog", int, 120, 90, 3600),
    ("wifi.ssid", str, None, 1, 32),
    ("wifi.password", str, "", 0, 64),
    ("broker.host", str, None, 1, 255),
    ("broker.port", int, 1883, 1, 65535),
    ("broker.user", str, "", 0, 64),
    ("broker.password", str, "", 0, 256),
    ("broker.keepalive", int, 60, 10, 3600),
    ("time.server", str, "", 0, 255),
    ("time.port", int, 123, 1, 65535),
    ("time.zone", str, "UTC0", 1, 64),
)


def load(path):
    """The checked settings, as a dictionary with every default filled in."""
    try:
        with open(path) as f:
            raw = json.load(f)
    except ValueError:
        raise SettingsError("settings.json is not JSON")
    return check(raw)


def check(raw):
    if not isinstance(raw, dict):
        raise SettingsError("settings.json is not an object")
    for path, kind, default, smallest, largest in _SCHEMA:
        parent = raw
        keys = path.split(".")
        for key in keys[:-1]:
            parent = parent.setdefault(key, {})
            if not isinstance(parent, dict):
                raise SettingsError("settings.json: %s is not an object" % key)
        value = parent.setdefault(keys[-1], default)
        if value is None:
            raise SettingsError("settings.json: %s is missing" % path)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise SettingsError("settings.json: %s must be %s" % (path, "a number" if kind is int else "text"))
        size = value if kind is int else len(value.encode())
        if not smallest <= size <= largest:
            raise SettingsError("settings.json: %s must be %d to %d" % (path, smallest, largest)
                                + ("" if kind is int else " bytes"))
    if not raw["time"]["server"]:
        raw["time"]["server"] = raw["broker"]["host"]
    for mark in "+#":
        if mark in raw["topic"]:
            raise SettingsError("settings.json: topic must not contain " + mark)
    sensors = raw.setdefault("sensors", [])
    if not isinstance(sensors, list):
        raise SettingsError("settings.json: sensors is not a list")
    for sensor in sensors:
        if not isinstance(sensor, dict) or not isinstance(sensor.get("driver"), str):
            raise SettingsError("settings.json: a sensor has no driver")
        if not isinstance(sensor.get("fields"), dict) or not sensor["fields"]:
            raise SettingsError("settings.json: sensor %s has no fields" % sensor["driver"])
    return raw
