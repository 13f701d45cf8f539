"""The ring of readings: bounded, oldest first, nothing lost but what it says it lost."""

from __future__ import annotations

import random
from collections import OrderedDict

import pytest

from firmware import evaluate

PLAY = """
from tig.ring import Ring
class Clock:
    def at(self, uptime):
        return 1700000000 + uptime
capacity, fields, steps = data
ring = Ring(capacity, fields)
result = []
for step in steps:
    if step[0] == "push":
        ring.push(step[1], step[2], step[3])
    elif step[0] == "remove":
        ring.remove(step[1])
    elif step[0] == "stamp":
        ring.stamp(Clock())
    records = []
    for number in range(ring.first, ring.first + ring.count):
        values = [None if v != v else v for v in ring.values(number)]
        records.append([number, ring.uptime(number), ring.time(number)] + values)
    result.append([records, ring.dropped])
"""


def test_oldest_makes_room_and_is_counted():
    steps = [["push", i, 1000 + i, [i]] for i in range(5)]
    records, dropped = evaluate(PLAY, [3, 1, steps])[-1]
    assert records == [[2, 2, 1002, 2], [3, 3, 1003, 3], [4, 4, 1004, 4]]
    assert dropped == 2


def test_missing_values_stay_missing_and_zero_stays_zero():
    steps = [["push", 1, 1001, [None, 0, -0.5]]]
    assert evaluate(PLAY, [2, 3, steps])[-1][0] == [[0, 1, 1001, None, 0, -0.5]]


def test_readings_from_before_the_clock_get_their_own_times():
    steps = [["push", 10, None, [1]], ["push", 25, None, [2]], ["push", 40, 5, [3]], ["stamp"]]
    assert [r[2] for r in evaluate(PLAY, [5, 1, steps])[-1][0]] == [1700000010, 1700000025, 5]


def test_a_reading_that_arrives_after_it_made_room_is_not_lost():
    steps = [["push", i, i + 1, [i]] for i in range(3)] + [["remove", 0]]
    assert evaluate(PLAY, [2, 1, steps])[-1] == [[[1, 1, 2, 1], [2, 2, 3, 2]], 0]


def test_the_newest_can_be_delivered_before_the_others():
    steps = [["push", i, None, [i]] for i in range(4)]
    steps += [
        ["remove", 3],
        ["push", 9, None, [9]],
        ["push", 10, None, [10]],
        ["remove", 3],
        ["remove", 0],
        ["remove", 1],
    ]
    assert [r[1] for r in evaluate(PLAY, [6, 1, steps])[-1][0]] == [2, -0x3FFFFFFF, 10]
    # the delivered one in the middle is passed over when its turn comes, and is not counted as dropped
    found, dropped = evaluate(PLAY, [6, 1, [*steps, ["remove", 2]]])[-1]
    assert ([r[1] for r in found], dropped) == ([10], 0)


def test_a_delivered_one_is_not_sent_again_when_it_becomes_the_newest():
    steps = [["push", i, None, [i]] for i in range(4)] + [["remove", 2], ["remove", 3]]
    assert [r[1] for r in evaluate(PLAY, [6, 1, steps])[-1][0]] == [0, 1]


def test_a_delivered_one_is_not_stamped():
    steps = [["push", i, None, [i]] for i in range(4)] + [["remove", 2], ["stamp"]]
    records = evaluate(PLAY, [6, 1, steps])[-1][0]
    assert [r[2] for r in records] == [1700000000, 1700000001, 0, 1700000003]


def test_against_a_model():
    """Thousands of random steps: what is held and what was dropped always add up."""
    dice = random.Random(7)
    capacity = 8
    steps, expected = [], []
    held: OrderedDict[int, list] = OrderedDict()
    number = dropped = 0
    for i in range(3000):
        if dice.random() < 0.55 or not held:
            if len(held) == capacity:
                held.popitem(last=False)
                dropped += 1
            held[number] = [number, i, i + 1, i % 100]
            steps.append(["push", i, i + 1, [i % 100]])
            number += 1
        else:
            oldest = next(iter(held))
            held.pop(oldest)
            steps.append(["remove", oldest])
        expected.append([list(held.values()), dropped])
    assert evaluate(PLAY, [capacity, 1, steps]) == expected


