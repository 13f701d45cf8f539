"""What the broker saves to the card, and when: what a power cut must not cost, and nothing else."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import paho.mqtt.client as mqtt
import pytest
from chain import wait_until
from mosquitto_broker import Broker, Client

pytestmark = pytest.mark.slow

INTERVAL = 12
SOON = INTERVAL + 6  # seconds: the broker publishes its figures every two seconds
ACCOUNTS = [
    {
        "name": "telegraf",
        "topics": [{"topic": "tig/+/reading", "access": "read"}, {"topic": "$SYS/#", "access": "read"}],
    },
    {"name": "greenhouse", "topics": [{"topic": "tig/greenhouse/#", "access": "readwrite"}]},
]
STATUS, READING = "tig/greenhouse/status", "tig/greenhouse/reading"


class Steady:
    """A broker at rest: somebody looks at its figures, and a device repeats its status."""

    def __init__(self, broker: Broker) -> None:
        self.store = broker.directory / "store/mosquitto.db"
        self.broker = broker
        self.watcher = Client(broker, "telegraf", "telegraf-figures").subscribe("$SYS/broker/#")
        self.device = Client(broker, "greenhouse", "greenhouse")
        for number in range(12):
            self.device.publish(STATUS, f"first {number}", retain=True)
        self.settle()

    def saved(self) -> int:
        return self.store.stat().st_mtime_ns if self.store.exists() else 0

    def settle(self) -> None:
        """Wait until what has changed is saved."""
        before = self.saved()
        wait_until(lambda: self.saved() != before, "it is saved", SOON)

    def quiet(self) -> None:
        """Wait until nothing is left to be saved."""
        before = None
        while before != self.saved():
            before = self.saved()
            time.sleep(INTERVAL + 1)

    def cut(self) -> None:
        self.broker.stop(signal.SIGKILL)
        self.broker.start()


def nothing_is_saved_while_all_messages_are_delivered(steady: Steady) -> None:
    reader = Client(steady.broker, "telegraf", "telegraf-reading", persistent=True).subscribe("tig/+/reading")
    steady.quiet()
    before, sent = steady.saved(), 0
    end = time.monotonic() + 3 * INTERVAL
    while time.monotonic() < end:
        steady.device.publish(STATUS, str(sent), retain=True)
        steady.device.publish(READING, str(sent))
        sent += 1
        time.sleep(1)
    assert reader.payloads() == [str(number) for number in range(sent)]
    assert steady.saved() == before


def what_waits_for_a_client_that_is_offline_is_saved(steady: Steady) -> None:
    Client(steady.broker, "telegraf", "telegraf-reading", persistent=True).subscribe("tig/+/reading").close()
    steady.quiet()
    steady.device.publish(READING, "waits")
    steady.settle()
    steady.cut()
    assert Client(steady.broker, "telegraf", "telegraf-reading", persistent=True).payloads(2) == ["waits"]


def what_a_connected_client_does_not_acknowledge_is_saved(steady: Steady) -> None:
    """As Telegraf does not while the database is away."""
    slow = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, "telegraf-reading", clean_session=False, manual_ack=True)
    slow.username_pw_set("telegraf", "telegraf")
    slow.connect("127.0.0.1", steady.broker.port)
    slow.loop_start()
    slow.subscribe("tig/+/reading", qos=1)
    steady.quiet()
    steady.device.publish(READING, "waits")
    steady.settle()
    slow.loop_stop()
    steady.cut()
    assert Client(steady.broker, "telegraf", "telegraf-reading", persistent=True).payloads(2) == ["waits"]


def what_waits_is_saved_although_nobody_looks_at_the_figures(steady: Steady) -> None:
    steady.watcher.close()
    steady.settle()
    Client(steady.broker, "telegraf", "telegraf-reading", persistent=True).subscribe("tig/+/reading").close()
    steady.device.publish(READING, "waits")
    steady.settle()
    steady.cut()
    assert Client(steady.broker, "telegraf", "telegraf-reading", persistent=True).payloads(2) == ["waits"]


def a_changed_retained_message_is_saved(steady: Steady) -> None:
    topic = "tig/greenhouse/setting"
    steady.quiet()
    for value in ("old", "new"):
        steady.device.publish(topic, value, retain=True)
        steady.settle()
    steady.cut()
    assert Client(steady.broker, "greenhouse", "greenhouse-other").subscribe(topic).payloads(2) == ["new"]
    Client(steady.broker, "greenhouse", "greenhouse-third").publish(topic, "", retain=True)
    steady.settle()
    steady.cut()
    assert Client(steady.broker, "greenhouse", "greenhouse-other").subscribe(topic).payloads(2) == []


def a_repeated_retained_message_is_saved_in_the_end(steady: Steady) -> None:
    end = time.monotonic() + 65  # a little more than ten intervals
    number = 0
    while time.monotonic() < end:
        number += 1
        steady.device.publish(STATUS, str(number), retain=True)
        time.sleep(1)
    steady.cut()
    (found,) = Client(steady.broker, "greenhouse", "greenhouse-other").subscribe(STATUS).payloads(2)
    assert number - 61 <= int(found) <= number


# What is tried, each with a broker of its own, and the interval at which this one saves.
CASES: dict[Callable[[Steady], None], int] = {
    nothing_is_saved_while_all_messages_are_delivered: INTERVAL,
    what_waits_for_a_client_that_is_offline_is_saved: INTERVAL,
    what_a_connected_client_does_not_acknowledge_is_saved: INTERVAL,
    what_waits_is_saved_although_nobody_looks_at_the_figures: INTERVAL,
    a_changed_retained_message_is_saved: INTERVAL,
    a_repeated_retained_message_is_saved_in_the_end: 6,
}


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """All cases run at the same time, since they do little but wait."""
    brokers = {
        case: Broker(
            tmp_path_factory.mktemp("broker") / "broker",
            ACCOUNTS,
            mosquitto_autosave_interval=interval,
            mosquitto_sys_interval=1,
        )
        for case, interval in CASES.items()
    }

    def run(case: Callable[[Steady], None]) -> None:
        brokers[case].start()
        try:
            case(Steady(brokers[case]))
        finally:
            brokers[case].stop()

    with ThreadPoolExecutor(len(CASES)) as pool:
        yield {case: pool.submit(run, case) for case in CASES}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_saves(running, case):
    running[case].result()
