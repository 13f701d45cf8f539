"""Commands to the sensor node, and the readings that it sends again: against a real Mosquitto, and part by part."""

from __future__ import annotations

import itertools
import json
import signal
import time

import paho.mqtt.client as mqtt
import pytest
from firmware.network import NAME, Broker, Device, Listener, TimeServer, until

from firmware import evaluate

RING = """
from tig.ring import Ring
class Clock:
    def at(self, uptime):
        return 1700000000 + uptime
capacity, steps = data
ring = Ring(capacity, 1, 20)
for step in steps:
    getattr(ring, step[0])(*(step[1:] or [Clock()]))
kept = [[ring.time(number), ring.values(number)[0]] for number in range(ring.oldest, ring.end)]
result = [kept, ring.count, ring.dropped, ring.since(), ring.gaps(), ring.capacity]
"""


def push(*times: int | None) -> list[list]:
    return [["push", number, moment, [number]] for number, moment in enumerate(times)]


def test_delivered_readings_stay_until_their_space_is_needed():
    steps = [*push(10, 20, 30), ["remove", 0], ["remove", 1]]
    assert evaluate(RING, [4, steps])[:4] == [[[10, 0], [20, 1], [30, 2]], 1, 0, 10]
    steps += [["push", 3, 40, [3]], ["push", 4, 50, [4]], ["push", 5, 60, [5]]]
    assert evaluate(RING, [4, steps])[:4] == [[[30, 2], [40, 3], [50, 4], [60, 5]], 4, 0, 30]
    steps += [["push", 6, 70, [6]]]  # only now one is lost
    assert evaluate(RING, [4, steps])[:4] == [[[40, 3], [50, 4], [60, 5], [70, 6]], 4, 1, 40]


def test_a_reading_that_was_sent_without_a_time_cannot_be_sent_again():
    steps = [*push(None, None), ["remove", 1, False], ["push", 2, None, [2]], ["stamp"], ["remove", 0]]
    assert evaluate(RING, [4, steps])[:3] == [[[1700000000, 0], [1700000002, 2]], 1, 0]
    steps = [*push(None), ["remove", 0, False], ["push", 1, 1700000001, [1]]]
    assert evaluate(RING, [4, steps])[:3] == [[[1700000001, 1]], 1, 0]


def test_gaps_are_known_and_forgotten_with_the_readings_before_them():
    steps = push(100, 115, 200, 215, 230, 400)
    assert evaluate(RING, [10, steps])[4] == [[115, 200], [230, 400]]
    assert evaluate(RING, [5, steps])[4] == [[115, 200], [230, 400]]
    assert evaluate(RING, [3, steps])[4] == [[230, 400]]
    steps = push(*range(100, 100 + 30 * 40, 30))  # too many: the oldest become one, and none is forgotten
    gaps = evaluate(RING, [50, steps])[4]
    assert len(gaps) == 16
    assert gaps[0][0] == 100
    assert gaps[-1] == [1240, 1270]
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(gaps))


def test_the_ring_leaves_memory_to_the_program():
    code = """
import gc
from tig.ring import Ring
gc.collect()
free = gc.mem_free()
ring = Ring(10000000, 4)
gc.collect()
result = [free, gc.mem_free(), ring.capacity]
"""
    free, left, capacity = evaluate(code, None)
    assert capacity * 24 <= free
    assert left >= min(384 * 1024, free // 2)
    assert capacity * 24 >= (free - 384 * 1024) * 0.9


class Operator:
    """Who may send commands, and hears the answers."""

    def __init__(self, broker: Broker, listener: Listener):
        self.listener = listener
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="operator")
        self.client.username_pw_set("operator", "operator")
        self.client.connect("127.0.0.1", broker.port)
        self.client.loop_start()

    def send(self, command: dict | bytes, retain: bool = False) -> None:
        payload = command if isinstance(command, bytes) else json.dumps(command)
        self.client.publish(f"tig/{NAME}/command", payload, qos=1, retain=retain).wait_for_publish(10)

    def answers(self, name: str) -> list[dict]:
        return [answer for answer in self.listener.of("answer") if answer["id"] == name]

    def ask(self, command: dict, state: str) -> dict:
        self.send(command)
        return until(lambda: [a for a in self.answers(command["id"]) if a["state"] == state], 30, state)[0]

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


class House:
    def __init__(self, folder, profile: str, speed: float = 20):
        self.time, self.broker = TimeServer(speed=speed), Broker(folder / "broker")
        self.broker.start()
        self.listener = Listener(self.broker)
        self.operator = Operator(self.broker, self.listener)
        self.device = Device(folder / "device", speed, profile)
        self.device.settings(self.broker.port, self.time.port)
        self.device.start()

    def arrive(self, count: int) -> list[dict]:
        until(lambda: len(self.listener.readings) >= count, 40, f"{count} readings\n{self.device.console}")
        return self.listener.readings

    def close(self) -> None:
        try:
            self.device.close()
        finally:
            self.operator.close()
            self.listener.close()
            self.broker.stop()
            self.time.close()


