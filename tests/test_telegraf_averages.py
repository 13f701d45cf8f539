"""Averages include what comes late: because a node, Telegraf or the database was away."""

from __future__ import annotations

import json
import signal
import time

import paho.mqtt.publish
import pytest
from chain import SITE, Chain, running, wait_until
from project import PROBE

pytestmark = pytest.mark.slow

DAY = 86400


@pytest.fixture
def chain(tmp_path) -> Chain:
    with running(tmp_path / "chain") as chain:
        yield chain


def publish(chain: Chain, start: int, values: list[float], device: str = "greenhouse") -> None:
    """A reading every 15 seconds."""
    messages = [
        {"topic": f"tig/{device}/reading", "payload": json.dumps({"outsidetemp": value, "time": start + 15 * number}), "qos": 1}
        for number, value in enumerate(values)
    ]  # fmt: skip
    paho.mqtt.publish.multiple(messages, hostname="127.0.0.1", port=chain.mqtt_port)


def average(
    chain: Chain, start: int, device: str = "greenhouse", what: str = "mean", interval: str = "10m"
) -> float | None:
    """What the averages have for the ten minutes that begin then."""
    found = chain.query(
        f"SELECT {what}_outsidetemp FROM averages_{interval}.mqtt_consumer WHERE device = '{device}' AND time = {start}s"
    )
    return found[0]["values"][0][1] if found else None


def ten_minutes(back: int) -> int:
    return (int(time.time()) - back) // 600 * 600


@pytest.mark.parametrize("back", [3 * 3600, 3 * DAY, 400 * DAY], ids=["hours", "days", "more than a year"])
def test_averages_include_a_backlog_of_any_age(chain, back):
    start = ten_minutes(back)
    publish(chain, start, [20.0] * 40)
    wait_until(lambda: average(chain, start) == 20, "the first are averaged", 60)
    publish(chain, start + 7, [10.0] * 40)
    publish(chain, start, [30.0] * 10, device="other")
    wait_until(lambda: average(chain, start) == 15, "the late ones are averaged", 60)
    wait_until(lambda: average(chain, start, "other") == 30, "those of another device are", 60)
    assert [average(chain, start, what=what) for what in ("min", "max", "count")] == [10, 20, 80]
    hour = start // 3600 * 3600
    wait_until(lambda: average(chain, hour, what="count", interval="1h") == 80, "so are those of the hour", 60)


def test_averages_include_readings_of_a_clock_that_is_behind(chain):
    start = ten_minutes(3 * 3600)
    end = time.monotonic() + 60
    number = 0
    while average(chain, start) is None and time.monotonic() < end:
        publish(chain, start + number, [20.0])
        number += 1
        time.sleep(0.5)
    assert average(chain, start) == 20


def test_averages_that_a_killed_telegraf_had_to_compute_are_computed_at_its_start(chain):
    start = ten_minutes(2 * DAY)
    chain.telegraf.stop()
    # What it has written, but not asked to be averaged.
    chain.write(
        *(f"mqtt_consumer,device=greenhouse outsidetemp=20 {start + 15 * number}000000000" for number in range(40))
    )
    chain.start_telegraf()
    wait_until(lambda: average(chain, start) == 20, "they are averaged", 60)


def test_the_probe_is_in_no_average(chain):
    start = ten_minutes(DAY)
    publish(chain, start, [20.0] * 40, device=PROBE)
    publish(chain, start, [20.0] * 40)
    wait_until(lambda: average(chain, start) == 20, "the others are", 60)
    assert average(chain, start, PROBE) is None


def test_averages_include_readings_from_a_long_outage_of_the_database(tmp_path):
    """Telegraf had it at once, the database only after its continuous query had passed."""
    with running(
        tmp_path / "chain",
        site={"site_averages_queries": [query | {"late": 3} for query in SITE["site_averages_queries"]]},
    ) as chain:
        now = int(time.time())
        bucket = now // 600 * 600
        publish(chain, now, [20.0])
        wait_until(lambda: average(chain, bucket) == 20, "the first is averaged", 60)
        chain.database.stop(signal.SIGKILL)
        publish(chain, now + 1, [10.0])
        time.sleep(5)
        chain.start_database()
        wait_until(lambda: average(chain, bucket) == 15, "the one that waited is averaged", 60)


def test_averages_are_computed_again_when_the_database_is_back(chain):
    start = ten_minutes(2 * DAY)
    publish(chain, start, [20.0] * 40)
    wait_until(lambda: average(chain, start) == 20, "the first are averaged", 60)
    chain.database.stop(signal.SIGKILL)
    publish(chain, start + 7, [10.0] * 40)
    time.sleep(4)  # longer than late readings are left to settle
    chain.start_database()
    wait_until(lambda: average(chain, start) == 15, "the late ones are averaged", 60)
