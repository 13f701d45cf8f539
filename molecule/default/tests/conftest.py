"""Fixtures for the whole stack as a client in the network sees it: publish at one end, query at the other."""

from __future__ import annotations

import base64
import json
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def project():
    return PROJECT


@pytest.fixture(scope="session")
def secret(inventory):
    return lambda name: (inventory / "secrets" / name).read_text().strip()


@pytest.fixture(scope="session")
def publish(pis, secret):
    """Publish with mosquitto_pub and an account of the site."""
    pi = pis["pi"]

    def run(topic, message, account="mats"):
        command = ["mosquitto_pub", "-h", pi.address, "-p", str(pi.port(1883)), "-t", topic, "-s", "-q", "1"]
        command += ["-u", account, "-P", secret(f"mosquitto/{account}")]
        subprocess.run(command, input=message, text=isinstance(message, str), check=True, timeout=30)

    return run


def request(url, *, data=None, login=None, headers=None):
    """The status and the JSON of a response, also of an error."""
    headers = dict(headers or {})
    if login:
        headers["Authorization"] = "Basic " + base64.b64encode(":".join(login).encode()).decode()
    if data is not None and not isinstance(data, bytes):
        data, headers["Content-Type"] = json.dumps(data).encode(), "application/json"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data=data, headers=headers), timeout=30) as response:
            return response.status, json.loads(response.read() or b"null")
    except urllib.error.HTTPError as error:
        return error.code, None


@pytest.fixture(scope="session")
def grafana(pis, secret):
    pi = pis["pi"]

    def call(path, data=None):
        status, answer = request(
            f"http://{pi.address}:{pi.port(3000)}{path}", data=data, login=("admin", secret("grafana/admin"))
        )
        assert status == 200, (path, status, answer)
        return answer

    return call


@pytest.fixture(scope="session")
def rows(grafana):
    """The rows that an InfluxQL query returns through Grafana: a list of {column: value}."""

    def query(influxql, wanted=1, seconds=30):
        body = {
            "refId": "A",
            "datasource": {"uid": "influx"},
            "rawQuery": True,
            "resultFormat": "table",
            "query": influxql,
        }
        found = []
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            answer = grafana("/api/ds/query", {"from": "0", "to": "now", "queries": [body]})
            found = []
            for frame in answer["results"]["A"]["frames"]:
                names = [field["name"] for field in frame["schema"]["fields"]]
                found += [
                    dict(zip(names, values, strict=True)) for values in zip(*frame["data"]["values"], strict=True)
                ]
            if len(found) >= wanted:
                break
            time.sleep(0.5)
        return found

    return query


@pytest.fixture
def influxql(host, secret):
    """Run an InfluxQL statement on the database's host, as one of its users; returns the response."""

    def ask(statement, user="grafana"):
        return json.loads(
            host.run_expect(
                [0],
                "curl -sS -u %s:%s --data-urlencode db=iot --data-urlencode q=%s http://127.0.0.1:8086/query",
                user,
                secret(f"influxdb/{user}"),
                statement,
            ).stdout
        )

    return ask
