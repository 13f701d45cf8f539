"""What the README guarantees ("What is guaranteed"): count the stored readings while services fail under load at QoS 1."""

from __future__ import annotations

import json
import threading
import time

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

testinfra_hosts = ["ansible://servers"]

RATE = 20  # readings a second
START = 1704067200  # 2024-01-01: every reading has a second of its own
# Seconds before the broker is killed in which acknowledged readings may be lost. Telegraf writes once a second; the rest is
# for a busy machine.
GRACE = 10


class Load:
    """A device that publishes continuously and records when each reading was acknowledged."""

    def __init__(self, pi, account, password, device):
        self.device = device
        self.acknowledged = {}
        self.sent = 0
        self.stopping = threading.Event()
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=f"load-{device}")
        self.client.username_pw_set(account, password)
        self.client.reconnect_delay_set(1, 2)
        self.client.on_publish = self.on_publish
        self.client.connect(pi.address, pi.port(1883))
        self.client.loop_start()
        self.thread = threading.Thread(target=self.publish)
        self.thread.start()

    def on_publish(self, _client, _userdata, identifier, _reason, _properties):
        self.acknowledged[identifier - 1] = time.time()  # the client counts its packets from 1

    def publish(self):
        while not self.stopping.wait(1 / RATE):
            message = json.dumps({"device": self.device, "number": self.sent, "time": START + self.sent})
            self.client.publish("mats/test", message, qos=1)
            self.sent += 1

    def stop(self, seconds=60):
        """Stop when every reading has been acknowledged."""
        self.stopping.set()
        self.thread.join()
        end = time.monotonic() + seconds
        while len(self.acknowledged) < self.sent and time.monotonic() < end:
            time.sleep(0.2)
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture
def load(pis, secret):
    running = []

    def start(device):
        running.append(Load(pis["pi"], "mats", secret("mosquitto/mats"), device))
        return running[-1]

    yield start
    for one in running:
        one.stop(0)


def stored(influxql, device, wanted, seconds=90):
    """The numbers of the stored readings, as soon as all that are wanted are stored or the time is up."""
    found = set()
    end = time.monotonic() + seconds
    while time.monotonic() < end and not wanted <= found:
        time.sleep(1)
        answer = influxql(f"""SELECT "number" FROM "mqtt_consumer" WHERE "device" = '{device}'""")
        series = answer["results"][0].get("series", [{"values": []}])
        found = {int(number) for _, number in series[0]["values"]}
    return found


def test_no_reading_is_lost_while_a_service_is_down(host, influxql, load):
    """Each is stopped, restarted or killed, except that the broker is not killed: the next test does that."""
    device = load("outages")
    for command in (
        "systemctl restart mosquitto",
        "systemctl stop telegraf && sleep 4 && systemctl start telegraf",
        "systemctl kill --signal=KILL telegraf",
        "systemctl stop influxdb && sleep 4 && systemctl start influxdb",
        "systemctl kill --signal=KILL influxdb",
        "systemctl stop mosquitto && sleep 4 && systemctl start mosquitto",
    ):
        host.run_expect([0], command)
        time.sleep(3)
    device.stop()
    wanted = set(device.acknowledged)
    assert len(wanted) > 300
    lost = wanted - stored(influxql, "outages", wanted)
    assert lost == set()


@pytest.mark.parametrize("what", ["broker killed", "power cut"])
def test_a_killed_broker_or_a_power_cut_loses_only_the_last_seconds(host, pis, influxql, load, what):
    device = load(what.replace(" ", "-"))
    time.sleep(GRACE + 10)
    cut = time.time()
    if what == "power cut":
        pis["pi"].power_cut()
    else:
        host.run_expect([0], "systemctl kill --signal=KILL mosquitto")
    time.sleep(10)
    device.stop()
    guaranteed = {number for number, at in device.acknowledged.items() if not cut - GRACE <= at <= cut + 1}
    assert len([number for number, at in device.acknowledged.items() if at < cut - GRACE]) > 50
    lost = guaranteed - stored(influxql, device.device, guaranteed)
    assert lost == set()
