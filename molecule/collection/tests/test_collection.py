"""The installed collection alone: a reading goes from the broker through Telegraf and the database to Grafana."""

from __future__ import annotations

import base64
import json
import os
import pathlib
import subprocess
import time
import urllib.parse
import urllib.request

import paho.mqtt.publish
import pytest


@pytest.fixture
def secret(inventory):
    return lambda name: (inventory / "secrets" / name).read_text().strip()


def answer(url: str, account: str = "", data: bytes | None = None):
    """The answer of a service, from JSON, to a request with an account (name:password)."""
    request = urllib.request.Request(url, data)
    if account:
        request.add_header("Authorization", f"Basic {base64.b64encode(account.encode()).decode()}")
    if data and data.startswith(b"{"):
        request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=10) as response:
        return json.load(response)


def test_ansible_has_the_installed_collections_and_no_others():
    ansible_galaxy = ["ansible-galaxy", "collection", "list", "--format=json"]
    listed = json.loads(subprocess.run(ansible_galaxy, capture_output=True, text=True, check=True).stdout)
    project = pathlib.Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"], "project/collections/ansible_collections")
    found = {(path, name) for path, collections in listed.items() for name in collections}
    # ansible-core lists one of its own.
    assert {(path, name) for path, name in found if not name.startswith("ansible._")} == {
        (str(project), "community.general"),
        (str(project), "tig_pi.stack"),
    }
    assert not (project / "tig_pi/stack").is_symlink()


def test_the_time_zone_is_set(host):
    assert host.check_output("date --date=2026-07-01T12:00Z +%z") == "+0200"


def test_a_reading_reaches_the_database_and_grafana(pi, secret):
    auth = {"username": "greenhouse", "password": secret("mosquitto/greenhouse")}
    payload = json.dumps({"temperature": 21.5})
    paho.mqtt.publish.single(
        "home/greenhouse/reading", payload, qos=1, hostname=pi.address, port=pi.port(1883), auth=auth
    )
    statement = "SELECT last(temperature) FROM mqtt_consumer"
    url = f"http://{pi.address}:{pi.port(8086)}/query?{urllib.parse.urlencode({'db': 'home', 'q': statement})}"
    end = time.monotonic() + 60
    while "series" not in (found := answer(url, f"admin:{secret('influxdb/admin')}")["results"][0]):
        assert time.monotonic() < end, found
        time.sleep(1)
    assert found["series"][0]["values"][0][1] == 21.5

    query = {"refId": "A", "datasource": {"uid": "home"}, "rawQuery": True, "resultFormat": "table", "query": statement}
    body = json.dumps({"from": "now-5m", "to": "now", "queries": [query]}).encode()
    url = f"http://{pi.address}:{pi.port(3000)}/api/ds/query"
    [frame] = answer(url, f"admin:{secret('grafana/admin')}", body)["results"]["A"]["frames"]
    assert frame["data"]["values"][-1] == [21.5]


def test_the_administrator_of_node_red_can_log_in(pi, secret):
    form = {"client_id": "node-red-admin", "grant_type": "password", "scope": "*"}
    form |= {"username": "admin", "password": secret("node_red/admin")}
    url = f"http://{pi.address}:{pi.port(1880)}/auth/token"
    assert answer(url, data=urllib.parse.urlencode(form).encode())["access_token"]