@pytest.fixture(params=["pycom", "mainline"])
def house(tmp_path, request):
    house = House(tmp_path, request.param)
    yield house
    house.close()


def test_readings_are_sent_again_as_they_were(house):
    first = house.arrive(8)[:8]
    since, until_ = first[2]["time"], first[5]["time"]
    command = {"id": "one", "do": "replay", "since": since, "until": until_}
    answer = house.operator.ask(command, "done")
    assert answer == {"id": "one", "do": "replay", "state": "done", "sent": 4}
    assert [answer["state"] for answer in house.operator.answers("one")] == ["accepted", "done"]
    again = [reading for reading in house.listener.readings if house.listener.readings.count(reading) == 2]
    assert again[4:] == first[2:6]
    # The same command once more is answered, and nothing else.
    count = len(house.listener.readings)
    house.operator.send(command)
    until(lambda: len(house.operator.answers("one")) == 3)
    house.arrive(count + 3)
    assert house.operator.answers("one")[2]["state"] == "done"
    assert house.listener.duplicated() == 4
    # Without an end: all that have been delivered.
    answer = house.operator.ask({"id": "two", "do": "replay", "since": 0}, "done")
    assert answer["sent"] >= 11
    assert not house.listener.lost()
    status = until(lambda: (status := house.listener.status)["uptime"] > 200 and status)
    assert (status["replaying"], status["ignored"], status["dropped"]) == ([], 0, 0)
    assert status["kept_since"] == first[0]["time"]
    assert status["kept"] >= 11
    assert status["gaps"] == []


def test_new_readings_come_before_those_that_are_sent_again():
    code = """
from tig.outbox import Outbox

class Source:
    RETAINED, REPEATABLE = False, True
    def __init__(self, name):
        self.BRANCH = name
        self.left = 2
    def welcome(self):
        pass
    def due(self, reading=False):
        return self.left > 0
    def message(self):
        return b""
    def acknowledged(self):
        self.left -= 1

class Connection:
    sent = []
    def publish(self, topic, *_):
        self.sent.append(topic)

names = ["status", "crash", "answer", "reading", "replay"]
outbox = Outbox(Connection(), "", *[Source(name) for name in names])
while outbox.send_next():
    outbox.acknowledged()
result = Connection.sent
"""
    order = ["status", "crash", "crash", "answer", "answer", "reading", "status", "reading", "replay", "replay"]
    assert evaluate(code) == order


def test_a_replay_loses_no_new_reading(house):
    house.arrive(25)  # the acknowledgement of the last ones may not have reached the device yet
    house.operator.ask({"id": "all", "do": "replay", "since": 0}, "done")
    numbers = house.listener.numbers
    fresh = [number for place, number in enumerate(numbers) if number not in numbers[:place]]
    assert fresh == sorted(fresh)
    assert house.listener.duplicated() >= 20
    assert not house.listener.lost()


def test_a_command_waits_for_a_device_that_is_away(house):
    first = house.arrive(4)[:4]
    house.device.board.ctl("wifi", state="down")
    time.sleep(1)
    house.operator.send({"id": "away", "do": "replay", "since": 0, "until": first[-1]["time"]})
    time.sleep(1)
    assert house.operator.answers("away") == []
    house.device.board.ctl("wifi", state="up")
    until(lambda: [a for a in house.operator.answers("away") if a["state"] == "done"], 40, house.device.console)
    assert all(house.listener.readings.count(reading) >= 2 for reading in first)


NONSENSE = [
    b"",
    b"\xff\xfe",
    b"[1, 2]",
    b'"replay"',
    b"null",
    b'{"do": "replay", "since": 0}',
    b'{"id": 5, "do": "replay", "since": 0}',
    b'{"id": "", "do": "replay", "since": 0}',
    b'{"id": "' + b"x" * 65 + b'", "do": "replay", "since": 0}',
    b'{"id": "cut", "do": "repl',
    b'{"id": "large", "do": "replay", "since": 0, "x": "' + b"x" * 600 + b'"}',
    b'{"id": "larger", "do": "replay", "since": 0, "x": "' + b"x" * 15000 + b'"}',
]


def test_nonsense_is_ignored_and_counted(house):
    house.arrive(3)
    for message in NONSENSE:
        house.operator.send(message)
    house.operator.send({"id": "kept", "do": "replay", "since": 0}, retain=True)
    until(lambda: house.operator.answers("kept"))  # it was not retained when it arrived
    house.operator.send(b"", retain=True)
    until(lambda: house.listener.status["ignored"] == len(NONSENSE) + 1, 40, house.listener.status)
    until(lambda: len(house.listener.of("answer")) > 1)  # accepted, and done
    assert len(house.listener.of("answer")) == 2
    assert "broker: closed" not in house.device.console
    assert house.device.console.count("connected to") == 1
    house.operator.ask({"id": "good", "do": "replay", "since": 0}, "done")


