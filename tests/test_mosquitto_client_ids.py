"""A client id belongs to the account that it is named after: nobody takes over the session of another by it."""

from __future__ import annotations

import shutil
import signal

import paho.mqtt.client as mqtt
import pytest
from mosquitto_broker import Broker, Client, compile_plugin

pytestmark = pytest.mark.slow

ACCOUNTS = [
    {"name": "telegraf", "topics": [{"topic": "tig/+/reading", "access": "read"}]},
    {"name": "greenhouse", "topics": [{"topic": "tig/greenhouse/#", "access": "readwrite"}]},
    {"name": "greenhouse-2", "topics": [{"topic": "tig/greenhouse-2/#", "access": "readwrite"}]},
    {
        "name": "a-device-with-a-long-name",
        "client_ids": ["a-device-with-a-"],
        "topics": [{"topic": "tig/a-device-with-a-long-name/#", "access": "readwrite"}],
    },
    {
        "name": "a-device-with-a-longer-name",
        "client_ids": ["a-device-with-a-"],
        "topics": [{"topic": "tig/a-device-with-a-longer-name/#", "access": "readwrite"}],
    },
    {"name": "mats", "topics": [{"topic": "mats/#", "access": "readwrite"}]},
    {"name": "anna", "topics": [{"topic": "mats/#", "access": "readwrite"}]},
]
VERSIONS = {"3.1": mqtt.MQTTv31, "3.1.1": mqtt.MQTTv311, "5": mqtt.MQTTv5}
REFUSED = ("Not authorized", "Bad user name or password")


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    broker = Broker(tmp_path_factory.mktemp("broker") / "broker", ACCOUNTS)
    broker.start()
    yield broker
    broker.stop()


@pytest.mark.parametrize("persistent", [False, True], ids=["clean", "persistent"])
@pytest.mark.parametrize("version", [mqtt.MQTTv31, mqtt.MQTTv311, mqtt.MQTTv5], ids=["3.1", "3.1.1", "5"])
@pytest.mark.parametrize("thief", ["mats", "greenhouse"])
def test_no_other_account_can_take_over_a_queue(broker, thief, version, persistent):
    Client(broker, "telegraf", "telegraf-reading", persistent=True).subscribe("tig/+/reading").close()
    device = Client(broker, "greenhouse", "greenhouse-1")
    acknowledged = device.publish("tig/greenhouse/reading", *map(str, range(200)))
    taking = Client(broker, thief, "telegraf-reading", version=version, persistent=persistent)
    assert taking.answer in REFUSED
    taking.close()
    reader = Client(broker, "telegraf", "telegraf-reading", persistent=True)
    assert reader.session_present
    assert len(acknowledged) == 200
    assert reader.payloads() == acknowledged
    reader.close()
    device.close()


def test_no_client_is_disconnected_by_another_account(broker):
    reader = Client(broker, "telegraf", "telegraf-reading", persistent=True).subscribe("tig/+/reading")
    assert Client(broker, "mats", "telegraf-reading").answer in REFUSED
    device = Client(broker, "greenhouse", "greenhouse-1")
    device.publish("tig/greenhouse/reading", "here")
    assert "here" in reader.payloads()
    assert not reader.put_out
    assert "Client id telegraf-reading belongs to account telegraf; refused to mats." in broker.log()


@pytest.mark.parametrize(
    ("account", "client_id", "let_in"),
    [
        ("telegraf", "telegraf", True),
        ("telegraf", "telegraf-status", True),
        ("mats", "telegraf", False),
        ("mats", "telegrafist", True),
        ("mats", "phone", True),
        ("mats", "mats-phone", True),
        ("mats", "", True),
        ("greenhouse", "mats-phone", False),
        ("greenhouse", "greenhouse-abc123", True),
        ("greenhouse", "greenhouse-2", False),
        ("greenhouse", "greenhouse-2-abc123", False),
        ("greenhouse-2", "greenhouse-2-abc123", True),
        ("greenhouse-2", "greenhouse-abc123", False),
        # What a program of before says: the first sixteen letters of the name.
        ("a-device-with-a-long-name", "a-device-with-a--abc123", True),
        ("a-device-with-a-longer-name", "a-device-with-a--abc123", True),
        ("mats", "a-device-with-a--abc123", False),
        ("a-device-with-a-long-name", "a-device-with-a-longer-name-abc123", False),
        ("a-device-with-a-longer-name", "a-device-with-a-longer-name-abc123", True),
    ],
)
def test_the_owner_of_a_client_id(broker, account, client_id, let_in):
    client = Client(broker, account, client_id)
    assert (client.answer == "Success") == let_in
    client.close()


