"""The broker, from outside: who is accepted, which messages are delivered, and what survives a reboot and a power cut."""

from __future__ import annotations

import contextlib
import pathlib
import queue
import time

import paho.mqtt.client as mqtt
import pytest
import yaml
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

PROJECT = pathlib.Path(__file__).parents[3]
CONFIGURATION = "/etc/mosquitto/mosquitto.conf"


class Client:
    """An MQTT client, with the result of its connection and the messages that it received."""

    def __init__(
        self, pi, account=None, password=None, version=mqtt.MQTTv311, client_id="", persistent=False, expiry=0
    ) -> None:
        self.received: queue.Queue = queue.Queue()
        self.answer: queue.Queue = queue.Queue()
        options = {} if version == mqtt.MQTTv5 else {"clean_session": not persistent}
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=client_id, protocol=version, **options)
        if account:
            self.client.username_pw_set(account, password)
        self.client.on_connect = lambda *arguments: self.answer.put(str(arguments[3]))
        self.client.on_subscribe = lambda *arguments: self.answer.put("subscribed")
        self.client.on_message = lambda client, data, message: self.received.put((message.topic, message.payload))
        session = {}
        if expiry:
            session = {"clean_start": False, "properties": Properties(PacketTypes.CONNECT)}
            session["properties"].SessionExpiryInterval = expiry
        self.client.connect(pi.address, pi.port(1883), keepalive=30, **session)
        self.client.loop_start()
        self.connected = self.answer.get(timeout=10)

    def subscribe(self, topic: str) -> None:
        self.client.subscribe(topic, qos=1)
        assert self.answer.get(timeout=10) == "subscribed"

    def publish(self, topic: str, payload, retain=False, qos=1) -> None:
        self.client.publish(topic, payload, qos=qos, retain=retain).wait_for_publish(10)

    def next(self, seconds: float = 10) -> tuple[str, bytes]:
        return self.received.get(timeout=seconds)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture
def client(pi, inventory):
    """Opens clients with the scenario's accounts, and closes them at the end."""
    with contextlib.ExitStack() as stack:

        def connect(account=None, password=None, **options) -> Client:
            if account and password is None:
                password = (inventory / "secrets/mosquitto" / account).read_text().strip()
            made = Client(pi, account, password, **options)
            stack.callback(made.close)
            return made

        yield connect


@pytest.mark.parametrize("version", [mqtt.MQTTv311, mqtt.MQTTv5])
def test_a_reading_reaches_its_reader(client, version):
    reader = client("reader", version=version)
    reader.subscribe("tig/+/reading")
    client("greenhouse", version=version).publish("tig/greenhouse/reading", '{"outsidetemp": 25}')
    assert reader.next() == ("tig/greenhouse/reading", b'{"outsidetemp": 25}')


@pytest.mark.parametrize("version", [mqtt.MQTTv311, mqtt.MQTTv5])
@pytest.mark.parametrize(("account", "password"), [(None, None), ("greenhouse", "wrong"), ("nobody", "x")])
def test_clients_without_an_account_are_refused(client, version, account, password):
    assert client(account, password, version=version).connected in ("Not authorized", "Bad user name or password")


@pytest.mark.parametrize(
    ("account", "topic"),
    [
        ("greenhouse", "tig/balcony/reading"),
        ("greenhouse", "tig/greenhouse/command"),
        ("reader", "tig/greenhouse/reading"),
    ],
)
def test_a_message_on_a_topic_without_write_access_is_not_delivered(client, account, topic):
    reader, device = client("reader"), client("greenhouse")
    reader.subscribe("tig/+/reading")
    device.subscribe("tig/greenhouse/command")
    client(account).publish(topic, "forbidden")
    client("greenhouse").publish("tig/greenhouse/reading", "allowed")
    assert reader.next() == ("tig/greenhouse/reading", b"allowed")
    assert device.received.empty()


def test_a_topic_without_read_access_is_not_delivered(client):
    nosy = client("greenhouse")
    nosy.subscribe("#")
    nosy.subscribe("$SYS/#")
    nosy.publish("tig/greenhouse/reading", "mine, but not mine to read")
    with pytest.raises(queue.Empty):
        nosy.next(1)


