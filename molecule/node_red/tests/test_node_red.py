"""Node-RED as its users see it: over HTTP from outside, and over MQTT from a broker on the Pi."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

import pytest

VERSION = {"Node-RED-API-Version": "v2"}


class Editor:
    """The admin API, as the editor uses it."""

    def __init__(self, url: str, password: str) -> None:
        self.url = url
        self.password = password

    def request(self, path: str, data: bytes | None = None, headers: dict | None = None) -> tuple[int, bytes]:
        request = urllib.request.Request(self.url + path, data, headers or {})
        try:
            with urllib.request.urlopen(request, timeout=20) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def log_in(self, password: str) -> tuple[int, str]:
        form = {"client_id": "node-red-admin", "grant_type": "password", "scope": "*"}
        form |= {"username": "admin", "password": password}
        status, body = self.request("/auth/token", urllib.parse.urlencode(form).encode())
        return status, json.loads(body).get("access_token", "") if status == 200 else ""

    @property
    def headers(self) -> dict:
        return VERSION | {
            "Authorization": f"Bearer {self.log_in(self.password)[1]}",
            "Content-Type": "application/json",
        }

    def flows(self) -> dict:
        status, body = self.request("/flows", headers=self.headers)
        assert status == 200, body
        return json.loads(body)

    def deploy(self, flows: dict) -> None:
        status, body = self.request("/flows", json.dumps(flows).encode(), self.headers)
        assert status == 200, body

    def wait(self, seconds: int = 60) -> None:
        until = time.monotonic() + seconds
        while True:
            try:
                assert self.request("/auth/login")[0] == 200
                return
            except OSError:
                assert time.monotonic() < until, "Node-RED does not answer"
                time.sleep(0.5)


@pytest.fixture(scope="module")
def password(inventory) -> str:
    return (inventory / "secrets/node_red/admin").read_text().strip()


@pytest.fixture
def editor(host, pi, password) -> Editor:
    editor = Editor(f"http://{pi.address}:{pi.port(1880)}", password)
    editor.wait()
    return editor


@pytest.fixture(scope="module")
def broker(host, inventory):
    """A Mosquitto on the Pi with an account for the flows and one for the tests."""
    secret = (inventory / "secrets/mosquitto/node_red").read_text().strip()
    assert host.run("DEBIAN_FRONTEND=noninteractive apt-get install -y mosquitto mosquitto-clients").rc == 0
    assert host.run("mosquitto_passwd -c -b /etc/mosquitto/passwd node_red %s", secret).rc == 0
    assert (
        host.run("mosquitto_passwd -b /etc/mosquitto/passwd test test && chown mosquitto: /etc/mosquitto/passwd").rc
        == 0
    )
    lines = "listener 1883 127.0.0.1\\nallow_anonymous false\\npassword_file /etc/mosquitto/passwd\\n"
    log = "/var/log/mosquitto/mosquitto.log"
    start = f"printf '{lines}' > /etc/mosquitto/conf.d/test.conf; systemctl stop mosquitto; rm -f {log}"
    assert host.run(f"{start}; systemctl start mosquitto").rc == 0
    until = time.monotonic() + 60
    while "u'node_red'" not in host.run(f"cat {log}").stdout:
        assert time.monotonic() < until, "the flows do not log in to the broker"
        time.sleep(0.5)
    return host


def publish(host, topic: str, payload: str) -> None:
    assert host.run("mosquitto_pub -u test -P test -q 1 -t %s -m %s", topic, payload).rc == 0


def retained(host, topic: str, wait: int = 10) -> dict | None:
    """The retained message that a new client receives."""
    result = host.run("mosquitto_sub -u test -P test -C 1 -W %s -t %s", str(wait), topic)
    return json.loads(result.stdout) if result.stdout.strip() else None


def alert(host, topic: str, state: str) -> dict:
    until = time.monotonic() + 20
    while True:
        message = retained(host, topic, 5)
        if message and message["state"] == state:
            return message
        assert time.monotonic() < until, f"{topic} is {message}, not {state}"


def changed(run) -> bool:
    """Whether another run of the playbook changed something."""
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-1000:]
    return "changed=0" not in run.stdout


def test_the_editor_requires_a_login(editor):
    assert editor.request("/flows", headers=VERSION)[0] == 401
    assert editor.request("/settings")[0] == 401
    assert editor.request("/flows", b"[]", {"Content-Type": "application/json"})[0] == 401
    assert editor.log_in("wrong")[0] == 403 or editor.log_in("wrong")[0] == 401
    assert editor.log_in("")[0] in (400, 401, 403)
    assert editor.log_in(editor.password)[0] == 200


def test_only_the_declared_port_is_open(host):
    sockets = host.run("ss -Hltnp").stdout.splitlines()
    own = [line.split()[3] for line in sockets if '"node' in line]
    assert own == ["0.0.0.0:1880"]


def test_it_runs_as_its_own_user_with_limits(host):
    assert host.process.get(user="node-red").user == "node-red"
    assert "--max-old-space-size=128" in host.run("systemctl show -p ExecStart node-red").stdout
    assert host.run("systemctl is-system-running").stdout.strip() == "running"
    show = host.run("systemctl show -p NRestarts -p NoNewPrivileges -p ProtectSystem node-red").stdout
    assert "NRestarts=0" in show
    assert "NoNewPrivileges=yes" in show
    assert "ProtectSystem=strict" in show


@pytest.mark.parametrize(
    ("path", "owner", "group", "mode"),
    [
        ("/etc/node-red/credential_secret", "root", "node-red", 0o640),
        ("/etc/node-red/admin_password_hash", "root", "node-red", 0o640),
        ("/etc/node-red/settings.js", "root", "root", 0o644),
        ("/var/lib/node-red", "node-red", "node-red", 0o750),
        ("/var/lib/node-red/flows.json", "node-red", "node-red", 0o600),
        ("/var/lib/node-red/flows_cred.json", "node-red", "node-red", 0o600),
    ],
)
def test_modes(host, path, owner, group, mode):
    file = host.file(path)
    assert (file.user, file.group, file.mode) == (owner, group, mode)


def test_no_secret_is_readable_or_logged(host, inventory):
    secrets = [path.read_text().strip() for path in (inventory / "secrets").rglob("*") if path.is_file()]
    assert len(secrets) >= 3
    where = "/etc/node-red/settings.js /var/lib/node-red/flows.json /var/lib/node-red/.declared-flows.json"
    for text in (host.run(f"cat {where}").stdout, host.run("journalctl -b --no-pager").stdout):
        assert not [secret for secret in secrets if secret in text]


def test_its_log_has_no_undecryptable_credentials_and_no_unknown_nodes(editor, host):
    log = host.run("journalctl -u node-red --no-pager").stdout
    assert "Started flows" in log
    for trouble in (
        "Failed to decrypt",
        "Waiting for missing types",
        "Error loading",
        "encrypted using a system-generated key",
    ):
        assert trouble not in log


def test_alerts_at_thresholds(editor, broker):
    """Low, back within the band (still low), ok; then high."""
    topic = "tig-alert/matslopy4/outsidetemp"
    now = int(time.time())
    publish(broker, "tig/matslopy4/reading", json.dumps({"outsidetemp": 1.5, "airpressure": 1013, "time": now}))
    message = alert(broker, topic, "low")
    expected = {
        "device": "matslopy4",
        "field": "outsidetemp",
        "value": 1.5,
        "threshold": 2,
        "state": "low",
        "time": now,
    }
    assert message == expected
    publish(broker, "tig/matslopy4/reading", json.dumps({"outsidetemp": 2.5, "time": now + 1}))
    time.sleep(1)
    assert retained(broker, topic) == expected
    publish(broker, "tig/matslopy4/reading", json.dumps({"outsidetemp": 3.5, "time": now + 2}))
    assert alert(broker, topic, "ok")["value"] == 3.5
    publish(broker, "tig/matslopy4/reading", json.dumps({"outsidetemp": 40, "time": now + 3}))
    assert alert(broker, topic, "high")["threshold"] == 38


def test_invalid_messages_do_no_harm(editor, broker, probe):
    for payload in (
        "",
        "{",
        "null",
        "[1]",
        '"x"',
        '{"outsidetemp": "1"}',
        '{"outsidetemp": 1e999}',
        '{"__proto__": {"low": 1}}',
    ):
        publish(broker, "tig/bad/reading", payload or " ")
        publish(broker, "mats/test", payload or " ")
    publish(broker, "mats/test", json.dumps({"device": "a/b", "outsidetemp": 1}))
    publish(broker, "mats/test", json.dumps({"device": "#", "outsidetemp": 1}))
    publish(broker, f"tig/{probe}/reading", json.dumps({"outsidetemp": 1}))
    publish(
        broker, "mats/test", json.dumps({"device": "MatsLopy4", "outsidetemp": 1, "sensortime": "2021 7 12 14 40 39"})
    )
    assert alert(broker, "tig-alert/MatsLopy4/outsidetemp", "low")["value"] == 1
    everything = broker.run("mosquitto_sub -u test -P test -W 2 -v -t 'tig-alert/#'").stdout
    topics = {line.split()[0] for line in everything.splitlines()}
    assert topics == {"tig-alert/MatsLopy4/outsidetemp", "tig-alert/matslopy4/outsidetemp"}
    assert "NRestarts=0" in broker.run("systemctl show -p NRestarts node-red").stdout


def test_forwarding_to_another_broker_and_back_to_none(editor, broker, converge, inventory):
    """Selected fields of a selected device, with an account there; nothing is left when it is disabled."""
    lines = "listener 1884 127.0.0.1\\nallow_anonymous false\\npassword_file /etc/mosquitto/passwd\\n"
    broker.run(f"printf '{lines}' > /etc/mosquitto/other.conf; systemctl stop other-broker; systemctl reset-failed")
    assert broker.run("systemd-run --unit=other-broker mosquitto -c /etc/mosquitto/other.conf").rc == 0
    forward = {
        "host": "127.0.0.1",
        "port": 1884,
        "topic": "garden",
        "devices": ["matslopy4"],
        "fields": ["airpressure"],
    }
    own = (inventory / "secrets/mosquitto/node_red").read_text().strip()
    credentials = {
        "tig-pi-broker": {"user": "node_red", "password": own},
        "tig-pi-forward-broker": {"user": "test", "password": "test"},
    }
    assert changed(converge(site_forward=forward, node_red_credentials=credentials))
    editor.wait()
    listen = "mosquitto_sub -p 1884 -u test -P test -v -t '#' -C 1 -W 20"
    assert broker.run(f"nohup {listen} > /tmp/heard 2>&1 & sleep 1").rc == 0
    until = time.monotonic() + 30
    while not broker.run("cat /tmp/heard").stdout.strip():
        assert time.monotonic() < until, "nothing was forwarded"
        for device in ("other", "matslopy4"):
            publish(broker, f"tig/{device}/reading", json.dumps({"outsidetemp": 20, "airpressure": 1013.25}))
        time.sleep(1)
    topic, payload = broker.run("cat /tmp/heard").stdout.strip().split(" ", 1)
    assert topic == "garden/matslopy4"
    assert set(json.loads(payload)) == {"device", "airpressure", "time"}
    assert changed(converge())
    editor.wait()
    assert not [node for node in editor.flows()["flows"] if "forward" in node["id"]]
    assert "tig-pi-forward" not in broker.run("cat /var/lib/node-red/.declared-flows.json").stdout


def test_what_people_create_survives_and_is_no_change(editor, converge):
    flows = editor.flows()
    people = [
        {"id": "people-tab", "type": "tab", "label": "mine", "disabled": False, "info": "", "env": []},
        {
            "id": "people-debug",
            "type": "debug",
            "z": "people-tab",
            "name": "mine",
            "active": False,
            "x": 1,
            "y": 1,
            "wires": [],
        },
        {
            "id": "people-on-ours",
            "type": "debug",
            "z": "tig-pi",
            "name": "here, too",
            "active": False,
            "x": 9,
            "y": 9,
            "wires": [],
        },
        {
            "id": "people-broker",
            "type": "mqtt-broker",
            "name": "elsewhere",
            "broker": "127.0.0.1",
            "port": "1",
            "autoConnect": False,
            "credentials": {"user": "somebody", "password": "of their own"},
        },
    ]
    flows["flows"] = [node for node in flows["flows"] if not node["id"].startswith("people-")] + people
    for node in flows["flows"]:
        if node["id"] == "tig-pi-reading":
            node["wires"][0].append("people-on-ours")
    editor.deploy(flows)
    before = editor.flows()["flows"]

    assert not changed(converge())
    editor.wait()
    assert editor.flows()["flows"] == before
    status, body = editor.request("/credentials/mqtt-broker/people-broker", headers=editor.headers)
    assert (status, json.loads(body)["user"]) == (200, "somebody")


def test_changes_of_declared_nodes_are_reverted(editor, converge):
    flows = editor.flows()
    for node in flows["flows"]:
        if node["id"] == "tig-pi-threshold":
            node["func"] = "return null"
    editor.deploy(flows)
    assert changed(converge())
    editor.wait()
    now = {node["id"]: node for node in editor.flows()["flows"]}
    assert "hysteresis" in now["tig-pi-threshold"]["func"]
    assert "people-on-ours" in now["tig-pi-reading"]["wires"][0]
    assert "people-tab" in now


def test_a_changed_secret_converges(editor, host, converge):
    """Check mode reports it and changes nothing; then people's credentials are encrypted with the new secret."""
    variables = {"node_red_credential_secret": "another one", "node_red_admin_password": "another password"}
    before = host.file("/var/lib/node-red/flows_cred.json").content
    dry = converge("--check", "--diff", **variables)
    assert changed(dry)
    assert "another" not in dry.stdout
    assert host.file("/var/lib/node-red/flows_cred.json").content == before
    assert changed(converge(**variables))
    editor.wait()
    assert editor.log_in(editor.password)[0] != 200
    under_new = Editor(editor.url, "another password")
    status, body = under_new.request("/credentials/mqtt-broker/people-broker", headers=under_new.headers)
    assert (status, json.loads(body)["user"]) == (200, "somebody")
    assert not changed(converge(**variables))
    assert changed(converge())
    editor.wait()
    assert editor.log_in(editor.password)[0] == 200