def test_an_account_can_have_several_connections(broker):
    clients = [Client(broker, "mats", client_id) for client_id in ("mats", "mats-phone", "laptop", "", "")]
    assert {client.answer for client in clients} == {"Success"}
    clients[0].subscribe("mats/#")
    clients[2].publish("mats/test", "from the laptop")
    assert clients[0].payloads() == ["from the laptop"]
    assert not any(client.put_out for client in clients)
    for client in clients:
        client.close()


@pytest.mark.parametrize("persistent", [False, True], ids=["clean", "persistent"])
@pytest.mark.parametrize("version", VERSIONS.values(), ids=VERSIONS)
@pytest.mark.parametrize("happened", ["away", "there", "restart", "kill", "reload", "reconnected", "wrong password"])
def test_a_free_id_belongs_to_the_account_that_has_a_session_with_it(broker, happened, version, persistent):
    """Its queue is not another person's, and nobody else puts out the program that is connected with it."""
    client_id = f"phone-{happened}-{version}-{persistent}"
    owner = Client(broker, "mats", client_id, persistent=True, version=version).subscribe("mats/#")
    if happened in ("restart", "kill", "reload", "away"):
        owner.close()
    if happened == "restart":
        broker.restart()
    elif happened == "kill":
        broker.save()
        broker.stop(signal.SIGKILL)
        broker.start()
    elif happened == "reload":
        broker.reload()
    elif happened == "reconnected":  # puts its own connection out, and subscribes to nothing: it has the session
        owner.client.loop_stop()
        owner = Client(broker, "mats", client_id, persistent=True, version=version)
        assert owner.session_present or version == mqtt.MQTTv31
    elif happened == "wrong password":
        assert (
            Client(broker, "mats", client_id, persistent=persistent, version=version, password="no").answer in REFUSED
        )
        assert (
            Client(broker, "anna", client_id, persistent=persistent, version=version, password="no").answer in REFUSED
        )
    publisher = Client(broker, "mats")
    acknowledged = publisher.publish("mats/test", *map(str, range(200)))
    assert Client(broker, "anna", client_id, version=version, persistent=persistent).answer in REFUSED
    if happened in ("restart", "kill", "reload", "away"):
        owner = Client(broker, "mats", client_id, persistent=True, version=version)
        assert owner.session_present or version == mqtt.MQTTv31
    assert not owner.put_out
    assert owner.payloads() == acknowledged == [*map(str, range(200))]
    Client(broker, "mats", client_id, version=version).subscribe("mats/#").close()
    owner.close()
    publisher.close()


@pytest.mark.parametrize("version", VERSIONS.values(), ids=VERSIONS)
def test_an_id_is_free_when_its_last_session_has_ended(broker, version):
    client_id = f"tablet-{version}"
    Client(broker, "mats", client_id, version=version).subscribe("mats/#").close()
    if version == mqtt.MQTTv5:  # which may keep a session of which nobody knows
        broker.restart()
    other = Client(broker, "anna", client_id, version=version, persistent=True).subscribe("mats/#")
    assert other.answer == "Success"
    other.close()
    # A clean connection takes the session away, too.
    Client(broker, "anna", client_id, version=version).subscribe("mats/#").close()
    if version == mqtt.MQTTv5:
        broker.restart()
    again = Client(broker, "mats", client_id, version=version)
    assert again.answer == "Success"
    again.close()


def test_sessions_with_free_ids_need_limited_memory(tmp_path):
    """Of MQTT 5 nobody tells when they end. Those of another account are not pushed out by them."""
    broker = Broker(tmp_path / "broker", ACCOUNTS)
    broker.start()
    Client(broker, "anna", "tablet", persistent=True).subscribe("mats/#").close()
    for number in range(1001):
        Client(broker, "mats", f"program{number}", version=mqtt.MQTTv5).subscribe("mats/#").close()
    for client_id, let_in in (("program0", True), ("program1", False), ("program1000", False)):
        client = Client(broker, "anna", client_id)
        assert (client.answer == "Success") == let_in
        client.close()
    assert Client(broker, "mats", "tablet").answer in REFUSED
    broker.stop()
    assert "Client id tablet belongs to account anna; refused to mats." in broker.log()


@pytest.mark.parametrize("compiler", ["gcc", "tcc"])
def test_the_plugin_of_each_compiler(tmp_path, compiler):
    broker = Broker(tmp_path / "broker", ACCOUNTS)
    plugin = broker.directory / "accounts.so"
    plugin.unlink()
    shutil.rmtree(broker.directory / "gcc", ignore_errors=True)
    shutil.rmtree(broker.directory / "tcc", ignore_errors=True)
    compile_plugin(plugin, compiler)
    broker.start()
    assert Client(broker, "mats", "telegraf-reading").answer in REFUSED
    client = Client(broker, "mats", "phone")
    assert client.answer == "Success"
    client.close()
    broker.stop()