def test_only_the_declared_port_is_open(host):
    listening = host.run("ss --listening --tcp --udp --numeric --processes --no-header | grep mosquitto").stdout
    assert {line.split()[4] for line in listening.splitlines()} == {"0.0.0.0:1883", "[::]:1883"}


@pytest.mark.parametrize("path", ["/etc/mosquitto/passwd", "/etc/mosquitto/acl", "/etc/mosquitto/accounts"])
def test_only_the_broker_can_read_the_accounts(host, path):
    file = host.file(path)
    assert (file.user, file.group, file.mode) == ("mosquitto", "mosquitto", 0o600)


def test_the_pi_has_no_password_in_the_clear(host, inventory):
    password = (inventory / "secrets/mosquitto/greenhouse").read_text().strip()
    assert "$7$" in host.file("/etc/mosquitto/passwd").content_string
    logs = "find /var/log -name '*.log' -exec cat {} +"
    assert password not in host.run(f"cat /etc/mosquitto/*; journalctl --no-pager; {logs}").stdout


def test_a_message_that_is_too_large_is_not_delivered(client):
    """Mosquitto counts it as received; its counter of dropped messages is about full queues only."""
    reader, device = client("reader"), client("greenhouse")
    reader.subscribe("tig/+/reading")
    device.publish("tig/greenhouse/reading", b"x" * 16385)
    device.publish("tig/greenhouse/reading", b"y" * 16384)
    assert reader.next()[1][:1] == b"y"


def test_a_packet_that_is_too_large_disconnects_its_sender_only(client):
    reader, device = client("reader"), client("greenhouse")
    reader.subscribe("tig/+/reading")
    device.client.publish("tig/greenhouse/reading", b"x" * 2_000_000, qos=0)
    client("greenhouse", client_id="another").publish("tig/greenhouse/reading", "small")
    assert reader.next()[1] == b"small"


def test_a_changed_password_converges_and_disconnects_no_other_account(client, converge, inventory):
    """The open connection of the account ends, since its password is no longer valid; the others stay."""
    stays = client("reader")
    stays.subscribe("tig/+/reading")
    secret = inventory / "secrets/mosquitto/greenhouse"
    before = secret.read_text()
    try:
        secret.write_text("another one\n")
        run = converge()
        assert run.returncode == 0, run.stdout
        assert client("greenhouse", before.strip()).connected in ("Not authorized", "Bad user name or password")
        client("greenhouse", "another one").publish("tig/greenhouse/reading", "1")
        assert stays.next() == ("tig/greenhouse/reading", b"1")
        assert "changed=0" in converge().stdout
    finally:
        secret.write_text(before)
        assert converge().returncode == 0


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"mosquitto_max_queued_messages": "many"}, "mosquitto_max_queued_messages"),
        ({"mosquitto_log_types": ["shout"]}, "Invalid log_type value (shout)"),
        ({"mosquitto_listeners": [{"port": 1883, "address": "192.0.2.1"}]}, "this host has no such address"),
        ({"mosquitto_listeners": [{"port": 70000}]}, "port 70000 is not between 1 and 65535"),
        ({"mosquitto_accounts": [{"name": "a b", "password": "x"}]}, "account 'a b': a name consists of letters"),
        ({"mosquitto_accounts": [{"name": "a:b", "password": "x"}]}, "account 'a:b': a name consists of letters"),
        ({"mosquitto_accounts": [{"name": "a"}]}, "account 'a' has no password"),
        ({"mosquitto_accounts": [{"name": "a", "password": "x"}] * 2}, "account 'a' is declared twice"),
        (
            {"mosquitto_accounts": [{"name": "a", "password": "x", "topics": [{"topic": "a/#/b", "access": "read"}]}]},
            "topic 'a/#/b' has a # that is not its whole last level",
        ),
        (
            {"mosquitto_accounts": [{"name": "a", "password": "x", "topics": [{"topic": "a/b", "access": "both"}]}]},
            "value of access must be one of: read, write, readwrite, got: both found in mosquitto_accounts -> topics",
        ),
    ],
)
def test_invalid_variables_are_refused_and_the_broker_runs_on(host, client, converge, variables, sentence):
    before = host.run("cat /etc/mosquitto/*; systemctl show mosquitto --property=MainPID").stdout
    run = converge(**variables)
    assert run.returncode != 0
    assert sentence in " ".join(run.stdout.replace("\\'", "'").replace('\\"', '"').split())
    assert host.run("cat /etc/mosquitto/*; systemctl show mosquitto --property=MainPID").stdout == before
    assert client("greenhouse").connected == "Success"


