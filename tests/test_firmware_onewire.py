"""The driver of the DS18B20 under a real MicroPython, against chips that accept what the data sheet allows and nothing else."""

from __future__ import annotations

import re

import pytest
from virtual_lopy4 import onewire

from firmware import FIRMWARE, evaluate

DRIVER = FIRMWARE / "lib/tig/drivers/ds18b20.py"
SAMPLE = """
import time
import _hardware
from tig import log
from tig.board import board
from tig.sampling import Sampler
said = []
log.say = said.append
sensors, steps = data
sampler = Sampler(board, sensors)
result = []
for step in steps:
    if step:
        _hardware.call("control", step[0], step[1])
    began = time.ticks_ms()
    result.append([sampler.sample(), sampler.failed, time.ticks_ms() - began])
    time.sleep_ms(1200)
result = [result, said]
"""


def address(digits: str) -> str:
    """An address with its checksum."""
    return digits + bytes([onewire.checksum(bytes.fromhex(digits))]).hex()


# On P10, where it is 25 C; three addresses that have most of their bits in common.
WIRE = {
    "a": {"chip": "ds18b20", "address": "28ff641e841603"},
    "b": {"chip": "ds18b20", "address": "28ff641e841604", "offsets": {"temperature": 5.5}},
    "c": {"chip": "ds18b20", "address": "28ff641e841683", "offsets": {"temperature": -35.0625}},
}
ADDRESSES = [address(chip["address"]) for chip in WIRE.values()]
FELT = [25, 30.5, -10.0625]
SENSORS = [
    {"driver": "ds18b20", "pin": "P10", "address": text, "fields": {"temperature": f"t{place}"}}
    for place, text in enumerate(ADDRESSES)
]
ALONE = {"driver": "ds18b20", "pin": "P10", "fields": {"temperature": "t"}}
DHT11 = {"driver": "dht11", "pin": "P11", "fields": {"humidity": "h"}}
PROFILES = pytest.mark.parametrize("profile", ["pycom", "mainline"])


def sample(sensors, steps, wiring, profile="pycom", **more):
    return evaluate(SAMPLE, [sensors, steps], profile, speed=0, wiring=wiring, **more)


@PROFILES
def test_one_alone_needs_no_address(profile):
    [[[values, failed, _]], _] = sample([ALONE], [None], {"a": WIRE["a"]}, profile)
    assert (values, failed) == ([25], [])


@PROFILES
def test_several_share_a_wire_and_a_conversion(profile):
    rounds, said = sample(SENSORS, [None] * 20, WIRE, profile)
    assert [(values, failed) for values, failed, _ in rounds] == [(FELT, [])] * 20
    assert said == []
    assert all(750 <= ms < 1000 for *_, ms in rounds)


@pytest.mark.parametrize("celsius", [125, 85.0625, 25.0625, 0.5, 0, -0.5, -10.125, -55])
def test_temperatures_of_the_data_sheet(celsius):
    steps = [["set", {"temperature": celsius}]]
    [[[values, failed, _]], _] = sample([ALONE], steps, {"a": WIRE["a"]})
    assert (values, failed) == ([celsius], [])


@PROFILES
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("silent", "no answer"),
        ("low", "the wire is low: is its resistor to 3V3 missing?"),
        ("checksum", "checksum"),
        ("power", "not measured"),  # 85 C, from before its first conversion
        ("range", "temperature out of range"),
    ],
)
def test_a_fault_leaves_its_field_out_and_it_comes_back(profile, fault, words):
    steps = [["sensor", {"name": "a", "fault": fault}], ["sensor", {"name": "a"}]]
    [bad, good], said = sample([DHT11, ALONE], steps, {"a": WIRE["a"]}, profile)
    assert bad[:2] == [[53, None], ["ds18b20"]]
    assert good[:2] == [[53, 25], []]
    assert said == [f"sensor ds18b20: {words}", "sensor ds18b20: working"]


