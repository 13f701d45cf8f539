"""The installed collection alone: a reading goes from the broker through Telegraf to the database."""

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


def test_ansible_has_the_installed_collection_and_no_other():
    ansible_galaxy = ["ansible-galaxy", "collection", "list", "--format=json"]
    listed = json.loads(subprocess.run(ansible_galaxy, capture_output=True, text=True, check=True).stdout)
    project = pathlib.Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"], "project/collections/ansible_collections")
    found = {(path, name) for path, collections in listed.items() for name in collections}
    # ansible-core lists one of its own.
    assert {(path, name) for path, name in found if not name.startswith("ansible._")} == {
        (str(project), "tig_pi.stack")
    }
    assert not (project / "tig_pi/stack").is_symlink()


def test_a_reading_reaches_the_database(pi, secret):
    auth = {"username": "greenhouse", "password": secret("mosquitto/greenhouse")}
    payload = json.dumps({"temperature": 21.5})
    paho.mqtt.publish.single(
        "home/greenhouse/reading", payload, qos=1, hostname=pi.address, port=pi.port(1883), auth=auth
    )
    query = urllib.parse.urlencode({"db": "home", "q": "SELECT last(temperature) FROM mqtt_consumer"})
    request = urllib.request.Request(f"http://{pi.address}:{pi.port(8086)}/query?{query}")
    token = base64.b64encode(f"admin:{secret('influxdb/admin')}".encode()).decode()
    request.add_header("Authorization", f"Basic {token}")
    end = time.monotonic() + 60
    while True:
        with urllib.request.urlopen(request, timeout=10) as response:
            answer = json.load(response)
        if "series" in answer["results"][0]:
            break
        assert time.monotonic() < end, answer
        time.sleep(1)
    assert answer["results"][0]["series"][0]["values"][0][1] == 21.5
