"""What an account that keeps its session is sent: each message once, and nothing that nobody asked for."""

from __future__ import annotations

import pytest
from mosquitto_broker import Broker, Client

TOPICS = [{"topic": topic, "access": "read"} for topic in ("tig/+/reading", "mats/test", "$SYS/#")]
OTHERS = [
    {"name": "greenhouse", "topics": [{"topic": "tig/greenhouse/#", "access": "readwrite"}]},
    {"name": "mats", "topics": [{"topic": "mats/#", "access": "readwrite"}, {"topic": "tig/#", "access": "read"}]},
]
ACCOUNTS = [{"name": "telegraf", "keeps_session": True, "topics": TOPICS}, *OTHERS]


@pytest.fixture
def broker(tmp_path):
    broker = Broker(tmp_path / "broker", ACCOUNTS, mosquitto_sys_interval=1)
    broker.start()
    yield broker
    broker.stop()


def received(broker: Broker, *topics: str) -> list[str]:
    """What the account is sent when it subscribes as Telegraf does at every start."""
    reader = Client(broker, "telegraf", "telegraf-reading", persistent=True)
    for topic in topics:
        reader.subscribe(topic)
    found = reader.payloads()
    reader.close()
    return found


def test_a_retained_reading_is_sent_once_whatever_is_restarted(broker):
    topics = ("tig/+/reading", "mats/test")
    assert received(broker, *topics) == []
    mats = Client(broker, "mats", "mats-phone")
    mats.publish("mats/test", '{"device": "phone", "outsidetemp": 25}', retain=True)
    mats.close()
    assert received(broker, *topics) == ['{"device": "phone", "outsidetemp": 25}']
    assert received(broker, *topics) == []
    broker.restart()
    assert received(broker, *topics) == []
    # Everybody else is sent it at each subscribe, as ever.
    assert Client(broker, "mats", "mats-tablet").subscribe("mats/test").payloads() == [
        '{"device": "phone", "outsidetemp": 25}'
    ]


def test_what_is_published_retained_just_then_is_sent(broker):
    reader = Client(broker, "telegraf", "telegraf-reading", persistent=True).subscribe("mats/test")
    mats = Client(broker, "mats", "mats-phone")
    mats.publish("mats/test", "1", "2", retain=True)
    reader.subscribe("mats/test")
    mats.publish("mats/test", "3", retain=True)
    assert reader.payloads() == ["1", "2", "3"]


def test_the_broker_s_own_figures_are_there_at_once(broker):
    broker.settle()
    reader = Client(broker, "telegraf", "telegraf-mosquitto").subscribe("$SYS/broker/retained messages/count")
    assert reader.received.get(timeout=5)[0] == "$SYS/broker/retained messages/count"


def test_a_kept_session_loses_a_topic_that_the_account_may_no_longer_read(broker):
    """As `make pi` has it: the broker knows first; Telegraf, started before, subscribes to the old topic once more."""
    received(broker, "tig/+/reading", "mats/test")
    broker.stop()
    broker.configure([{**ACCOUNTS[0], "topics": [TOPICS[0], TOPICS[2]]}, *OTHERS])
    broker.start()
    reader = Client(broker, "telegraf", "telegraf-mine", persistent=True)
    reader.client.subscribe([("tig/+/reading", 1), ("mats/test", 1)])
    assert reader.granted() == ["Granted QoS 1", "Unspecified error"]