def test_a_validation_leaves_the_store_alone(client, host, converge):
    """Mosquitto's own --test-config would empty it."""
    waiting = client("reader", client_id="waiting", persistent=True)
    waiting.subscribe("tig/+/reading")
    waiting.close()
    client("greenhouse").publish("tig/greenhouse/reading", "kept")
    host.run_expect([0], "systemctl kill --signal=USR1 mosquitto")  # save now
    time.sleep(1)
    store = "/var/lib/mosquitto/mosquitto.db"
    before = host.file(store).size
    assert converge("--check", mosquitto_max_connections=999).returncode == 0
    assert converge(mosquitto_log_types=["shout"]).returncode != 0
    assert host.file(store).size >= before  # the broker may have saved it again meanwhile
    # What counts is what a broker reads that starts with it.
    host.run_expect([0], "systemctl kill --signal=KILL mosquitto; systemctl restart mosquitto")
    assert client("reader", client_id="waiting", persistent=True).next() == ("tig/greenhouse/reading", b"kept")


@pytest.mark.parametrize(("path", "restarts"), [(CONFIGURATION, True), ("/etc/mosquitto/acl", False)])
def test_the_run_after_an_interrupted_one_reloads_the_broker(host, converge, path, restarts):
    """The file is written, but the broker has not read it."""
    process = "systemctl show mosquitto --property=MainPID"
    before = host.run(process).stdout
    host.run_expect([0], f"touch {path}")
    run = converge()
    assert run.returncode == 0, run.stdout
    assert " changed=0 " not in run.stdout
    assert (host.run(process).stdout != before) == restarts
    assert " changed=0 " in converge().stdout


def test_each_tag_works_alone(tags_work_alone):
    tags_work_alone("mosquitto", "mosquitto_sys_interval", (11, 10), CONFIGURATION, "sys_interval {}\n")


def test_sessions_and_retained_messages_survive_a_reboot(client, pi):
    away = client("reader", client_id="away", persistent=True)
    away.subscribe("tig/+/reading")
    away.close()
    device = client("greenhouse")
    device.publish("tig/greenhouse/status", "online", retain=True)
    for number in range(20):
        device.publish("tig/greenhouse/reading", str(number))
    pi.reboot()
    back = client("reader", client_id="away", persistent=True)
    assert [back.next()[1] for _ in range(20)] == [str(number).encode() for number in range(20)]
    newcomer = client("reader")
    newcomer.subscribe("tig/+/status")
    assert newcomer.next() == ("tig/greenhouse/status", b"online")


def test_what_was_saved_survives_a_power_cut(client, pi, converge):
    assert converge(mosquitto_autosave_interval=2).returncode == 0
    try:
        away = client("reader", client_id="away", persistent=True)
        away.subscribe("tig/+/reading")
        while not away.received.empty():
            away.next()
        away.close()
        client("greenhouse").publish("tig/greenhouse/reading", "before the cut")
        time.sleep(5)  # longer than the interval of the copies
        pi.power_cut()
        assert client("reader", client_id="away", persistent=True).next() == (
            "tig/greenhouse/reading",
            b"before the cut",
        )
    finally:
        assert converge().returncode == 0


@pytest.mark.parametrize("how", ["NULs", "truncated"])
def test_the_broker_starts_with_a_damaged_store(client, host, damage, state_files, how):
    client("greenhouse").publish("tig/greenhouse/status", "online", retain=True)
    host.run_expect([0], "systemctl kill --signal=USR1 mosquitto")  # save now
    time.sleep(1)
    said = damage("mosquitto", "/var/lib/mosquitto/mosquitto.db", how)
    assert "/var/lib/mosquitto/mosquitto.db " in said
    assert "Lost: " in said
    assert client("reader").connected == "Success"
    assert state_files("mosquitto")["damaged"] == []
    assert host.file(state_files("mosquitto")["set_aside"][-1]["copy"]).exists