def test_one_that_is_missing_does_not_take_its_neighbours_along():
    steps = [None, ["sensor", {"name": "b", "fault": "silent"}], None, ["sensor", {"name": "b"}]]
    rounds, said = sample(SENSORS, steps, WIRE)
    assert [(values, failed) for values, failed, _ in rounds] == [
        (FELT, []),
        ([25, None, -10.0625], ["ds18b20-2"]),
        ([25, None, -10.0625], ["ds18b20-2"]),
        (FELT, []),
    ]
    assert said[1].startswith(f"sensor ds18b20-2: no {ADDRESSES[1]} on the wire; on it: ")
    assert sorted(re.findall(r"28[0-9a-f]{14}", said[1])) == sorted(ADDRESSES)


@pytest.mark.parametrize("place", range(3))
def test_neighbours_that_measure_later_get_no_old_temperature(place):
    """Rounds are two seconds apart. Whichever of them is missing, the first one that is read makes all of them measure."""
    name = "abc"[place]
    steps = [
        None,
        ["sensor", {"name": name, "fault": "silent"}],
        ["set", {"temperature": 20}],
        ["sensor", {"name": name}],
    ]
    rounds, _ = sample(SENSORS, steps, WIRE)
    assert rounds[2][0] == [None if one == place else felt - 5 for one, felt in enumerate(FELT)]
    assert rounds[3][0] == [felt - 5 for felt in FELT]


def test_an_address_that_is_missing_is_told_with_those_on_the_wire():
    [[bad], [words]] = sample([ALONE], [None], WIRE)
    assert bad[:2] == [[None], ["ds18b20"]]
    assert words.startswith("sensor ds18b20: its address is missing; on the wire: ")
    assert sorted(re.findall(r"28[0-9a-f]{14}", words)) == sorted(ADDRESSES)


def test_parasite_power_is_refused():
    steps = [["sensor", {"name": "a", "fault": "parasite"}]]
    _, said = sample([ALONE], steps, {"a": WIRE["a"]})
    assert said == ["sensor ds18b20: parasite power: connect its VDD to 3V3"]


def test_without_a_chip_nothing_holds_the_wire_up():
    _, said = sample([ALONE], [None], {})
    assert said == ["sensor ds18b20: the wire is low: is its resistor to 3V3 missing?"]


@PROFILES
@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("time.sleep_us(500)\n            line(1)", "time.sleep_us(400)\n            line(1)"),  # reset
        ("            time.sleep_us(500)\n            if", "            if"),  # between the reset and the first slot
        (
            "        enable_irq(state)\n        time.sleep_us(60)\n        return",
            "        enable_irq(state)\n        return",
        ),
        (
            "line(0)\n            time.sleep_us(60)\n            line(1)",
            "line(0)\n            time.sleep_us(20)\n            line(1)",
        ),
        (
            "line(0)\n            time.sleep_us(60)\n            line(1)",
            "line(0)\n            time.sleep_us(150)\n            line(1)",
        ),
        ("disable_irq()", "0"),  # an interrupt delays a call
        ("line(0)\n            line(1)", "line(0)\n            time.sleep_us(15)\n            line(1)"),
    ],
)
def test_the_chips_notice_what_the_data_sheet_does_not_allow(profile, right, wrong):
    text = DRIVER.read_text()
    assert right in text
    text = text.replace("range(100)", "range(30)")  # less of the time that the answer to a reset may take
    with pytest.raises(AssertionError, match="not as the sensors' data sheets have it"):
        sample([ALONE], [None] * 5, {"a": WIRE["a"]}, profile, drivers={"ds18b20": text.replace(right, wrong)})


def test_a_bit_that_is_read_too_late_is_wrong():
    text = DRIVER.read_text().replace("bit = line()", "time.sleep_us(30)\n        bit = line()")
    rounds, _ = sample([ALONE], [None] * 5, {"a": WIRE["a"]}, drivers={"ds18b20": text})
    assert all(values == [None] for values, *_ in rounds)


def test_checksum():
    """The example of Maxim's application note 27, for the driver and for the chips."""
    example = bytes.fromhex("021cb801000000")
    assert onewire.checksum(example) == 0xA2
    code = "from tig.drivers import ds18b20\nresult = [ds18b20.checksum(bytes(item)) for item in data]"
    assert evaluate(code, [list(example), [*example, 0xA2]]) == [0xA2, 0]
