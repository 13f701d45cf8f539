"""contract.yml: what must work without it has the same values, and nothing else has a copy of them."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from chain import ADDRESSES, SITE, TEMPLATES, render
from project import CONTRACT, PROBE, REPOSITORY, load

from firmware import evaluate

PORTS = CONTRACT["ports"]
STATES = [state["word"] for state in CONTRACT["states"]]
MEASUREMENTS = CONTRACT["measurements"]
REASONS = CONTRACT["reasons"]
BRANCHES = CONTRACT["branches"]
SETTINGS = CONTRACT["settings"]


def text_of(path: str) -> str:
    return (REPOSITORY / path).read_text(encoding="utf-8")


def test_templates_and_playbooks_can_read_it():
    templar = Templar(loader=DataLoader())
    assert templar.template(trust_as_template("{{ lookup('tig_pi.stack.contract') }}")) == CONTRACT


# What must work without it


def path_in_settings(name: str) -> str:
    """`broker_port` of the role is `broker.port` in settings.json."""
    return re.sub(r"^(wifi|broker)_", r"\1.", name)


def test_the_program_accepts_the_settings_that_the_role_accepts():
    code = "from tig.settings import _SCHEMA\nresult = [(path, limits) for path, _, *limits in _SCHEMA]"
    found = dict(evaluate(code))
    for name, setting in SETTINGS.items():
        wanted = [setting.get("default"), setting["smallest"], setting["largest"]]
        assert found[path_in_settings(name)] == wanted, name


def test_the_program_publishes_on_the_branches():
    code = """
from tig.commands import Commands
from tig.crash import CrashReport
from tig.readings import Readings
from tig.replay import Replay
from tig.status import Status
result = [source.BRANCH for source in (Readings, Replay, Status, CrashReport, Commands)] + [Commands.TOPIC]
"""
    branches = ("reading", "reading", "status", "crash", "answer", "command")
    assert evaluate(code) == [f"/{BRANCHES[branch]}" for branch in branches]


def test_every_state_that_the_program_waits_for_has_a_word():
    """All texts that its link gives as what it waits for."""
    words = set()
    for node in ast.walk(ast.parse(text_of("firmware/lib/tig/link.py"))):
        is_word = isinstance(node, ast.Assign) and getattr(node.targets[0], "attr", "") == "waiting_for"
        if is_word or (isinstance(node, ast.FunctionDef) and node.name == "_lack"):
            words |= {part.value for part in ast.walk(node) if isinstance(getattr(part, "value", None), str)}
    assert words == {state["word"] for state in CONTRACT["waiting_for"]}


def test_the_program_sends_the_states_and_what_telegraf_stores_of_a_status():
    code = """
import json
from tig.status import OFFLINE, Status

class Stub:
    failed, count, dropped, known, kept = ["dht11"], 0, 0, True, 0

    def uptime(self):
        return 5

    def now(self):
        return 1700000000

    since = now

    def gaps(self):
        return []

result = [json.loads(OFFLINE), json.loads(Status("a", "hard", Stub(), Stub(), Stub(), 0).message())]
"""
    offline, online = evaluate(code)
    assert [offline["state"], online["state"]] == STATES
    stored = {*CONTRACT["status_numbers"], *CONTRACT["status_texts"], "failed", "gaps"}
    assert stored <= online.keys()
    assert online.keys() - stored == {"slot", "time"}


def test_a_reading_has_no_other_keys_than_fields_and_the_reserved_ones():
    code = """
