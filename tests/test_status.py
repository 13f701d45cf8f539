"""What `make status` says of a site: the rows of its devices, and the whole as text."""

from __future__ import annotations

import http.server
import importlib.util
import json
import os
import subprocess
import threading

import pytest
import yaml
from chain import free_port
from conftest import REPOSITORY

spec = importlib.util.spec_from_file_location("status_filters", REPOSITORY / "plugins/filter/status.py")
status = importlib.util.module_from_spec(spec)
spec.loader.exec_module(status)


FUNCTIONS = ("brokers", "databases", "collectors", "dashboards", "flows")


def series(device, at, **values):
    """The last point of a device as the database has it; what other points hold is there, too, as null."""
    return {
        "tags": {"device": device},
        "columns": ["time", "altitude", *values],
        "values": [[at, None, *values.values()]],
    }


def test_what_nobody_declared_is_listed_while_it_sends():
    readings = [series(name, at, outsidetemp=21.5) for name, at in (("guest", 99_000), ("gone", 1_000), ("new", 1_000))]
    states = status.device_states(
        [{"name": "new"}, {"name": "newer"}], [{"statement_id": 0, "series": readings}], 100_000
    )
    assert [(one["name"], one["age"]) for one in states] == [("new", 99_000), ("newer", None), ("guest", 1_000)]
    assert states[0]["reading"] == {"outsidetemp": 21.5}


def test_a_point_of_the_tutorial_has_no_device_and_its_tags_are_no_readings():
    """Its Telegraf tagged each point with `host` and `topic`, and with nothing else."""
    last = series("", 99_990, host="raspberrypi", outsidetemp=25, topic="mats/test", wet=True)
    (row,) = status.device_states([], [{"statement_id": 0, "series": [last]}], 100_000)
    assert row["name"] == ""
    assert row["reading"] == {"outsidetemp": 25}
    assert words(status.status_text({"services": [], "devices": [row], "notes": []}))[-1] == [
        "(no device)",
        "unknown",
        "10 s ago",
        "outsidetemp=25",
    ]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, "never"),
        (0, "0 s ago"),
        (119, "119 s ago"),
        (120, "2 min ago"),
        (7200, "2 h ago"),
        (200_000, "2 d ago"),
    ],
)
def test_an_age_is_said_in_the_largest_unit_of_which_there_are_two(seconds, said):
    assert status.age(seconds) == said


def words(text):
    """The cells of each line; two blanks or more are between them."""
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in text.splitlines() if line]


def test_the_whole_as_text():
    device = {"name": "greenhouse", "state": "online", "waiting_for": "sensor", "failed": "dht11", "age": 5}
    service = {
        "name": "Grafana",
        "state": "runs",
        "address": "http://pi:3000",
        "account": "admin",
        "password": "secrets/a",
    }
    text = status.status_text(
        {
            "services": [service],
            "devices": [device | {"reading": {"light": 1000.5, "airpressure": 1013.25}}],
            "notes": ["One.", "Two."],
        }
    )
    assert text == (
        "SERVICE  STATE  ADDRESS         ACCOUNT  PASSWORD IN\n"
        "Grafana  runs   http://pi:3000  admin    secrets/a\n"
        "\n"
        "DEVICE      STATE                  WAITS FOR  LAST READING\n"
        "greenhouse  online, failed: dht11  sensor     5 s ago       airpressure=1013.25 light=1000.5\n"
        "\n"
        "* One.\n"
        "* Two."
    )


class Services(http.server.BaseHTTPRequestHandler):
    """Grafana and Node-RED, as far as they are asked."""

    def do_GET(self):
        body = json.dumps({"version": "12.0.0-stand-in"}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """What bin/status says of a site on this machine, with a proxy in the environment that nobody answers at."""
    inventory = tmp_path_factory.mktemp("site")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Services) as server:
        threading.Thread(target=server.serve_forever).start()
        pi = {
            "ansible_connection": "local",
            "grafana_http_port": server.server_port,
            "node_red_http_port": server.server_port,
            "mosquitto_listeners": [{"port": free_port()}],
        }
        functions = {name: {"hosts": {"pi": None}} for name in FUNCTIONS}
        (inventory / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": {"pi": pi}, "children": functions}}))
        proxy = f"http://127.0.0.1:{free_port()}"
        result = subprocess.run(
            [REPOSITORY / "bin/status", inventory, "--ask-become-pass"],
            cwd=REPOSITORY,
            env={**os.environ, "http_proxy": proxy, "HTTP_PROXY": proxy, "no_proxy": ""},
            input="sesame\n",
            start_new_session=True,  # without a terminal the password is read from the input
            capture_output=True,
            text=True,
            check=False,
        )
        server.shutdown()
    assert result.returncode == 0, result.stdout + result.stderr
    return result


def services(said):
    """The state of each service."""
    return {cells[0]: cells[1] for cells in words(said.stdout.partition("\n\n")[0])}


def test_a_proxy_in_the_environment_is_not_asked(said):
    states = services(said)
    assert (states["Grafana"], states["Node-RED"]) == ("runs", "runs")


def test_a_service_that_does_not_answer_is_said_to_be_so(said):
    states = services(said)
    assert states["Telegraf"] == "does not run"
    assert "refused" in states["Mosquitto"]


def test_what_is_not_as_in_life_and_what_is_not_set_is_said_at_the_end(said):
    assert said.stdout.splitlines()[-2:] == [
        "* Grafana is a stand-in: it answers and alerts as Grafana does, and has no pages to look at.",
        "* Nobody is told of alerts: site_contact_point is not set.",
    ]


def test_passwords_are_asked_for(said):
    assert "BECOME password" in said.stderr