@pytest.mark.parametrize("profile", ["pycom", "mainline"])
def test_what_cannot_be_done_is_refused(profile):
    code = """
from tig.commands import Commands
from tig.replay import Replay
from tig.ring import Ring
ring = Ring(4, 1)
commands = Commands({"replay": Replay(ring, None, None).request})
result = []
for command in data:
    commands.take(json.dumps(command).encode(), False)
    result.append(json.loads(commands.message()))
    commands.acknowledged()
result = [result, commands.ignored]
"""
    wrong = [
        {"id": "a", "do": "explode"},
        {"id": "b"},
        {"id": "c", "do": ["replay"], "since": 0},
        {"id": "d", "do": "replay"},
        {"id": "e", "do": "replay", "since": "yesterday"},
        {"id": "f", "do": "replay", "since": 1.5},
        {"id": "g", "do": "replay", "since": True},
        {"id": "h", "do": "replay", "since": 5, "until": "now"},
    ]
    answers, ignored = evaluate(code, wrong, profile)
    assert [answer["id"] for answer in answers] == list("abcdefgh")
    assert {answer["state"] for answer in answers} == {"refused"}
    assert [answer["reason"] for answer in answers] == ["unknown command"] * 3 + [
        "since and until must be whole numbers, seconds since 1970"
    ] * 5
    assert ignored == len(wrong)


def test_requests_that_overlap_are_carried_out_together():
    code = """
import time
from tig.replay import LOOK, Replay
from tig.ring import Ring
ring = Ring(1000, 1)
for number in range(1000):
    ring.push(number, 1000 + number, [number])
    ring.remove(number)
done = []
replay = Replay(ring, lambda values, at: at, lambda names, sent: done.append([names, sent]))
replay.request("one", {"since": 1100, "until": 1105})
sent, fruitless = [], 0
while replay.names:
    time.sleep_ms(100)
    if len(sent) == 3:
        replay.request("two", {"since": 1900, "until": 1902})
    at = replay.message() if replay.due() else None
    if at is None:
        fruitless += 1
    else:
        sent.append(at)
        replay.acknowledged()
result = [sent, fruitless, done]
"""
    sent, fruitless, done = evaluate(code, None, speed=0)
    assert sent == [1100, 1101, 1102, *range(1100, 1903)]
    assert done == [["one", "two"], 803] or done == [[["one", "two"], 803]]
    assert fruitless >= 1


@pytest.fixture(params=["pycom", "mainline"])
def quick_house(tmp_path, request):
    """Ten minutes in ten seconds."""
    house = House(tmp_path, request.param, speed=60)
    yield house
    house.close()


def lose_power(house) -> None:
    time.sleep(0.5)  # a write that has begun is complete
    house.device.stop()
    house.device.start()


def test_a_device_that_lost_its_power_sends_again_what_it_had_delivered(quick_house):
    house = quick_house
    until(house.device.wrote, 60, house.device.console)
    first = house.arrive(len(house.listener.readings) + 5)[:]
    lose_power(house)
    house.arrive(len(first) + 2)
    answer = house.operator.ask({"id": "all", "do": "replay", "since": 0}, "done")
    again = [reading for reading in first if house.listener.readings.count(reading) > 1]
    assert first[: len(again)] == again
    assert len(first) - len(again) <= 40, "more than ten minutes"
    assert answer["sent"] >= len(again) - 1, "the last one waited when it was written, and has been sent before"
    status = until(lambda: (status := house.listener.status).get("gaps") and status)
    assert status["kept_since"] == first[0]["time"]
    assert status["kept"] >= len(again)
    before, after = status["gaps"][-1]
    assert before == again[-1]["time"]
    assert after > first[-1]["time"]


def test_an_interrupted_program_keeps_its_readings(house):
    """With Ctrl-C, as each visit of the uploader does."""
    first = house.arrive(8)[:]
    house.device.board.ctl("wifi", state="down")
    time.sleep(3)  # four more readings
    house.device.process.send_signal(signal.SIGINT)
    house.device.process.send_signal(signal.SIGINT)
    house.device.process.wait(10)
    delivered = house.listener.readings[:]
    house.device.board.ctl("wifi", state="up")
    house.device.start()
    house.arrive(len(delivered) + 5)
    late = [reading["time"] for reading in house.listener.readings if reading["time"] > delivered[-1]["time"]]
    assert late[0] - delivered[-1]["time"] <= 16
    assert late[2] - late[0] <= 31
    answer = house.operator.ask({"id": "all", "do": "replay", "since": first[0]["time"]}, "done")
    assert answer["sent"] >= len(delivered) + 3
    assert [reading for reading in delivered if house.listener.readings.count(reading) < 2] == []


def test_a_device_that_lost_its_power_sends_what_it_could_not_deliver(quick_house):
    house = quick_house
    house.arrive(3)
    house.device.board.ctl("wifi", state="down")
    until(house.device.wrote, 60, house.device.console)
    lose_power(house)
    until(lambda: "readings from before the reset" in house.device.console)
    arrived = len(house.listener.readings)
    house.device.board.ctl("wifi", state="up")
    house.arrive(arrived + 40)
    # The driver numbers from 0 after each start: those before it.
    numbers = house.listener.numbers
    start = next((place for place in range(1, len(numbers)) if numbers[place] < numbers[place - 1]), len(numbers))
    assert set(range(40)) <= set(numbers[:start])
