"""What the device says about itself: the lamp has a colour for each word of the status; the watchdog is fed by progress alone."""

from __future__ import annotations

import ast
import re

import pytest
from project import CONTRACT

from firmware import FIRMWARE, evaluate

DRIVERS = sorted(path.stem for path in (FIRMWARE / "lib/tig/drivers").glob("[!_]*.py"))
RGB = {state["word"]: state["rgb"] for state in CONTRACT["waiting_for"]}
KEYS = {  # what a setting may have, by its kind
    "pin": {"direction", "bus"},
    "text": {"pattern"},
    "integer": {"smallest", "largest", "choices", "apart", "takes_ms", "with"},
    "number": {"smallest", "largest", "choices", "apart", "takes_ms", "with"},
}


def test_the_lamp_has_a_colour_for_every_word():
    assert evaluate("from tig.led import COLOURS\nresult = COLOURS") == RGB
    assert set(RGB) == {"wifi", "time", "broker", "sensor", "none"}
    assert len(set(RGB.values())) == 5


def test_the_lamp_changes_only_when_the_word_does_and_a_missing_one_harms_nothing():
    code = """
from tig.led import Led
class Board:
    shown = []
    def led(self, colour):
        self.shown.append(colour)
        raise OSError("no lamp")
led = Led(Board())
for word in ("wifi", "wifi", "broker", "none", "none", "something else"):
    led.say(word)
result = Board.shown
"""
    assert evaluate(code) == [RGB["wifi"], RGB["broker"], RGB["none"], 0]


def test_the_watchdog_starves_when_readings_are_late():
    code = """
from tig.watchdog import Watchdog
class Board:
    armed = []
    fed = 0
    def watchdog(self, ms):
        self.armed.append(ms)
        def feed():
            self.fed += 1
        return feed
board = Board()
dog = Watchdog(board, 120)
result = [board.armed]
for late in (-15000, 0, 9000, 11000, 60000):
    dog.progress(late)
    result.append(board.fed)
"""
    assert evaluate(code) == [[120000], 1, 2, 3, 3, 3]


def test_every_driver_declares_what_it_measures():
    """The interface that lib/tig/drivers/__init__.py asks of a further driver."""
    code = """
result = []
for name in data:
    driver = __import__("tig.drivers." + name, None, None, ("Sensor",))
    result.append([driver.QUANTITIES, hasattr(driver.Sensor, "read")])
"""
    for name, (quantities, reads) in zip(DRIVERS, evaluate(code, DRIVERS), strict=True):
        assert reads, name
        for quantity, (smallest, largest, decimals) in quantities.items():
            assert smallest < largest, f"{name} {quantity}"
            assert decimals in range(6), f"{name} {quantity}"


def declared(path) -> dict:
    """The literals of a driver's file, as the controller reads them."""
    assigned = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Assign)]
    names = ("QUANTITIES", "SETTINGS", "TAKES_MS", "ADDRESS")
    return {node.targets[0].id: ast.literal_eval(node.value) for node in assigned if node.targets[0].id in names}


@pytest.mark.parametrize("name", DRIVERS)
def test_every_driver_declares_its_settings_and_the_readme_has_them(name):
    driver = declared(FIRMWARE / f"lib/tig/drivers/{name}.py")
    settings = driver["SETTINGS"]
    for key, setting in settings.items():
        assert setting["about"], key
        assert set(setting) <= KEYS[setting["kind"]] | {"kind", "about", "default", "optional", "example"}, key
        assert not ("default" in setting and ("optional" in setting or "example" in setting)), key
        if setting["kind"] == "pin":
            assert setting["direction"] in ("input", "output", "both", "analogue"), key
        elif setting["kind"] == "text":
            re.compile(setting.get("pattern", ""))
        else:
            assert "choices" in setting or setting["smallest"] < setting["largest"], key
            default = setting.get("default", setting.get("smallest"))
            assert default in setting["choices"] if "choices" in setting else default <= setting["largest"], key
        assert {setting.get("with", key), *setting.get("apart", ())} <= set(settings), key
    buses = {setting["bus"] for setting in settings.values() if "bus" in setting}
    if buses:
        assert ("ADDRESS" in driver) != ("address" in settings)
        assert len(buses) == 1
    if "i2c" in buses:
        assert {"sda", "scl"} <= set(settings)
    entries = []
    for key, setting in settings.items():
        default = setting.get("default", "none" if "optional" in setting else "")
        text = hex(default) if key == "address" and isinstance(default, int) else str(default)
        entries.append(f"`{key}`" + (f" ({text})" if text else ""))
    assert f"| `{name}` | {', '.join(entries)} |" in (FIRMWARE / "README.md").read_text()
