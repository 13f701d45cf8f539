"""When the status is sent."""

from __future__ import annotations

import itertools

import pytest

from firmware import evaluate

# A device with its link to the broker, turn by turn, on a clock of its own.
CODE = """
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
    def publish(self, topic, *_):
        sent.append([topic, now])

sent = []
interval, begin, minutes = data
clock = Clock(time.ticks_ms, time.ticks_diff)
clock.set(1800000000, 0)
ring = Ring(100, 1)
status = Status("a", "power_on", clock, ring, Sampler())
readings = Readings(ring, clock, lambda values, utc: b"")
outbox = Outbox(Connection(), "", status, Nothing(), Nothing(), readings, Nothing())
outbox.welcome()
reading = begin
while now < minutes * 60000:
    if now >= reading:
        ring.push(clock.uptime(), clock.now(), [1.0])
        reading += interval
    if outbox.sending:
        outbox.acknowledged()
    outbox.send_next()
    now += 100
result = sent
"""


def seconds(sent: list[list], topic: str) -> list[float]:
    return [at / 1000 for where, at in sent if where == topic]


@pytest.mark.parametrize("begin", [0, 100, 400, 5000, 9900, 14900])
def test_the_status_is_sent_each_minute_with_a_reading(begin):
    """The Pi writes them to its card together if they arrive within a second."""
    sent = evaluate(CODE, [15000, begin, 30])
    status, readings = seconds(sent, "/status"), seconds(sent, "/reading")
    settled = [at for at in status if 600 < at < 1790]
    assert 18 <= len(settled) <= 22
    assert [at for at in settled if min(abs(at - reading) for reading in readings) > 0.3] == []


def test_the_status_of_a_device_with_rare_readings_is_sent_each_minute():
    status = seconds(evaluate(CODE, [600000, 5000, 30]), "/status")
    gaps = [after - before for before, after in itertools.pairwise(status)]
    assert max(gaps) < 61
    assert min(gaps) > 45
