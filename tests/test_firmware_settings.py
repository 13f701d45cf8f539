"""settings.json: every mistake is named, no value is repeated."""

from __future__ import annotations

import copy

import pytest

from firmware import evaluate

GOOD = {
    "name": "matslopy4",
    "topic": "tig/matslopy4",
    "interval": 15,
    "wifi": {"ssid": "home", "password": "wifi-secret"},
    "broker": {"host": "192.168.1.4", "user": "matslopy4", "password": "broker-secret"},
    "time": {"zone": "CET-1CEST,M3.5.0,M10.5.0/3"},
    "sensors": [{"driver": "dht11", "pin": "P11", "fields": {"humidity": "outsidehumidity"}}],
}
CHECK = """
from tig import settings
try:
    result = settings.check(data)
except settings.SettingsError as e:
    result = str(e)
"""


def test_defaults():
    found = evaluate(CHECK, GOOD)
    assert (found["ring"], found["watchdog"]) == (100000, 120)
    assert (found["broker"]["port"], found["broker"]["keepalive"]) == (1883, 60)
    assert found["time"] == {"zone": "CET-1CEST,M3.5.0,M10.5.0/3", "server": "192.168.1.4", "port": 123}


@pytest.mark.parametrize(
    ("where", "value", "words"),
    [
        ("name", None, "name is missing"),
        ("topic", "tig/#", "topic must not contain #"),
        ("interval", 1, "interval must be 2 to 86400"),
        ("interval", "15", "interval must be a number"),
        ("interval", True, "interval must be a number"),
        ("ring", 0, "ring must be 1 to 1000000"),
        ("watchdog", 5, "watchdog must be 90 to 3600"),
        ("wifi", None, "wifi.ssid is missing"),
        ("wifi", "home", "wifi is not an object"),
        ("wifi.ssid", "x" * 33, "wifi.ssid must be 1 to 32 bytes"),
        ("wifi.ssid", "ü" * 16 + "x", "wifi.ssid must be 1 to 32 bytes"),
        ("wifi.password", 12345678, "wifi.password must be text"),
        ("broker.host", None, "broker.host is missing"),
        ("broker.port", 70000, "broker.port must be 1 to 65535"),
        ("broker.password", "s" * 257, "broker.password must be 0 to 256 bytes"),
        ("sensors", {}, "sensors is not a list"),
        ("sensors", [{}], "a sensor has no driver"),
        ("sensors", [{"driver": "soil"}], "sensor soil has no fields"),
    ],
)
def test_a_mistake_is_named_and_its_value_is_not(where, value, words):
    wrong = copy.deepcopy(GOOD)
    at = wrong
    *path, key = where.split(".")
    for step in path:
        at = at[step]
    if value is None:
        at.pop(key)
    else:
        at[key] = value
    message = evaluate(CHECK, wrong)
    assert message == f"settings.json: {words}" or message.startswith(f"settings.json: {words}")
    assert "secret" not in message
    assert "sss" not in message


def test_a_file_that_is_not_json_is_named():
    code = """
from tig import settings
with open("settings.json", "w") as f:
    f.write('{"wifi": {"password": "hush"')
try:
    settings.load("settings.json")
except settings.SettingsError as e:
    result = str(e)
"""
    assert evaluate(code) == "settings.json is not JSON"