def test_a_downgrade_must_be_allowed(host, converge):
    refused = converge(node_red_version="4.1.0-1")
    assert refused.returncode != 0
    assert "or set node_red_allow_downgrade: true" in " ".join(refused.stdout.split())
    assert not host.file("/etc/apt/preferences.d/node-red").exists


def test_a_package_from_the_controller_is_installed(host, editor, converge):
    """As on a Pi without a feed: the role builds the package, or gets its path."""
    feed = pathlib.Path(os.environ["MOLECULE_PROJECT_DIRECTORY"], "packaging/feed.py")
    architecture = host.check_output("dpkg --print-architecture")
    command = [sys.executable, feed, "deb", f"--architecture={architecture}"]
    package = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    host.run_expect([0], "apt-get --yes remove node-red nodejs")
    run = converge(node_red_repository={}, node_red_package_command=[sys.executable, str(feed), "deb"])
    assert changed(run), run.stdout
    editor.wait()
    assert editor.log_in(editor.password)[0] == 200
    assert not changed(converge(node_red_repository={}, node_red_package=package))


def test_each_tag_works_alone(tags_work_alone):
    tags_work_alone(
        "node_red", "node_red_context_flush_interval", (61, 60), "/etc/node-red/settings.js", "flushInterval: {} "
    )


