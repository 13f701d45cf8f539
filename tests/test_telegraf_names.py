"""A flood of names is limited where it enters, and what is declared or stored already always passes."""

from __future__ import annotations

import contextlib
import json
import signal

import paho.mqtt.client as mqtt
import pytest
from chain import Chain, running, wait_until

NEW_A_DAY = 20
FLOOD = 5000


@pytest.fixture
def chain(tmp_path) -> Chain:
    with running(tmp_path / "chain", site={"site_new_names_per_day": NEW_A_DAY}) as chain:
        yield chain


@contextlib.contextmanager
def client(chain: Chain):
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
    client.max_inflight_messages_set(1000)
    client.connect("127.0.0.1", chain.mqtt_port)
    client.loop_start()
    yield client
    client.disconnect()
    client.loop_stop()


def publish(chain: Chain, *readings: dict, topic: str = "mats/test") -> None:
    with client(chain) as connected:
        for message in [connected.publish(topic, json.dumps(reading), qos=1) for reading in readings]:
            message.wait_for_publish(60)


def names(chain: Chain, statement: str) -> set[str]:
    """Names, without the ones that the tests' own last message has."""
    column = 1 if "TAG" in statement else 0
    found = {row[column] for series in chain.query(statement) for row in series["values"]}
    return found - {"greenhouse", "outsidetemp"}


def devices(chain: Chain) -> set[str]:
    return names(chain, 'SHOW TAG VALUES FROM mqtt_consumer WITH KEY = "device"')


def fields(chain: Chain) -> set[str]:
    return names(chain, "SHOW FIELD KEYS FROM mqtt_consumer")


def last_one(chain: Chain, number: int) -> None:
    """A declared reading, published after all others; when it is stored, they have been dealt with."""
    publish(chain, {"outsidetemp": number}, topic="tig/greenhouse/reading")
    query = f"SELECT outsidetemp FROM mqtt_consumer WHERE device = 'greenhouse' AND outsidetemp = {number}"
    wait_until(lambda: chain.query(query), "a declared reading is stored", 60)


def count_of(chain: Chain, name: str) -> int:
    found = chain.query(f"SELECT count(x) FROM mqtt_consumer WHERE device = '{name}'")
    return found[0]["values"][0][1] if found else 0


def test_a_flood_of_devices_is_limited_and_counted(chain):
    publish(chain, *({"device": f"flood-{number}", "outsidetemp": 1} for number in range(FLOOD)))
    last_one(chain, 2)
    wait_until(lambda: chain.counters().get("undeclared_device") == FLOOD - NEW_A_DAY, "the others are counted")
    wait_until(lambda: len(devices(chain)) == NEW_A_DAY, "the first are stored")
    assert devices(chain) == {f"flood-{number}" for number in range(NEW_A_DAY)}
    assert "'flood-20' is not stored" in chain.telegraf.log.read_text().replace('"', "'")
    # All of them are acknowledged: the broker sends none again.
    chain.telegraf.stop()
    chain.start_telegraf()
    last_one(chain, 3)
    wait_until(lambda: chain.counters()["undeclared_device"] == 0, "Telegraf counts from the start")
    assert devices(chain) == {f"flood-{number}" for number in range(NEW_A_DAY)}


def test_a_flood_of_fields_is_limited_and_counted_and_the_declared_ones_are_stored(chain):
    readings = [
        {"device": "greenhouse", "outsidetemp": 1} | {f"flood-{number}": 1 for number in range(first, first + 500)}
        for first in range(0, FLOOD, 500)
    ]
    publish(chain, *readings)
    last_one(chain, 2)
    wait_until(lambda: chain.counters().get("undeclared_field") == FLOOD - NEW_A_DAY, "the others are counted")
    wait_until(lambda: len(fields(chain)) == NEW_A_DAY, "the first are stored")
    assert chain.query("SELECT count(outsidetemp) FROM mqtt_consumer")[0]["values"][0][1] == len(readings) + 1


def test_a_flood_of_statuses_is_limited_too(chain):
    with client(chain) as connected:
        for number in range(100):
            connected.publish(f"tig/flood-{number}/status", '{"state": "online"}', qos=1).wait_for_publish(30)
        connected.publish("tig/greenhouse/status", '{"state": "online"}', qos=1).wait_for_publish(30)
    query = 'SHOW TAG VALUES FROM device_status WITH KEY = "device"'
    wait_until(lambda: len(names(chain, query)) == NEW_A_DAY, "the first are stored")
    assert names(chain, query) == {f"flood-{number}" for number in range(NEW_A_DAY)}


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
@pytest.mark.parametrize("database_is_away", [False, True], ids=["database is there", "database comes later"])
def test_stored_names_are_accepted_after_a_restart_in_any_order(chain, how, database_is_away):
    known = [f"known-{number}" for number in range(NEW_A_DAY - 1)]
    publish(chain, *({"device": name, "x": 1, "time": 1600000001} for name in known))
    wait_until(lambda: devices(chain) == set(known), "they are stored")
    chain.telegraf.stop(how)
    if database_is_away:
        chain.database.stop(how)
    # What waits in the broker when Telegraf comes back: first the flood, then the names that are stored.
    publish(
        chain, *({"device": f"flood-{number}", f"y{number}": 1, "time": 1600000000} for number in range(FLOOD // 5))
    )
    publish(chain, *({"device": name, "x": 1, "time": 1600000002} for name in known))
    chain.start_telegraf()
    if database_is_away:
        publish(chain, *({"device": name, "x": 1, "time": 1600000003} for name in known))
        chain.start_database()
    last_one(chain, 2)
    rounds = 3 if database_is_away else 2
    wait_until(lambda: {count_of(chain, name) for name in known} == {rounds}, "all of the known are stored")
    assert len(devices(chain) | fields(chain)) <= len(known) + 1 + NEW_A_DAY


def test_a_database_that_does_not_list_its_names_delays_nothing(tmp_path):
    with running(tmp_path / "chain", site={"site_new_names_per_day": NEW_A_DAY}) as chain:
        chain.telegraf.stop()
        chain.query(
            "REVOKE ALL PRIVILEGES FROM telegraf; REVOKE ALL ON iot FROM telegraf; GRANT WRITE ON iot TO telegraf"
        )
        chain.start_telegraf()
        publish(chain, {"device": "someone", "x": 1})
        wait_until(lambda: devices(chain) == {"someone"}, "it is stored")
        assert "does not return its names" in chain.telegraf.log.read_text()
