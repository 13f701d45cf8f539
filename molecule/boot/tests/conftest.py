"""The power of the virtual machine, and what a client in the house sees of its readings."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import pathlib
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator

import paho.mqtt.client as mqtt
import pytest

PROJECT = pathlib.Path(__file__).resolve().parents[3]
EPHEMERAL = pathlib.Path(os.environ.get("MOLECULE_EPHEMERAL_DIRECTORY", "."))
INTERVAL = 0.1  # seconds between two readings
LOG = EPHEMERAL / "background.log"
sys.path.insert(0, str(PROJECT / "virtual/machine"))


class Power:
    """The power of the virtual machine."""

    def cut(self) -> None:
        self._command("cut")

    def on(self) -> None:
        self._command("on")

    @staticmethod
    def _command(verb: str) -> None:
        subprocess.run([PROJECT / "virtual/machine/machine.py", verb, EPHEMERAL / "pis"], check=True)


@pytest.fixture(scope="session")
def power() -> Power:
    return Power()


@pytest.fixture(scope="session")
def card() -> pathlib.Path:
    return EPHEMERAL / "pis/card.img"


@pytest.fixture
def playbook_in_background(inventory):
    """Start a playbook of the project, as `playbook` does."""
    started = []

    def start(name: str, *arguments: str) -> subprocess.Popen[bytes]:
        command = ["ansible-playbook", f"--inventory={inventory}", f"playbooks/{name}", *arguments]
        with LOG.open("wb") as log:
            run = subprocess.Popen(command, cwd=PROJECT, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        started.append(run)
        return run

    yield start
    for run in started:
        run.kill()
        run.wait()


@pytest.fixture
def dpkg_logs(pi):
    """Wait until dpkg's log, which may not exist yet, has a line with this text; a run that ends before that is an error."""

    def wait(text: str, run: subprocess.Popen[bytes]) -> None:
        follow = "sudo timeout 600 tail --follow=name --retry --lines=+1 /var/log/dpkg.log"
        command = ["ssh", "-F", EPHEMERAL / "pis/ssh_config", "-o", "ControlPath=none", pi.name, follow]
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
            threading.Thread(target=lambda: (run.wait(), process.kill()), daemon=True).start()
            is_there = any(text in line for line in process.stdout)
            process.kill()
        end = "\n".join(LOG.read_text(errors="replace").splitlines()[-40:])
        assert is_there, f"dpkg has not logged `{text}`, and the run {run.args} says:\n{end}"

    return wait


@pytest.fixture
def starts_as_before(host, power):
    """Switch the machine on after a power cut: the file system is repaired, and everything starts."""

    def check() -> None:
        power.on()
        messages = host.check_output("dmesg").splitlines()
        assert any("EXT4-fs (vda2): recovery complete" in line for line in messages)
        assert not [line for line in messages if "EXT4-fs error" in line or "EXT4-fs warning" in line]
        assert host.check_output("findmnt --noheadings --output=OPTIONS /").startswith("rw")
        assert host.check_output("systemctl --failed --quiet --no-legend") == ""

    return check


class Readings:
    """Readings of the device matslopy4, each with a number for its value, and a second of its own for its time."""

    def __init__(self, pi, inventory: pathlib.Path) -> None:
        self.pi, self.secrets = pi, inventory / "secrets"
        self.start = int(time.time()) - 3600
        self.sent: dict[int, int] = {}  # number by the message's id
        self.moments: dict[int, float] = {}  # when the broker acknowledged a message, by its id
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="matslopy4")
        self.client.on_publish = lambda _client, _data, mid, *_: self.moments.update({mid: time.time()})

    def connect(self) -> None:
        self.client.username_pw_set("matslopy4", (self.secrets / "mosquitto/matslopy4").read_text().strip())
        self.client.connect(self.pi.address, self.pi.port(1883))
        self.client.loop_start()

    def publish(self, number: int) -> None:
        message = {"device": "matslopy4", "outsidetemp": number, "time": self.start + number}
        self.sent[self.client.publish("tig/matslopy4/reading", json.dumps(message), qos=1).mid] = number

    @contextlib.contextmanager
    def arriving(self) -> Iterator[None]:
        """Publish a reading after the other, from another thread, until the block ends."""
        has_ended = threading.Event()

        def publish() -> None:
            while not has_ended.wait(INTERVAL):
                self.publish(len(self.sent))

        self.connect()
        thread = threading.Thread(target=publish)
        thread.start()
        try:
            yield
        finally:
            has_ended.set()
            thread.join()
            # Or it would connect again after a power cut, and send what was not acknowledged.
            self.client.disconnect()
            self.client.loop_stop()

    def acknowledged(self, until: float) -> set[int]:
        return {self.sent[mid] for mid, moment in self.moments.items() if moment < until}

    def last_acknowledgement(self) -> float:
        return max(self.moments.values(), default=0)

    def stored(self) -> set[int]:
        """The readings in the database, each with its time."""
        query = f"SELECT outsidetemp FROM mqtt_consumer WHERE device = 'matslopy4' AND time >= {self.start}s"
        parameters = urllib.parse.urlencode({"db": "iot", "epoch": "s", "q": query})
        request = urllib.request.Request(f"http://{self.pi.address}:{self.pi.port(8086)}/query?{parameters}")
        password = (self.secrets / "influxdb/admin").read_text().strip()
        request.add_header("Authorization", "Basic " + base64.b64encode(f"admin:{password}".encode()).decode())
        [result] = answer(request)["results"]
        rows = result["series"][0]["values"] if "series" in result else []
        assert all(moment - self.start == value for moment, value in rows)
        return {int(value) for _, value in rows}


def answer(request: urllib.request.Request) -> dict:
    """The database's answer; it may still be starting."""
    deadline = time.monotonic() + 120
    while True:
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return json.load(response)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(1)


@pytest.fixture
def readings(pi, inventory) -> Readings:
    return Readings(pi, inventory)