def test_it_survives_a_reboot(pi, editor, broker):
    """Its context survives, too: the alerts are unchanged, and the same value does not raise another one."""
    topic = "tig-alert/matslopy4/outsidetemp"
    before = retained(broker, topic)
    assert before
    pi.reboot()
    editor.wait()
    assert editor.log_in(editor.password)[0] == 200
    publish(broker, "tig/matslopy4/reading", json.dumps({"outsidetemp": before["value"]}))
    assert retained(broker, topic) == before


@pytest.mark.parametrize(
    ("name", "how"),
    [("context/global/global.json", "garbage"), ("context/global/global.json", "empty"), ("flows.json", "NULs")],
)
def test_it_starts_with_a_damaged_file(host, editor, damage, state_files, name, how):
    """By itself, Node-RED would exit with code 0 for a damaged context, and have no flows for damaged flows."""
    before = {node["id"] for node in editor.flows()["flows"]}
    path = f"/var/lib/node-red/{name}"
    host.run_expect(
        [0], f"mkdir -p $(dirname {path}); test -s {path} || echo '{{}}' > {path}; chown -R node-red: /var/lib/node-red"
    )
    editor.deploy(editor.flows())  # which makes Node-RED keep the version before
    said = damage("node-red", path, how)
    assert f"{path} is " in said
    assert "Lost: " in said
    editor.wait()
    assert host.service("node-red").is_running
    assert {node["id"] for node in editor.flows()["flows"]} == before
    assert state_files("node-red")["damaged"] == []
    if host.file(path).exists:
        assert host.file(path).user == "node-red"


def test_a_service_that_does_not_stay_up_fails_the_role(fails_to_start):
    fails_to_start("node-red")
