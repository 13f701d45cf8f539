"""Module device_command: against a real Mosquitto, with a real device and with one that behaves as the test says."""

from __future__ import annotations

import json
import queue
import threading
import time

import paho.mqtt.client as mqtt
import pytest
from firmware.network import NAME, SECRETS, Broker, Device, Listener, TimeServer, until
from project import load

MODULE = load("plugins/modules/device_command.py")
TOPICS = {branch: f"tig/{NAME}/{branch}" for branch in ("command", "answer", "status")}


class Failed(Exception):
    pass


class Module:
    """What the module gets from Ansible."""

    def __init__(self, **params):
        self.params = params

    def fail_json(self, msg):
        raise Failed(msg)


def requests(broker: Broker, *asked: dict, **more) -> dict:
    defaults = {"timeout": 20, "silence": 20, "password": "operator", "port": broker.port}
    known = {"host": "127.0.0.1", "username": "operator", "client_id": "operator", "requests": asked}
    return MODULE.Requests(Module(**{**defaults, **known, **more})).run()


def request(broker: Broker, command: dict, id: str = "one", **more) -> dict:
    return requests(broker, {"device": NAME, "topics": TOPICS, "command": command, "id": id}, **more)[NAME]


@pytest.fixture
def broker(tmp_path):
    broker = Broker(tmp_path / "broker")
    broker.start()
    yield broker
    broker.stop()


class Node:
    """A device without a program: it receives commands, and publishes what the test says."""

    def __init__(self, broker: Broker):
        self.commands: queue.Queue = queue.Queue()
        ready = threading.Event()
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=NAME, clean_session=False)
        self.client.username_pw_set(NAME, SECRETS[1])
        self.client.on_connect = lambda client, *_: client.subscribe(TOPICS["command"], qos=1)
        self.client.on_subscribe = lambda *_: ready.set()
        self.client.on_message = lambda _c, _u, message: self.commands.put(json.loads(message.payload))
        self.client.connect("127.0.0.1", broker.port)
        self.client.loop_start()
        assert ready.wait(10)

    def say(self, branch: str, message: dict | bytes) -> None:
        payload = message if isinstance(message, bytes) else json.dumps(message)
        self.client.publish(TOPICS[branch], payload, qos=1, retain=branch == "status").wait_for_publish(10)

    def status(self, **more) -> None:
        self.say("status", {"state": "online", "uptime": 5, "replaying": [], "kept_since": 1700000000, **more})

    def answer(self, state: str, **more) -> None:
        self.say("answer", {"id": "one", "do": "replay", "state": state, **more})

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture
def node(broker):
    node = Node(broker)
    yield node
    node.close()


class Running:
    """A request in a thread of its own."""

    def __init__(self, *arguments, **more):
        self.result: dict = {}
        self.thread = threading.Thread(target=lambda: self.result.update(request(*arguments, **more)))
        self.thread.start()

    def end(self) -> dict:
        self.thread.join(60)
        assert not self.thread.is_alive()
        return self.result


REPLAY = {"do": "replay", "since": 1700000000}


def test_a_device_sends_its_readings_again(broker, tmp_path):
    """It is started only after the request was sent: the broker does not know it yet, and keeps nothing for it."""
    clock = TimeServer()
    listener = Listener(broker)
    device = Device(tmp_path / "device", profile="pycom")
    device.settings(broker.port, clock.port)
    try:
        early = Running(broker, {"do": "replay", "since": 1}, timeout=60)
        time.sleep(1)
        device.start()
        result = early.end()
        assert (result["state"], result["command"]) == ("done", {"do": "replay", "since": 1})
        times = until(lambda: len(found := sorted({r["time"] for r in listener.readings})) >= 5 and found, 40)
        span = {"since": times[1], "until": times[3]}
        result = request(broker, {"do": "replay", **span}, id="two")
        assert (result["state"], result["answer"]["sent"]) == ("done", 3)
        assert result["status"]["kept_since"] == times[0]
        # The same request again is not carried out again.
        readings = len(listener.readings)
        assert request(broker, {"do": "replay", **span}, id="two")["answer"]["sent"] == 3
        until(lambda: len(listener.readings) >= readings + 3, 40)
        assert listener.duplicated() == 3 + early.result["answer"]["sent"]
        refused = request(broker, {"do": "explode"}, id="three")
        assert (refused["state"], refused["answer"]["reason"]) == ("refused", "unknown command")
    finally:
        device.close()
        listener.close()
        clock.close()


def test_a_device_that_has_forgotten_the_command_gets_it_again(broker, node):
    node.status()
    running = Running(broker, REPLAY)
    first = node.commands.get(timeout=10)
    node.answer("accepted")
    node.status(replaying=["one"])
    time.sleep(0.5)
    assert node.commands.empty()
    node.say("status", {"state": "offline"})
    time.sleep(0.5)
    assert node.commands.empty()
    node.status(uptime=1)
    assert node.commands.get(timeout=10) == first == {**REPLAY, "id": "one"}
    node.answer("accepted")
    node.answer("done", sent=7)
    result = running.end()
    assert (result["state"], result["answer"]["sent"]) == ("done", 7)


