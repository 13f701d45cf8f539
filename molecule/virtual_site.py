"""A site of one virtual Pi, as a client in the house sees it. The Pi may be replaced by a blank one, and boot with a card."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import shlex
import shutil
import subprocess
import tarfile
import time
import urllib.parse
import urllib.request
from pathlib import Path

import blank_card

PROJECT = Path(__file__).resolve().parent.parent
# A part of a script for `boot_with`: removes the route to other networks at each boot.
ISOLATE = """cat >/etc/systemd/system/isolate.service <<'END'
[Unit]
DefaultDependencies=no
Before=sysinit.target
[Service]
Type=oneshot
ExecStart=ip route replace unreachable default metric 0
[Install]
WantedBy=sysinit.target
END
systemctl enable isolate.service"""


def on_the_pi(state: Path, name: str, script: str, data: bytes = b"") -> bytes:
    """What a shell script prints that root runs on a Pi."""
    command = ["ssh", "-F", state / "ssh_config", name, "sudo sh -euc " + shlex.quote(script)]
    return subprocess.run(command, input=data, stdout=subprocess.PIPE, check=True).stdout


def boot_with(state: Path, name: str, card: Path, secret_files: tuple[str, ...] = (), then: str = ":") -> None:
    """A Pi gets the card's files as its boot partition, forgets what only the tests gave it, and boots."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for file, content in blank_card.read(card).items():
            member = tarfile.TarInfo(file)
            member.size, member.mode = len(content), 0o755  # as FAT has it
            tar.addfile(member, io.BytesIO(content))
    blank = f"""tar --extract --directory=/boot/firmware --no-same-owner
    mkdir /root/overwritten
    for file in {" ".join(secret_files)}; do ln /boot/firmware/$file /root/overwritten/; done
    userdel --force --remove pi 2>/dev/null || :
    rm -f /etc/sudoers.d/* /etc/ssh/ssh_host_*
    if getent passwd pi; then exit 1; fi
    {then}"""
    on_the_pi(state, name, blank, packed.getvalue())
    subprocess.run([PROJECT / "virtual/pi/pi.py", "reboot", name], check=True)


