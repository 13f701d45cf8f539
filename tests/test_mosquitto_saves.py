"""What the broker saves to the card, and when: what a power cut must not cost, and nothing else."""

from __future__ import annotations

import signal
import time

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


@pytest.fixture
def steady(tmp_path):
    broker = Broker(tmp_path / "broker", ACCOUNTS, mosquitto_autosave_interval=INTERVAL, mosquitto_sys_interval=1)
    broker.start()
    yield Steady(broker)
    broker.stop()


def test_nothing_is_saved_while_all_messages_are_delivered(steady):
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


def test_what_waits_for_a_client_that_is_offline_is_saved(steady):
    Client(steady.broker, "telegraf", "telegraf-reading", persistent=True).subscribe("tig/+/reading").close()
    steady.quiet()
    steady.device.publish(READING, "waits")
    steady.settle()
    steady.cut()
    assert Client(steady.broker, "telegraf", "telegraf-reading", persistent=True).payloads(2) == ["waits"]


def test_what_a_connected_client_does_not_acknowledge_is_saved(steady):
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


def test_what_waits_is_saved_although_nobody_looks_at_the_figures(steady):
    steady.watcher.close()
    steady.settle()
    Client(steady.broker, "telegraf", "telegraf-reading", persistent=True).subscribe("tig/+/reading").close()
    steady.device.publish(READING, "waits")
    steady.settle()
    steady.cut()
    assert Client(steady.broker, "telegraf", "telegraf-reading", persistent=True).payloads(2) == ["waits"]


def test_a_changed_retained_message_is_saved(steady):
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


def test_a_repeated_retained_message_is_saved_in_the_end(tmp_path):
    broker = Broker(tmp_path / "broker", ACCOUNTS, mosquitto_autosave_interval=6, mosquitto_sys_interval=1)
    broker.start()
    try:
        steady = Steady(broker)
        end = time.monotonic() + 65  # a little more than ten intervals
        number = 0
        while time.monotonic() < end:
            number += 1
            steady.device.publish(STATUS, str(number), retain=True)
            time.sleep(1)
        steady.cut()
        (found,) = Client(broker, "greenhouse", "greenhouse-other").subscribe(STATUS).payloads(2)
        assert number - 61 <= int(found) <= number
    finally:
        broker.stop()