@pytest.mark.parametrize(("path", "how"), [("/etc/mosquitto/passwd", "empty"), ("/etc/mosquitto/acl", "garbage")])
def test_damaged_accounts_are_restored(client, host, damage, converge, path, how):
    before = host.file(path).content
    assert "restored from the second copy" in damage("mosquitto", path, how)
    assert host.file(path).content == before
    assert (host.file(path).user, host.file(path).mode) == ("mosquitto", 0o600)
    assert client("greenhouse").connected == "Success"
    assert " changed=0 " in converge().stdout


@pytest.fixture
def accounts(inventory):
    """The scenario's accounts, for a test that declares others."""
    declared = yaml.safe_load((PROJECT / "molecule/mosquitto/converge.yml").read_text())[0]["vars"][
        "mosquitto_accounts"
    ]
    secret = inventory / "secrets/mosquitto"
    return [{**account, "password": (secret / account["name"]).read_text().strip()} for account in declared]


@pytest.mark.parametrize("persistent", [False, True], ids=["clean", "persistent"])
@pytest.mark.parametrize("thief", ["greenhouse", "mats"])
def test_an_account_cannot_take_the_session_of_another(client, converge, accounts, thief, persistent):
    mats = {"name": "mats", "password": "mats", "topics": [{"topic": "#", "access": "readwrite"}]}
    assert converge(mosquitto_accounts=[*accounts, mats]).returncode == 0
    away = client("reader", client_id="reader-phone", persistent=True)
    away.subscribe("tig/+/reading")
    away.close()
    device = client("greenhouse", client_id="greenhouse-1")
    for number in range(20):
        device.publish("tig/greenhouse/reading", str(number))
    taking = client(thief, "mats" if thief == "mats" else None, client_id="reader-phone", persistent=persistent)
    assert taking.connected == "Not authorized"
    back = client("reader", client_id="reader-phone", persistent=True)
    assert [back.next()[1] for _ in range(20)] == [str(number).encode() for number in range(20)]
    several = [client("mats", "mats", client_id=client_id) for client_id in ("mats", "phone", "laptop")]
    assert {one.connected for one in several} == {"Success"}
    assert all(one.client.is_connected() for one in several)
    assert converge().returncode == 0


def test_a_client_that_is_offline_loses_nothing_whatever_changes(host, client, converge, accounts):
    """An added account, a restart, a changed password, a removed account: each is what a command does."""
    away = client("reader", client_id="reader-away", persistent=True)
    away.subscribe("tig/+/reading")
    away.close()
    mats = {"name": "mats", "password": "mats", "topics": [{"topic": "tig/#", "access": "read"}]}
    phone = None
    acknowledged = []

    def publish() -> None:
        device = client("greenhouse", client_id="greenhouse-1")
        for _ in range(20):
            acknowledged.append(str(len(acknowledged)).encode())
            device.publish("tig/greenhouse/reading", acknowledged[-1])
        device.close()

    publish()
    for declared in (
        [*accounts, mats],
        None,
        [*accounts, {**mats, "password": "another one"}],
        [*accounts, mats, {**mats, "name": "more"}],
        accounts,
    ):
        if declared is None:
            phone = client("mats", "mats", version=mqtt.MQTTv5, client_id="phone", expiry=86400)
            phone.subscribe("tig/+/reading")
            phone.close()
            host.run_expect([0], "systemctl restart mosquitto")
        else:
            assert converge(mosquitto_accounts=declared).returncode == 0
        publish()
    back = client("reader", client_id="reader-away", persistent=True)
    assert [back.next()[1] for _ in acknowledged] == acknowledged
    # The account mats is gone, and what it has left with it.
    log = host.run("journalctl --unit=mosquitto --no-pager").stdout
    assert "removed the session phone of mats, which is not an account" in log
    assert "Expiring client" not in log
    assert " changed=0 " in converge().stdout


def test_a_subscription_is_removed_with_the_read_access(host, client, converge, accounts):
    away = client("reader", client_id="reader-away", persistent=True)
    away.subscribe("tig/+/status")
    away.close()
    reader = {**accounts[1], "topics": [topic for topic in accounts[1]["topics"] if "status" not in topic["topic"]]}
    assert converge(mosquitto_accounts=[accounts[0], reader]).returncode == 0
    assert (
        "removed the subscription of session reader-away to tig/+/status" in host.run("journalctl -u mosquitto").stdout
    )
    assert converge().returncode == 0


def test_a_service_that_does_not_stay_up_fails_the_role(fails_to_start):
    fails_to_start("mosquitto")