class Site:
    def __init__(self, inventory: Path) -> None:
        self.inventory, self.state = inventory, inventory.parent / "pis"

    def secret(self, name: str) -> str:
        return (self.inventory / "secrets" / name).read_text().strip()

    @property
    def pi(self) -> dict:
        return json.loads((self.state / "pi.json").read_text())

    def replace_pi(self, release: str = "") -> None:
        """Destroy the Pi, and create a blank one with its name, its published ports, and its release or another one."""
        pi = self.pi
        subprocess.run([PROJECT / "virtual/pi/pi.py", "down", pi["name"]], check=True)
        publish = [f"--publish={port}:{guest}" for guest, port in pi["ports"].items() if guest != "22"]
        options = [
            "--alias=pi",
            "--hostname=pi",
            f"--state={self.state}",
            f"--release={release or pi['release']}",
            *publish,
        ]
        subprocess.run([PROJECT / "virtual/pi/pi.py", "up", pi["name"], *options], check=True)

    def stick(self) -> bytes:
        """The backups on the USB stick, packed."""
        return on_the_pi(self.state, self.pi["name"], "tar --create --directory=/media/stick backups")

    def fill_stick(self, backups: bytes) -> None:
        """Write packed backups to the USB stick of a blank Pi, which is not plugged in, beside the feed of the scenario."""
        feed = self.inventory.parent / "feed"
        shutil.copytree(feed, self.state / ".boot-pi/stick/feed", copy_function=os.link)
        on_the_pi(self.state, self.pi["name"], "tar --extract --directory=/run/host/pi/stick", backups)

    def page(self, until: str, seconds: float = 500) -> str:
        """The page that the Pi shows while it sets itself up, as soon as it has a text."""
        shown, end = "", time.monotonic() + seconds
        url = f"http://{self.pi['address']}:{self.pi['ports']['80']}/"
        while until not in shown and time.monotonic() < end:
            with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=10) as answer:
                shown = answer.read().decode()
            time.sleep(0.5)
        return shown

    def publish(self, topic: str, *messages: str, account: str = "matslopy4", retain: bool = False) -> None:
        """Publish messages; one that is retained may have several lines."""
        command = ["mosquitto_pub", *self._login(account), "-t", topic, "-q", "1", "-s" if retain else "-l"]
        command += ["-r"] if retain else []
        subprocess.run(command, input="\n".join(messages), text=True, check=True, timeout=120)

    def retained(self, topic: str) -> str:
        command = ["mosquitto_sub", *self._login("node_red"), "-t", topic, "-C", "1", "-W", "10", "--retained-only"]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30).stdout.strip()

    def _login(self, account: str) -> list[str]:
        pi = self.pi
        broker = ["-h", pi["address"], "-p", str(pi["ports"]["1883"])]
        return [*broker, "-u", account, "-P", self.secret(f"mosquitto/{account}")]

    def request(self, port: int, path: str, data=None, **headers: str):
        """The JSON that a service answers."""
        if data is not None and not isinstance(data, bytes):
            data, headers = json.dumps(data).encode(), {**headers, "Content-Type": "application/json"}
        url = f"http://{self.pi['address']}:{self.pi['ports'][str(port)]}{path}"
        with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=30) as answer:
            return json.loads(answer.read() or b"null")

    def grafana(self, path: str, data=None, login: tuple[str, str] | None = None):
        """The JSON that Grafana answers, to the administrator by default."""
        user, password = login or ("admin", self.secret("grafana/admin"))
        credentials = base64.b64encode(f"{user}:{password}".encode()).decode()
        return self.request(3000, path, data, Authorization=f"Basic {credentials}")

    def alerts(self) -> dict[str, str]:
        """The state of each alert rule, by title."""
        groups = self.grafana("/api/prometheus/grafana/api/v1/rules")["data"]["groups"]
        return {rule["name"]: rule["state"] for group in groups for rule in group["rules"]}

    def rows(self, query: str) -> list[tuple]:
        """The rows that Grafana gets for a query, the time in milliseconds."""
        body = {
            "refId": "A",
            "datasource": {"uid": "influx"},
            "rawQuery": True,
            "resultFormat": "table",
            "query": query,
        }
        answer = self.grafana("/api/ds/query", {"from": "0", "to": "now", "queries": [body]})
        frames = answer["results"]["A"].get("frames", [])
        return [row for frame in frames for row in zip(*frame["data"]["values"], strict=True)]

    def readings(self, where: str, wanted: int, seconds: float = 60) -> list[tuple]:
        """Time and value of the readings of matslopy4, as soon as there are as many as wanted."""
        end = time.monotonic() + seconds
        found: list[tuple] = []
        while time.monotonic() < end and len(found) < max(wanted, 1):
            found = self.rows(f"SELECT outsidetemp FROM mqtt_consumer WHERE device = 'matslopy4' AND {where}")
            time.sleep(0 if len(found) >= wanted else 0.5)
        return [(int(moment) // 1000, value) for moment, value in found]

    @property
    def _node_red_login(self) -> dict[str, str]:
        form = {"client_id": "node-red-admin", "grant_type": "password", "scope": "*", "username": "admin"}
        form["password"] = self.secret("node_red/admin")
        token = self.request(1880, "/auth/token", urllib.parse.urlencode(form).encode())["access_token"]
        return {"Authorization": f"Bearer {token}"}

    def flows(self) -> list[dict]:
        return self.request(1880, "/flows", **self._node_red_login)

    def add_to_flows(self, *nodes: dict) -> None:
        headers = {**self._node_red_login, "Node-RED-Deployment-Type": "full"}
        body = json.dumps([*self.flows(), *nodes]).encode()
        url = f"http://{self.pi['address']}:{self.pi['ports']['1880']}/flows"
        request = urllib.request.Request(url, body, {**headers, "Content-Type": "application/json"})
        urllib.request.urlopen(request, timeout=30).close()
