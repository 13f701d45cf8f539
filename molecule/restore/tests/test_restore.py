"""The card dies: a new Pi has the same readings, dashboards, flows and retained messages, and those that arrived meanwhile."""

from __future__ import annotations

import base64
import json
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[3]
testinfra_hosts = ["ansible://servers"]

FIRST, COUNT = 1704060000, 2000  # readings of a device, one each 15 s


@pytest.fixture(scope="module")
def secret(inventory):
    return lambda name: (inventory / "secrets" / name).read_text().strip()


class Site:
    """The site as a client in the house sees it. The Pi may be another one than before."""

    def __init__(self, secret, state: Path) -> None:
        self.secret, self.state = secret, state

    @property
    def pi(self) -> dict:
        return json.loads((self.state / "pi.json").read_text())

    def publish(self, topic: str, *messages: str, account: str = "matslopy4", retain: bool = False) -> None:
        command = [
            "mosquitto_pub",
            "-h",
            self.pi["address"],
            "-p",
            str(self.pi["ports"]["1883"]),
            "-t",
            topic,
            "-q",
            "1",
        ]
        command += ["-u", account, "-P", self.secret(f"mosquitto/{account}"), "-s" if retain else "-l"]
        command += ["-r"] if retain else []
        subprocess.run(command, input="\n".join(messages), text=True, check=True, timeout=120)

    def retained(self, topic: str) -> str:
        command = ["mosquitto_sub", "-h", self.pi["address"], "-p", str(self.pi["ports"]["1883"]), "-t", topic]
        command += ["-u", "mats", "-P", self.secret("mosquitto/mats"), "-C", "1", "-W", "10", "--retained-only"]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30).stdout.strip()

    def request(self, port: int, path: str, data=None, **headers: str):
        """The JSON that a service answers."""
        if data is not None and not isinstance(data, bytes):
            data, headers = json.dumps(data).encode(), {**headers, "Content-Type": "application/json"}
        url = f"http://{self.pi['address']}:{self.pi['ports'][str(port)]}{path}"
        with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=30) as answer:
            return json.loads(answer.read() or b"null")

    def grafana(self, path: str, data=None):
        login = base64.b64encode(f"admin:{self.secret('grafana/admin')}".encode()).decode()
        return self.request(3000, path, data, Authorization=f"Basic {login}")

    def readings(self, where: str, wanted: int, seconds: float = 60) -> list[tuple]:
        """Time and value of the device's readings, as soon as there are as many as wanted."""
        query = f"SELECT outsidetemp FROM mqtt_consumer WHERE device = 'matslopy4' AND {where}"
        body = {
            "refId": "A",
            "datasource": {"uid": "influx"},
            "rawQuery": True,
            "resultFormat": "table",
            "query": query,
        }
        end = time.monotonic() + seconds
        found: list[tuple] = []
        while time.monotonic() < end:
            answer = self.grafana("/api/ds/query", {"from": "0", "to": "now", "queries": [body]})
            frames = answer["results"]["A"].get("frames", [])
            found = [row for frame in frames for row in zip(*frame["data"]["values"], strict=True)]
            if len(found) >= wanted:
                break
            time.sleep(0.5)
        return [(int(moment) // 1000, value) for moment, value in found]

    @property
    def node_red_login(self) -> dict[str, str]:
        form = {"client_id": "node-red-admin", "grant_type": "password", "scope": "*", "username": "admin"}
        form["password"] = self.secret("node_red/admin")
        token = self.request(1880, "/auth/token", urllib.parse.urlencode(form).encode())["access_token"]
        return {"Authorization": f"Bearer {token}"}

    def flows(self) -> list[dict]:
        return self.request(1880, "/flows", **self.node_red_login)

    def add_to_flows(self, *nodes: dict) -> None:
        headers = {**self.node_red_login, "Node-RED-Deployment-Type": "full"}
        body = json.dumps([*self.flows(), *nodes]).encode()
        url = f"http://{self.pi['address']}:{self.pi['ports']['1880']}/flows"
        request = urllib.request.Request(url, body, {**headers, "Content-Type": "application/json"})
        urllib.request.urlopen(request, timeout=30).close()


@pytest.fixture(scope="module")
def site(secret, inventory):
    return Site(secret, inventory.parent / "pis")


def reading(moment: int, value: float) -> str:
    return json.dumps({"outsidetemp": value, "time": moment})


def of(first: int, count: int) -> list[tuple]:
    return [(first + 15 * number, 10 + number % 100 / 10) for number in range(count)]


OWN_TAB = {"id": "0123456789abcdef", "type": "tab", "label": "My own flow"}
OWN_NODE = {
    "id": "0123456789abcdee",
    "type": "comment",
    "z": OWN_TAB["id"],
    "name": "made by hand",
    "info": "",
    "x": 100,
    "y": 100,
    "wires": [],
}
DURING, AFTER, MEANWHILE = FIRST + 10**6, FIRST + 2 * 10**6, FIRST + 3 * 10**6


def new_pi(inventory: Path) -> None:
    """Destroy the Pi, and put a blank one in its place."""
    state = inventory.parent / "pis"
    pi = json.loads((state / "pi.json").read_text())
    command = [PROJECT / "virtual/pi/pi.py"]
    subprocess.run([*command, "down", pi["name"]], check=True)
    publish = [f"--publish={port}" for port in ("1883", "3000", "1880")]
    options = ["--alias=pi", "--hostname=pi", f"--state={state}", f"--release={pi['release']}", *publish]
    subprocess.run([*command, "up", pi["name"], *options], check=True)


def test_a_new_pi_gets_everything_back(site, playbook, inventory):
    site.publish("tig/matslopy4/reading", *(reading(*one) for one in of(FIRST, COUNT)))
    site.publish("tig/matslopy4/status", '{"state": "online", "uptime": 7}', retain=True)
    site.grafana("/api/dashboards/db", {"dashboard": {"uid": "own", "title": "Made by hand", "panels": []}})
    site.add_to_flows(OWN_TAB, OWN_NODE)
    assert len(site.readings(f"time < {FIRST + 10**6}s", COUNT)) == COUNT

    # Readings flow during the backup. Those that it has are those that were stored when it began.
    is_done = threading.Event()
    sent = of(DURING, 5000)

    def flow() -> None:
        for start in range(0, len(sent), 50):
            site.publish("tig/matslopy4/reading", *(reading(*one) for one in sent[start : start + 50]))
            if is_done.wait(0.3):
                return

    thread = threading.Thread(target=flow)
    thread.start()
    backup = playbook("backup.yml")
    is_done.set()
    thread.join()
    assert backup.returncode == 0, backup.stdout + backup.stderr
    assert "attic: last backup" in backup.stdout
    site.publish("tig/matslopy4/reading", *(reading(*one) for one in of(AFTER, 20)))

    new_pi(inventory)
    converge = playbook("site.yml")
    assert converge.returncode == 0, converge.stdout + converge.stderr
    site.publish("tig/matslopy4/reading", *(reading(*one) for one in of(MEANWHILE, 30)))
    assert len(site.readings(f"time >= {MEANWHILE}s", 30)) == 30
    # There is no device that could send its readings again; scenario rebuild has one.
    restore = playbook("restore.yml", "--extra-vars=restore_consent=true", "--extra-vars=replay_timeout=2")
    assert restore.returncode == 0, restore.stdout + restore.stderr

    assert site.readings(f"time < {FIRST + 10**6}s", COUNT) == of(FIRST, COUNT)
    assert site.readings(f"time >= {MEANWHILE}s", 30) == of(MEANWHILE, 30)
    during = site.readings(f"time >= {DURING}s AND time < {AFTER}s", 1)
    assert during
    assert during == sent[: len(during)]
    assert site.grafana("/api/dashboards/uid/own")["dashboard"]["title"] == "Made by hand"
    flows = {node["id"]: node for node in site.flows()}
    assert flows[OWN_NODE["id"]]["name"] == "made by hand"
    assert json.loads(site.retained("tig/matslopy4/status"))["uptime"] == 7
    # Readings are stored as before.
    site.publish("tig/matslopy4/reading", reading(MEANWHILE + 10**6, 1.5))
    assert site.readings(f"time >= {MEANWHILE + 10**6}s", 1) == [(MEANWHILE + 10**6, 1.5)]


def test_nothing_is_restored_without_consent(playbook, host):
    before = host.check_output("find /var/lib/tig-pi/backup -maxdepth 1 -name 'before-restore-*' | wc -l")
    refused = playbook("restore.yml")
    assert refused.returncode != 0
    assert "Nothing was restored" in refused.stdout
    assert host.check_output("find /var/lib/tig-pi/backup -maxdepth 1 -name 'before-restore-*' | wc -l") == before


def test_a_damaged_archive_is_refused_before_anything_is_stopped(playbook, host):
    assert playbook("backup.yml").returncode == 0
    packs = "find /srv/backup/tig-pi/pi/data -type f -size +20k"
    attic = host.get_host("ansible://attic", ansible_inventory=host.backend.ansible_inventory)
    for pack in attic.check_output(f"sudo {packs}").split():
        attic.run_expect([0], f"sudo dd if=/dev/urandom of={pack} bs=1 count=64 seek=5000 conv=notrunc")
    started = host.check_output(
        "systemctl show --property=ActiveEnterTimestamp grafana-server mosquitto node-red influxdb"
    )
    refused = playbook("restore.yml", "--extra-vars=restore_consent=true")
    assert refused.returncode != 0
    assert "damaged" in refused.stdout
    assert "the one before it is" in " ".join(refused.stdout.split())
    assert (
        host.check_output("systemctl show --property=ActiveEnterTimestamp grafana-server mosquitto node-red influxdb")
        == started
    )
    failed = playbook("backup.yml")
    assert failed.returncode != 0
    assert "attic" in failed.stdout
    assert json.loads(host.file("/var/lib/tig-pi/backup/status.json").content_string)[0]["problem"] == "damaged"