from tig.program import Encoder
from tig.zone import Zone
result = Encoder("greenhouse", ["outsidetemp"], ["%.1f"], Zone("UTC0"))([21.5], 1700000000).decode()
"""
    keys = set(yaml.safe_load(evaluate(code)))
    assert keys == {"outsidetemp", *CONTRACT["reserved_fields"]}
    taken = set(re.findall(r'message\.pop\("(\w+)"', text_of("templates/telegraf/mqtt_consumer.conf.j2")))
    assert taken == set(CONTRACT["reserved_fields"])


# Telegraf


RENDERED = {path.name: render(path, ADDRESSES | SITE) for path in TEMPLATES.glob("*.conf.j2")}


@pytest.mark.parametrize(
    ("template", "processor"), [("mqtt_consumer", "reading"), ("names", "names"), ("status", "status")]
)
def test_a_processor_counts_its_reasons(template, processor):
    text = RENDERED[f"{template}.conf.j2"]
    counted = re.findall(r'\b(?:(?<!\.)count|reject)\("(\w+)"(?: if .* else "(\w+)")?', text)
    assert {reason for found in counted for reason in found if reason} == set(REASONS[processor])


def test_the_names_of_all_other_measurements_are_reserved():
    """Of those that are written, and of those by which plugins of Telegraf pass metrics on."""
    named = r'(?:name_override = |Metric\()"(\w+)"'
    own = r"^namepass = (\[.*\])"
    found = set()
    for text in RENDERED.values():
        for plugin in re.split(r"^(?=\[\[)", text, flags=re.MULTILINE):
            kind = re.match(r"\[\[inputs\.(\w+)\]\]", plugin)
            found |= set(re.findall(named, plugin))
            if kind and "name_override" not in plugin:
                passed = re.search(own, plugin.replace("\n  ", "\n"), re.MULTILINE)
                found |= set(yaml.safe_load(passed[1])) if passed else {kind[1]}
    found |= set(re.findall(r'\bFAULTS = "(\w+)"', RENDERED["mqtt_consumer.conf.j2"]))
    assert found - {SITE["site_measurement"]} == {*MEASUREMENTS.values(), *CONTRACT["reserved_measurements"]}


# Defaults


@pytest.mark.parametrize(
    ("role", "variable", "value"),
    [
        ("mosquitto", "mosquitto_listeners", [{"port": PORTS["mqtt"], "address": ""}]),
        ("mosquitto", "mosquitto_max_message_size", CONTRACT["message_bytes"]),
        ("influxdb", "influxdb_http_bind_address", f"127.0.0.1:{PORTS['influxdb']}"),
        ("grafana", "grafana_http_port", PORTS["grafana"]),
        ("node_red", "node_red_http_port", PORTS["node_red"]),
        ("lopy4", "lopy4_topic", f"{CONTRACT['topic_prefix']}/{{{{ lopy4_name }}}}"),
        *(("lopy4", f"lopy4_{name}", setting["default"]) for name, setting in SETTINGS.items() if "default" in setting),
    ],
)
def test_the_default_of_a_role(role, variable, value):
    """A role works alone, and by default as the whole does. tests/test_repository.py compares defaults and argument_specs."""
    assert yaml.safe_load(text_of(f"roles/{role}/defaults/main.yml"))[variable] == value


def test_the_port_of_a_device_is_the_one_of_the_broker():
    assert SETTINGS["broker_port"]["default"] == PORTS["mqtt"]


def test_the_default_of_the_site():
    assert (
        yaml.safe_load(text_of("playbooks/group_vars/all/10_site.yml"))["site_topic_prefix"] == CONTRACT["topic_prefix"]
    )


def test_the_description_of_site_forward_has_the_ports():
    options = yaml.safe_load(text_of("roles/validate/meta/argument_specs.yml"))["argument_specs"]["main"]["options"]
    described = options["site_forward"]["options"]["port"]["description"]
    assert described == f"Port; {PORTS['mqtt']}, or {PORTS['mqtts']} with TLS, by default."


@pytest.mark.parametrize(
    ("module", "option", "value"),
    [
        ("mqtt_message", "port", PORTS["mqtt"]),
        ("device_command", "port", PORTS["mqtt"]),
        ("influxdb_schema", "port", PORTS["influxdb"]),
        ("grafana_state", "url", f"http://127.0.0.1:{PORTS['grafana']}"),
    ],
)
def test_the_default_of_a_module(module, option, value):
    documented = yaml.safe_load(load(f"plugins/modules/{module}.py").DOCUMENTATION)["options"][option]["default"]
    assert documented == value
    text = f'"{value}"' if isinstance(value, str) else str(value)
    assert re.search(
        rf'"{option}": \{{"type": "\w+", "default": {re.escape(text)}\}}', text_of(f"plugins/modules/{module}.py")
    )


# Documentation


@pytest.mark.parametrize("path", ["README.md", "firmware/README.md"])
def test_the_table_of_led_colours(path):
    table = re.findall(r"^\| (\w+) \| `(\w+)` \| ([^|]+) \|", text_of(path), re.MULTILINE)
    assert sorted(table) == sorted(
        (state["colour"], state["word"], state["needs"]) for state in CONTRACT["waiting_for"]
    )


def test_the_table_of_topics():
    table = re.findall(r"^\| `tig/<device>/(\w+)`", text_of("docs/messages.md"), re.MULTILINE)
    assert sorted(table) == sorted(BRANCHES.values())


def test_the_table_of_what_happens_to_a_message_has_every_reason_once():
    table = re.findall(r"^\|.*\| `(\w+)` \|$", text_of("docs/messages.md"), re.MULTILINE)
    assert sorted(table) == sorted(reason for reasons in REASONS.values() for reason in reasons)


def test_the_entries_and_words_of_a_status_are_documented():
    text = text_of("docs/messages.md")
    [sample] = re.findall(r'^\{"state": "online".*\}$', text, re.MULTILINE)
    entries = yaml.safe_load(sample)
    assert {*CONTRACT["status_numbers"], *CONTRACT["status_texts"]} <= entries.keys()
    assert all(f'"state": "{word}"' in text for word in STATES)
    assert f"measurement `{MEASUREMENTS['status']}`" in text
    assert f"measurement `{MEASUREMENTS['faults']}`" in text


def test_the_limits_of_messages_are_documented():
    text = text_of("docs/messages.md")
    assert f"longer than {CONTRACT['point_bytes'] // 1000} kB" in text
    assert f"`mosquitto_max_message_size` ({CONTRACT['message_bytes']} bytes)" in text
    assert f"longer than {CONTRACT['name_bytes']} bytes" in text
    assert f"a time before {datetime.fromtimestamp(CONTRACT['earliest_time'], UTC).year}" in text


def test_defaults_and_the_minimum_of_the_watchdog_are_documented():
    table = dict(re.findall(r"^\| `(\w+)` \| (\d+) \| ", text_of("firmware/README.md"), re.MULTILINE))
    for name in ("interval", "send_delay", "ring", "watchdog"):
        assert int(table[name]) == SETTINGS[name]["default"], name
    least = re.search(r"^\| `watchdog` .* from (\d+) ", text_of("firmware/README.md"), re.MULTILINE)
    assert int(least[1]) == SETTINGS["watchdog"]["smallest"]
    for path in ("defaults/main.yml", "meta/argument_specs.yml"):
        least = re.search(r"device restarts\.\s+At least (\d+),", text_of(f"roles/lopy4/{path}"))
        assert int(least[1]) == SETTINGS["watchdog"]["smallest"], path


# Copies

CODE = {"", ".c", ".j2", ".js", ".py", ".sh", ".yml"}
NUMBERS = [*PORTS.values(), *(CONTRACT[name] for name in ("message_bytes", "point_bytes", "earliest_time"))]
PRODUCT = ("bin/", "firmware/", "inventories/", "playbooks/", "plugins/", "roles/", "templates/")
UID, READINGS, PI = (CONTRACT["uids"][name] for name in ("datasource", "readings", "pi"))
# What a copy looks like, and the folders in which there must be none.
COPIES = {
    "probe": (re.escape(PROBE), ("",)),
    "operator": (re.escape(CONTRACT["operator"]), ("",)),
    "number": (rf"(?<![\w.])({'|'.join(map(str, NUMBERS))})(?![\w.]*\w)", PRODUCT),
    "colour": ("|".join(f"0x{state['rgb']:06x}" for state in CONTRACT["waiting_for"]), ("",)),
    "branch": (
        rf"/({'|'.join(BRANCHES.values())})(?=[\"'`\s<{{]|$)",
        ("firmware/", "playbooks/", "plugins/", "roles/", "templates/"),
    ),
    "measurement": (
        rf"\b{MEASUREMENTS['status']}\b|(?<!alias = )[\"']({MEASUREMENTS['faults']}|{MEASUREMENTS['broker']})[\"']",
        ("playbooks/", "plugins/filter/status.py", "templates/"),
    ),
    "reason": (
        rf"[\"']({'|'.join(reason for reasons in REASONS.values() for reason in reasons)})[\"']",
        ("playbooks/", "plugins/", "templates/grafana/", "templates/node_red/"),
    ),
    # `online` alone is also the name of a field.
    "state": (
        rf"(== |: )[\"']?({'|'.join(STATES)})\b|[\"']{STATES[0]}[\"']",
        ("firmware/", "playbooks/", "plugins/", "roles/", "templates/"),
    ),
    "uid": (
        rf"(?i)uid[\"']?: *[\"']?({UID}|{READINGS}|{PI})\b|\bd/({READINGS}|{PI})\b",
        ("playbooks/", "plugins/", "roles/", "templates/"),
    ),
}
# Files that may have one, and why.
ALLOWED = {
    "probe": {
        "bench/by-hand.sh": "a site that is set up without this project",
        "tests/data/messages.yml": "messages as they are sent, and what becomes of them",
    },
    "operator": {"bench/by-hand.sh": "a site that is set up without this project"},
    "number": {
        "bin/demo": "a shell script; the ports under which the demo publishes",
        "bin/fault": "runs without any package",
        "firmware/lib/tig/drivers/bme280.py": "a factor of the chip's formula",
        "firmware/lib/tig/settings.py": "on the device; compared above",
        "plugins/modules/device_command.py": "on any host; compared above",
        "plugins/modules/grafana_state.py": "on the Pi; compared above",
        "plugins/modules/influxdb_schema.py": "on the Pi; compared above",
        "plugins/modules/mqtt_message.py": "on any host; compared above",
        "plugins/modules/service_state.py": "an example",
        "roles/grafana/defaults/main.yml": "compared above",
        "roles/grafana/meta/argument_specs.yml": "compared with the defaults",
        "roles/influxdb/defaults/main.yml": "compared above",
        "roles/influxdb/meta/argument_specs.yml": "compared with the defaults",
        "roles/lopy4/defaults/main.yml": "compared above",
        "roles/lopy4/meta/argument_specs.yml": "compared with the defaults",
        "roles/mosquitto/defaults/main.yml": "compared above",
        "roles/mosquitto/meta/argument_specs.yml": "compared with the defaults",
        "roles/node_red/defaults/main.yml": "compared above",
        "roles/node_red/meta/argument_specs.yml": "compared with the defaults",
        "roles/validate/meta/argument_specs.yml": "compared above",
    },
    "colour": {"firmware/lib/tig/led.py": "on the device; compared above"},
    "branch": {
        "firmware/lib/tig/commands.py": "on the device; compared above",
        "firmware/lib/tig/crash.py": "on the device; compared above",
        "firmware/lib/tig/readings.py": "on the device; compared above",
        "firmware/lib/tig/status.py": "on the device; compared above",
        "roles/lopy4/meta/argument_specs.yml": "a description",
    },
    "state": {"firmware/lib/tig/status.py": "on the device; compared above"},
    "uid": {
        "roles/grafana/meta/argument_specs.yml": "an example in a description",
    },
}


def without_comments(path: str, text: str) -> str:
    mark = "//" if path.endswith((".js", ".c")) else "#"
    return re.sub(rf"(^|(?<=\s)){mark}.*", "", text, flags=re.MULTILINE)


def copies(kind: str, path: str, text: str) -> list[str]:
    pattern, folders = COPIES[kind]
    if not path.startswith(folders) or path == "contract.yml":
        return []
    return [found.group() for found in re.finditer(pattern, without_comments(path, text), re.MULTILINE)]


def files() -> Iterator[tuple[str, str]]:
    listed = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    for name in listed.stdout.splitlines():
        path = REPOSITORY / name
        if path.suffix in CODE and path.is_file() and not path.is_symlink():
            yield name, path.read_text(encoding="utf-8", errors="replace")


@pytest.mark.parametrize("kind", COPIES)
def test_there_are_no_copies(kind):
    found = {path: copies(kind, path, text) for path, text in files()}
    found = {path: what for path, what in found.items() if what}
    assert {path: what for path, what in found.items() if path not in ALLOWED.get(kind, {})} == {}
    assert ALLOWED.get(kind, {}).keys() <= found.keys(), "no longer needed in ALLOWED"


@pytest.mark.parametrize(
    ("kind", "path", "text", "is_copy"),
    [
        ("probe", "playbooks/verify.yml", f"client_id: {PROBE}", True),
        ("probe", "tests/test_x.py", f'name == "{PROBE}"', True),
        ("probe", "playbooks/verify.yml", f"# {PROBE}", False),
        ("number", "templates/telegraf/x.conf.j2", 'url = "http://127.0.0.1:8086/write"', True),
        ("number", "playbooks/x.yml", "port: 1883", True),
        ("number", "playbooks/x.yml", "port: 11883", False),
        ("number", "templates/node_red/x.js", "const EARLIEST = 1577836800; // 2020", True),
        ("number", "templates/node_red/x.js", "const earliest = site.earliest; // 1577836800", False),
        ("number", "molecule/x/molecule.yml", "publish: [1883]", False),
        ("colour", "tests/test_x.py", f"shade = 0x{CONTRACT['waiting_for'][0]['rgb']:06x}", True),
        ("branch", "plugins/filter/x.py", 'f"{prefix}/+/reading"', True),
        ("branch", "templates/x.j2", "'/+/status' | to_json", True),
        ("branch", "roles/x/tasks/main.yml", 'wait_for: "{{ topic }}/reading"', True),
        ("branch", "playbooks/x.yml", "src: playbooks/status.yml", False),
        ("measurement", "templates/grafana/x.yml.j2", 'FROM "device_status" WHERE', True),
        ("measurement", "templates/telegraf/x.conf.j2", 'name_override = "pipeline"', True),
        ("measurement", "templates/telegraf/x.conf.j2", 'alias = "pipeline"', False),
        ("reason", "plugins/filter/x.py", 'faults["not_json"]', True),
        ("state", "templates/telegraf/x.conf.j2", 'state == "online"', True),
        ("state", "templates/grafana/x.yml.j2", "{text: offline, color: red}", True),
        ("state", "templates/grafana/x.yml.j2", 'last("held") AS "Held"', False),
        ("uid", "templates/grafana/x.yml.j2", "datasourceUid: influx", True),
        ("uid", "templates/grafana/x.yml.j2", "url: /d/readings,", True),
        ("uid", "templates/telegraf/x.conf.j2", 'data_format = "influx"', False),
    ],
)
def test_a_copy_is_detected(kind, path, text, is_copy):
    assert bool(copies(kind, path, text)) is is_copy
