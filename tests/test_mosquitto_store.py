"""What nobody needs any more is taken out of the broker's store, and nothing else is."""

from __future__ import annotations

import paho.mqtt.client as mqtt
import pytest
from mosquitto_broker import Broker, Client
from project import load

ACCOUNTS = [
    {
        "name": "telegraf",
        "topics": [{"topic": "tig/+/reading", "access": "read"}, {"topic": "$SYS/#", "access": "read"}],
    },
    {"name": "greenhouse", "topics": [{"topic": "tig/greenhouse/#", "access": "readwrite"}]},
    {"name": "mats", "topics": [{"topic": "tig/#", "access": "read"}]},
]


@pytest.fixture
def sessions():
    """The program that purges, as a module of its own for each test."""
    return load("roles/mosquitto/files/mosquitto-sessions")


@pytest.fixture
def broker(tmp_path, sessions):
    broker = Broker(tmp_path / "broker", ACCOUNTS)
    sessions.STORE = broker.directory / "store/mosquitto.db"
    sessions.PASSWORD_FILE, sessions.ACL_FILE = broker.directory / "passwd", broker.directory / "acl"
    sessions.ACCOUNTS_FILE = broker.directory / "accounts"
    broker.start()
    yield broker
    broker.stop()


def away(broker: Broker, account: str, client_id: str, *topics: str, **options) -> None:
    client = Client(broker, account, client_id, persistent=True, **options)
    for topic in topics:
        client.subscribe(topic)
    client.close()


def test_sessions_of_a_removed_account_are_purged_and_no_others(broker, sessions, capsys):
    away(broker, "telegraf", "telegraf-reading", "tig/+/reading")
    away(broker, "mats", "mats-phone", "tig/#")
    away(broker, "mats", "laptop", "tig/+/reading", version=mqtt.MQTTv5, expiry=86400)
    device = Client(broker, "greenhouse", "greenhouse-1")
    acknowledged = device.publish("tig/greenhouse/reading", *map(str, range(50)))
    device.publish("tig/greenhouse/status", "online", retain=True)
    device.close()
    broker.stop()
    broker.configure([account for account in ACCOUNTS if account["name"] != "mats"])
    sessions.purge()
    said = capsys.readouterr().out
    assert "mosquitto-sessions: removed the session mats-phone of mats, which is not an account" in said
    assert "the session laptop of mats" in said
    assert "telegraf" not in said
    broker.configure(ACCOUNTS)
    broker.start()
    for client_id in ("mats-phone", "laptop"):
        back = Client(broker, "mats", client_id, persistent=True)
        assert not back.session_present
        assert back.payloads() == []
        back.close()
    reader = Client(broker, "telegraf", "telegraf-reading", persistent=True)
    assert reader.session_present
    assert reader.payloads() == acknowledged
    newcomer = Client(broker, "mats", "mats-new").subscribe("tig/+/status")
    assert newcomer.payloads() == ["online"]


def test_an_unused_subscription_is_removed_from_the_session(broker, sessions, capsys):
    extra = {"topic": "mats/test", "access": "read"}
    broker.configure([{**ACCOUNTS[0], "topics": [*ACCOUNTS[0]["topics"], extra]}, *ACCOUNTS[1:]])
    broker.reload()
    away(broker, "telegraf", "telegraf-reading", "tig/+/reading", "mats/test", "$SYS/broker/uptime")
    away(broker, "mats", "mats-phone", "#")
    broker.stop()
    before = sessions.STORE.read_bytes()
    sessions.purge()
    assert sessions.STORE.read_bytes() == before, "all of it may be read"
    broker.configure(ACCOUNTS)
    sessions.purge()
    assert capsys.readouterr().out == (
        "mosquitto-sessions: removed the subscription of session telegraf-reading to mats/test, which telegraf may not read\n"
    )
    left = {sessions.subscription(after, start) for after in [sessions.STORE.read_bytes()] for kind, start, _ in sessions.chunks(after) if kind == sessions.SUBSCRIPTION}  # fmt: skip
    assert left == {
        ("telegraf-reading", "tig/+/reading"),
        ("telegraf-reading", "$SYS/broker/uptime"),
        ("mats-phone", "#"),
    }
    broker.start()
    assert Client(broker, "telegraf", "telegraf-reading", persistent=True).session_present


@pytest.mark.parametrize(
    "damage", [b"", b"\0" * 4096, 100, b"not a store at all"], ids=["empty", "NULs", "cut", "garbage"]
)
def test_a_store_of_an_unknown_format_is_not_changed(broker, sessions, capsys, damage):
    away(broker, "mats", "mats-phone", "tig/#")
    broker.stop()
    broker.configure(ACCOUNTS[:2])
    whole = sessions.STORE.read_bytes()
    found = whole[: len(whole) - damage] if isinstance(damage, int) else damage
    sessions.STORE.write_bytes(found)
    sessions.purge()
    assert sessions.STORE.read_bytes() == found
    assert "is not changed" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["passwd", "acl", "accounts"])
@pytest.mark.parametrize("damage", [b"", b"\0" * 64, None], ids=["empty", "NULs", "cut"])
def test_no_session_is_purged_because_of_a_damaged_file(broker, sessions, name, damage):
    away(broker, "telegraf", "telegraf-reading", "tig/+/reading")
    broker.stop()
    before, file = sessions.STORE.read_bytes(), broker.directory / name
    file.write_bytes(file.read_bytes()[:-8] if damage is None else damage)
    sessions.purge()
    assert sessions.STORE.read_bytes() == before


def test_without_a_store_there_is_nothing_to_do(broker, sessions, capsys):
    broker.stop()
    sessions.STORE.unlink(missing_ok=True)
    sessions.purge()
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("one", "other", "common"),
    [
        ("a/b", "a/b", True),
        ("a/b", "a/c", False),
        ("a/+", "a/b", True),
        ("+/b", "a/+", True),
        ("a/#", "a", True),
        ("a/#", "a/b/c", True),
        ("#", "a/b", True),
        ("a/b", "a/b/c", False),
        ("a/b/+", "a/b", False),
        ("tig/+/reading", "tig/x/status", False),
        ("tig/#", "tig/+/reading", True),
    ],
)
def test_whether_two_filters_have_a_topic_in_common(sessions, one, other, common):
    assert sessions.overlap(one, other) == common
    assert sessions.overlap(other, one) == common