SAVE = """
import os
from tig import handover
from tig.ring import Ring
ring = Ring(4, 2)
for uptime, time, values in data["push"]:
    ring.push(uptime, time, values)
handover.save(ring, "ring.bin", ["a", "b"], data.get("reset"))
with open("ring.bin", "rb") as f:
    whole = f.read()
result = []
for length in data["lengths"]:
    with open("ring.bin", "wb") as f:
        f.write(whole[: len(whole) + length])
    again = Ring(4, len(data["fields"]))
    loaded = handover.load(again, "ring.bin", data["fields"], data.get("since"))
    numbers = range(again.first, again.first + again.count)
    records = [(again.uptime(n), again.time(n)) + again.values(n)[: None if "all" in data else 1] for n in numbers]
    records = [[value if value == value else "nan" for value in record] for record in records]
    result.append([loaded, records, again.dropped, "ring.bin" in os.listdir()])
"""
KEPT = [[1, 101, [1, 2]], [2, None, [3, 4]], [3, 103, [5, 6]]]


def test_a_crash_keeps_the_readings_that_know_their_time():
    found = evaluate(SAVE, {"push": KEPT, "fields": ["a", "b"], "lengths": [0]})
    assert found == [[True, [[1, 101, 1], [3, 103, 5]], 1, False]]


def test_a_file_that_was_cut_is_not_taken():
    found = evaluate(SAVE, {"push": KEPT, "fields": ["a", "b"], "lengths": range_below(40)})
    assert all(f == [False, [], 0, False] for f in found)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (["b", "a"], [[1, 101, 2, 1], [3, 103, 6, 5]]),
        (["c", "b"], [[1, 101, "nan", 2], [3, 103, "nan", 6]]),
        (["a", "b", "c"], [[1, 101, 1, 2, "nan"], [3, 103, 5, 6, "nan"]]),
        (["b"], [[1, 101, 2], [3, 103, 6]]),
    ],
)
def test_a_program_with_other_sensors_takes_the_fields_that_it_has(fields, expected):
    [[loaded, records, dropped, _]] = evaluate(SAVE, {"push": KEPT, "fields": fields, "lengths": [0], "all": True})
    assert (loaded, records, dropped) == (True, expected, 1)


def test_readings_of_which_nothing_is_left_are_counted():
    assert evaluate(SAVE, {"push": KEPT, "fields": ["c"], "lengths": [0]}) == [[False, [], 3, False]]


def test_what_has_no_time_yet_keeps_its_age_over_a_reset_whose_moment_is_known():
    data = {"push": KEPT, "fields": ["a", "b"], "lengths": [0], "reset": 10, "since": 4}
    assert evaluate(SAVE, data) == [[True, [[-13, 101, 1], [-12, 0, 3], [-11, 103, 5]], 0, False]]
    data["since"] = None
    assert evaluate(SAVE, data) == [[True, [[-9, 101, 1], [-7, 103, 5]], 1, False]]


def range_below(count):
    return [-i for i in range(1, count)]


CRASH = """
import os
with open("settings.json", "w") as f:
    json.dump(
        {
            "name": "node",
            "topic": "tig/node",
            "wifi": {"ssid": "home"},
            "broker": {"host": "127.0.0.1"},
            "sensors": [{"driver": "dht11", "pin": "P11", "fields": {"humidity": "h"}}],
        },
        f,
    )
from tig import crash, log, program
log.say = lambda what: None
first = program.Program(os.getcwd(), None)
first._ring.push(1, 1700000001, [53])
if data == "crash.txt":
    crash.FILE = "missing/crash.txt"
else:
    program.RING = "missing/ring.bin"
first.crashed(ValueError("what went wrong"))
again = program.Program(os.getcwd(), None)
result = [again._ring.count, (crash.report() or b"").decode()]
"""


def test_what_a_crash_can_still_write_is_written():
    """A traceback that finds no room on the flash costs no reading, nor the other way round."""
    for file_system in ("FAT", "LittleFS"):
        count, report = evaluate(CRASH, "crash.txt", file_system=file_system)
        assert (count, report) == (1, "")
        count, report = evaluate(CRASH, "ring.bin", file_system=file_system)
        assert count == (0 if file_system == "FAT" else 1)
        assert "what went wrong" in report


INTERRUPTED = """
calls = []
keep = program.Program.keep
def interrupted(self, pause=None):
    calls.append(pause)
    if len(calls) < 3:
        raise KeyboardInterrupt
    keep(self, pause)
program.Program.keep = interrupted
first.interrupted()
again = program.Program(os.getcwd(), None)
result = [len(calls), again._ring.count]
"""


@pytest.mark.parametrize("file_system", ["FAT", "LittleFS"])
def test_readings_are_written_though_ctrl_c_is_pressed_again(file_system):
    code = CRASH.partition("if data ==")[0] + INTERRUPTED
    assert evaluate(code, file_system=file_system) == [3, 1]
