"""The broker keeps what it acknowledged: sessions and queues, whatever is done to it and whoever is away meanwhile."""

from __future__ import annotations

import itertools

import paho.mqtt.client as mqtt
import pytest
from mosquitto_broker import Broker, Client

pytestmark = pytest.mark.slow

ACCOUNTS = [
    {"name": "telegraf", "topics": [{"topic": "tig/+/reading", "access": "read"}]},
    {"name": "greenhouse", "topics": [{"topic": "tig/greenhouse/#", "access": "readwrite"}]},
    {"name": "mats", "topics": [{"topic": "mats/#", "access": "readwrite"}]},
]
# Who is away: with a session for good, with one that expires in a week, and one whose last goodbye was never said.
AWAY = {
    "for good": {"version": mqtt.MQTTv311},
    "for good, MQTT 5": {"version": mqtt.MQTTv5},
    "for a week": {"version": mqtt.MQTTv5, "expiry": 7 * 86400},
}
SAMPLE = ["Rr", "RrrR"]


@pytest.fixture
def broker(tmp_path):
    broker = Broker(tmp_path / "broker", ACCOUNTS)
    broker.start()
    yield broker
    broker.stop()


def acknowledged_and_stored(
    broker: Broker, order: str, away: dict, renamed: bool = False
) -> tuple[list[str], list[str]]:
    """What was acknowledged to a device, and what its reader got of it, when all of this has happened to the broker."""
    acknowledged: list[str] = []
    stored: list[str] = []
    numbers = itertools.count()

    def publish(count: int) -> None:
        device = Client(broker, "greenhouse", "greenhouse-1")
        acknowledged.extend(device.publish("tig/greenhouse/reading", *(str(next(numbers)) for _ in range(count))))
        device.close()

    def fetch() -> None:
        reader = Client(broker, "telegraf", "telegraf-reading", persistent=True).subscribe("tig/+/reading")
        stored.extend(reader.payloads())
        reader.close()

    fetch()
    Client(broker, "mats", "mats-away", persistent=True, **away).subscribe("mats/#").close()
    publish(20)
    for step in order:
        if step == "r":
            if renamed:
                broker.configure([*ACCOUNTS, {"name": f"new{next(numbers)}"}])
            broker.reload()
        else:
            broker.restart()
        publish(20)
    back = Client(broker, "mats", "mats-away", persistent=True, **away)
    assert back.session_present, "the one that was away has lost its session"
    back.close()
    for number in range(3):  # new sessions, and one that comes and goes
        Client(broker, "mats", f"mats-new-{number}", persistent=True, **away).subscribe("mats/#").close()
        fetch()
        broker.settle()
        publish(20)
    fetch()
    return acknowledged, stored


@pytest.mark.parametrize("away", AWAY)
@pytest.mark.parametrize("order", SAMPLE)
def test_no_acknowledged_message_is_lost(broker, order, away):
    acknowledged, stored = acknowledged_and_stored(broker, order, AWAY[away])
    assert sorted(set(acknowledged) - set(stored), key=int) == []
    assert "Expiring" not in broker.log()


def test_a_client_that_is_absent_during_a_password_change_misses_no_message(broker):
    """As `make pi` has it: the broker takes the new password first, and the reader starts with it some seconds later."""
    reader = Client(broker, "telegraf", "telegraf-reading", persistent=True).subscribe("tig/+/reading")
    stays = Client(broker, "mats", "mats-phone").subscribe("mats/#")
    device = Client(broker, "greenhouse", "greenhouse-1")
    broker.configure([{**ACCOUNTS[0], "password": "another one"}, *ACCOUNTS[1:]])
    broker.reload()
    assert reader.put_out, "its password is no longer right"
    acknowledged = device.publish("tig/greenhouse/reading", *map(str, range(100)))
    reader.client.loop_stop()
    back = Client(broker, "telegraf", "telegraf-reading", persistent=True, password="another one")
    assert back.payloads() == acknowledged
    assert len(acknowledged) == 100
    assert not stays.put_out
    assert not device.put_out


def test_the_clients_of_a_removed_account_are_disconnected_at_once(broker):
    goes, stays = Client(broker, "mats", "mats-phone"), Client(broker, "greenhouse", "greenhouse-1")
    broker.configure([account for account in ACCOUNTS if account["name"] != "mats"])
    broker.reload()
    assert goes.put_out
    assert not stays.put_out
    assert Client(broker, "mats", "mats-phone").answer != "Success"


def test_the_queues_of_an_older_broker_are_kept(tmp_path):
    """It had no plugin, and an expiry; the new configuration starts on its store."""
    broker = Broker(tmp_path / "broker", ACCOUNTS)
    configuration = broker.directory / "mosquitto.conf"
    new = configuration.read_text()
    old = [line for line in new.splitlines() if not line.startswith("plugin")]
    configuration.write_text("\n".join([*old, "persistent_client_expiration 14d", ""]))
    broker.start()
    Client(broker, "telegraf", "telegraf-reading", persistent=True).subscribe("tig/+/reading").close()
    device = Client(broker, "greenhouse", "greenhouse-1")
    acknowledged = device.publish("tig/greenhouse/reading", *map(str, range(100)))
    device.close()
    broker.stop()
    configuration.write_text(new)
    broker.start()
    reader = Client(broker, "telegraf", "telegraf-reading", persistent=True)
    assert reader.session_present
    assert reader.payloads() == acknowledged
    reader.close()
    broker.stop()
