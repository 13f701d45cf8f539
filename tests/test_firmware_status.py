"""When readings and the status are sent."""

from __future__ import annotations

import itertools

import pytest

from firmware import evaluate

# A device with its link to the broker, turn by turn, on a clock of its own.
CODE = """
import json
import time
now = 0
time.ticks_ms = lambda: now
time.ticks_diff = lambda a, b: a - b
from tig.clock import Clock
from tig.outbox import Outbox
from tig.readings import Readings
from tig.ring import Ring
from tig.status import Status

class Sampler:
    failed = []

class Nothing:
    def welcome(self):
        pass
    def due(self):
        return False

class Connection:
    def publish(self, topic, message, *_):
        sent.append([topic, now])
        if topic == "/status":
            held.append(json.loads(message)["held"])

sent = []
made = []
held = []
interval, begin, minutes, send_delay, again, silent = data
clock = Clock(time.ticks_ms, time.ticks_diff)
clock.set(1800000000, 0)
ring = Ring(100, 1)
status = Status("a", "power_on", clock, ring, Sampler(), send_delay)
readings = Readings(ring, clock, lambda values, utc: b"", interval // 1000, send_delay)
outbox = Outbox(Connection(), "", status, Nothing(), Nothing(), readings, Nothing())
outbox.welcome()
reading = begin
while now < minutes * 60000:
    if now >= reading:
        ring.push(clock.uptime(), clock.now(), [1.0])
        made.append(now)
        reading += interval
    if now == again:
        outbox.welcome()
    if outbox.sending and not silent <= now <= again:
        outbox.acknowledged()
    outbox.send_next()
    now += 100
result = sent, made, held
"""


NEVER = 10**9


def run(interval: float, begin: float, minutes: int = 30, send_delay: int = 30, again: float = 0):
    """When the status and the readings were sent, and when the readings were made, in seconds."""
    data = [int(interval * 1000), int(begin * 1000), minutes, send_delay, int(again * 1000), NEVER]
    sent, made, *_ = evaluate(CODE, data)
    times = [[at / 1000 for where, at in sent if where == topic] for topic in ("/status", "/reading")]
    return *times, [at / 1000 for at in made]


def gaps(times: list[float]) -> list[float]:
    return [after - before for before, after in itertools.pairwise(times)]


BEGIN = [0, 0.1, 0.4, 5, 9.9, 14.9]


@pytest.mark.parametrize("send_delay", [0, 30])
@pytest.mark.parametrize("begin", BEGIN)
def test_the_status_is_sent_each_minute_with_readings(begin, send_delay):
    """The Pi writes them to its card together if they arrive within a second."""
    status, readings, _ = run(15, begin, send_delay=send_delay)
    settled = [at for at in status if 600 < at < 1790]
    assert 18 <= len(settled) <= 27
    assert [at for at in settled if min(abs(at - reading) for reading in readings) > 0.3] == []


def test_the_status_of_a_device_with_rare_readings_is_sent_each_minute():
    status, _, _ = run(600, 5)
    assert max(gaps(status)) < 61
    assert min(gaps(status)) > 30


@pytest.mark.parametrize("begin", BEGIN)
@pytest.mark.parametrize(("interval", "send_delay", "together"), [(15, 30, 3), (15, 15, 2), (10, 30, 4), (30, 30, 2)])
def test_readings_are_sent_together_with_the_newest(interval, send_delay, together, begin):
    _, sent, made = run(interval, begin, send_delay=send_delay)
    assert len(made) - together < len(sent) <= len(made)
    waits = [at - since for at, since in zip(sent, made, strict=False)]
    assert waits[0] < 0.5
    # A reading takes 0.1 s here to be acknowledged, and uptimes are whole seconds.
    assert max(waits) <= send_delay + 1
    transmissions = [at for at, gap in zip(sent[1:], [99, *gaps(sent[1:])], strict=True) if gap > 1]
    assert set(map(round, gaps(transmissions))) == {together * interval}
    assert max(min(abs(at - since) for since in made) for at in transmissions) < 0.5


@pytest.mark.parametrize(("interval", "send_delay"), [(15, 0), (30, 15), (60, 30)])
def test_a_reading_that_would_wait_too_long_is_sent_at_once(interval, send_delay):
    _, sent, made = run(interval, 5, send_delay=send_delay)
    assert len(sent) == len(made)
    assert max(at - since for at, since in zip(sent, made, strict=True)) < 0.5


def test_readings_that_wait_for_later_ones_are_not_reported_as_held_back():
    _, _, reported = evaluate(CODE, [2000, 0, 5, 30, 0, NEVER])
    assert len(reported) > 3
    assert set(reported) == {0}


def test_readings_that_could_not_be_sent_are_reported_as_held_back():
    _, _, reported = evaluate(CODE, [15000, 0, 10, 30, 570000, 300000])
    assert max(reported) in (18, 19, 20, 21)
    assert reported[0] == 0


def test_a_new_connection_gets_at_once_what_waits():
    _, sent, made = run(15, 5, again=207)
    waiting = [at for at in made if at < 207][-1]
    assert [at for at in sent if waiting <= at < 207] == []
    assert [at for at in sent if 207 <= at < 207.5] != []