def test_only_answers_to_the_request_count(broker, node):
    running = Running(broker, REPLAY)
    node.commands.get(timeout=10)
    for nonsense in (b"", b"\xff", b"[]", b'{"id": "two", "state": "done"}', b'{"state": "done"}', b'"done"'):
        node.say("answer", nonsense)
    node.say("status", b"junk")
    node.say("status", b"[1]")
    node.answer("done", sent=1)
    assert running.end()["answer"]["sent"] == 1


def test_a_request_survives_a_restart_of_the_broker(broker, node):
    running = Running(broker, REPLAY, silence=60)
    node.commands.get(timeout=10)
    node.answer("accepted")
    time.sleep(0.5)
    broker.stop()
    broker.start()
    assert node.commands.get(timeout=30) == {**REPLAY, "id": "one"}
    node.answer("done", sent=2)
    assert running.end()["state"] == "done"


@pytest.mark.parametrize(
    ("status", "state"),
    [
        (None, "away"),
        ({"state": "offline"}, "away"),
        ({"state": "online", "uptime": 5, "replaying": []}, "away"),
        ({"state": "online", "uptime": 5}, "incapable"),
    ],
)
def test_a_device_that_does_not_answer(broker, node, status, state):
    if status:
        node.say("status", status)
    result = request(broker, REPLAY, timeout=2)
    assert (result["state"], result["answer"], result["status"]) == (state, {}, status or {})


def test_a_device_that_falls_silent(broker, node):
    running = Running(broker, REPLAY, silence=3)
    node.commands.get(timeout=10)
    node.answer("accepted")
    for _ in range(4):  # signs of life
        time.sleep(1.5)
        node.status(replaying=["one"])
    assert running.thread.is_alive()
    result = running.end()
    assert (result["state"], result["answer"]["state"]) == ("silent", "accepted")


def test_the_status_is_the_one_before_the_command(broker, node):
    """Its ring may need the space of the oldest readings while it sends them."""
    node.status(kept_since=5)
    running = Running(broker, REPLAY)
    node.commands.get(timeout=10)
    node.answer("accepted")
    node.status(kept_since=9, replaying=["one"])
    node.answer("done", sent=1)
    assert running.end()["status"]["kept_since"] == 5


def test_several_devices_are_asked_at_the_same_time(broker, node):
    """The one that does not answer is not waited for longer, because another is carrying out its request, nor the other way round."""
    away = {"device": "attic", "topics": {branch: f"tig/attic/{branch}" for branch in TOPICS}}
    known = {"device": NAME, "topics": TOPICS}
    results: dict = {}
    asked = ({**known, "command": REPLAY, "id": "one"}, {**away, "command": {"do": "replay", "since": 5}, "id": None})
    running = threading.Thread(target=lambda: results.update(requests(broker, *asked, timeout=3)))
    begun = time.monotonic()
    running.start()
    assert node.commands.get(timeout=10) == {**REPLAY, "id": "one"}
    node.answer("accepted")
    time.sleep(4)  # longer than the one that is away is waited for
    node.answer("done", sent=9)
    running.join(10)
    assert time.monotonic() - begun < 15
    assert (results[NAME]["state"], results[NAME]["answer"]["sent"], results[NAME]["seconds"]) == ("done", 9, 4)
    assert (results["attic"]["state"], results["attic"]["command"], results["attic"]["seconds"]) == (
        "away",
        {"do": "replay", "since": 5},
        3,
    )


def test_a_refusal_after_the_connection_broke_does_not_cost_the_results_that_are_known(broker, node):
    away = {"device": "attic", "topics": {branch: f"tig/attic/{branch}" for branch in TOPICS}}
    asked = [{"device": NAME, "topics": TOPICS, "id": "one"}, {**away, "id": "two"}]
    results: dict = {}
    running = threading.Thread(
        target=lambda: results.update(requests(broker, *({**one, "command": REPLAY} for one in asked), timeout=8))
    )
    running.start()
    node.commands.get(timeout=10)
    node.answer("done", sent=3)
    time.sleep(0.5)
    broker.account("operator", "another-password")
    broker.stop()
    broker.start()
    running.join(30)
    assert {device: result["state"] for device, result in results.items()} == {NAME: "done", "attic": "away"}


def test_an_account_that_the_broker_refuses(broker):
    with pytest.raises(Failed, match=r"refused operator at 127\.0\.0\.1") as failed:
        request(broker, REPLAY, password="wrong-password")
    assert "wrong-password" not in str(failed.value)


def test_a_broker_that_is_not_there(broker):
    broker.stop()
    with pytest.raises(Failed, match=r"Cannot connect to a broker at 127\.0\.0\.1"):
        request(broker, REPLAY)
