"""What the Grafana stand-in does not share with Grafana: its name, the errors that Grafana does not report, its modules.

test_grafana_contract.py tests what they share.
"""

from __future__ import annotations

import http.client
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from grafana_server import INI, STAND_IN, Grafana
from grafana_stand_in import (
    expand,
    expressions,
    ini,
    known_settings,
    notifications,
    policies,
    rule_states,
    settings,
    store,
    templates,
    yaml_files,
)

VENDOR_PATHS = {
    "usr/sbin/grafana-cli",
    "usr/sbin/grafana-server",
    "usr/share/grafana/bin/grafana",
    "usr/share/grafana/conf/defaults.ini",
    "usr/share/grafana/conf/ldap.toml",
    "usr/share/grafana/conf/sample.ini",
    "usr/lib/systemd/system/grafana-server.service",
    "etc/default/grafana-server",
}
# The sandbox of Grafana's unit.
VENDOR_SANDBOX = """
LimitNOFILE=10000 CapabilityBoundingSet= DeviceAllow= LockPersonality=true MemoryDenyWriteExecute=false NoNewPrivileges=true
PrivateDevices=true PrivateTmp=true ProtectClock=true ProtectControlGroups=true ProtectHome=true ProtectHostname=true
ProtectKernelLogs=true ProtectKernelModules=true ProtectKernelTunables=true ProtectProc=invisible ProtectSystem=full
RemoveIPC=true RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX RestrictNamespaces=true RestrictRealtime=true
RestrictSUIDSGID=true SystemCallArchitectures=native UMask=0027
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    directory = tmp_path_factory.mktemp("package")
    command = [sys.executable, STAND_IN / "package.py", directory]
    return Path(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())


@pytest.fixture(scope="module")
def root(package, tmp_path_factory):
    directory = tmp_path_factory.mktemp("root")
    subprocess.run(["dpkg-deb", "-x", package, directory], check=True)
    return directory


@pytest.fixture
def server(root, tmp_path):
    own = Grafana(root / "usr/share/grafana", tmp_path)
    yield own
    own.stop()


def field(package: Path, name: str) -> str:
    return subprocess.run(["dpkg-deb", "-f", package, name], check=True, capture_output=True, text=True).stdout.strip()


# --- the package ----------------------------------------------------------------------------------------------------


def test_the_same_sources_give_the_same_package(package, tmp_path):
    again = subprocess.run(
        [sys.executable, STAND_IN / "package.py", tmp_path], check=True, capture_output=True, text=True
    ).stdout.strip()
    assert Path(again).read_bytes() == package.read_bytes()


def test_grafana_s_own_package_replaces_the_stand_in(package):
    assert field(package, "Package") == "grafana"
    older = ["dpkg", "--compare-versions", field(package, "Version"), "lt", "12.2.0"]
    assert subprocess.run(older, check=False).returncode == 0


def test_the_package_has_the_files_of_grafana_s_own(root):
    assert {path for path in VENDOR_PATHS if not (root / path).is_file()} == set()
    assert {path.name for path in (root / "usr/sbin").iterdir()} == {"grafana-cli", "grafana-server"}  # no `grafana`
    unit = (root / "usr/lib/systemd/system/grafana-server.service").read_text()
    assert "ExecStart=/usr/share/grafana/bin/grafana server" in unit
    assert "User=grafana" in unit
    sandbox = unit.partition("TimeoutStopSec=20\n")[2].partition("\n\n")[0]
    assert sorted(["LimitNOFILE=10000", *sandbox.splitlines()]) == sorted(
        re.split(r"\s+(?=\w+=)", VENDOR_SANDBOX.strip())
    )


def test_package_unit_log_and_pages_say_that_it_is_a_stand_in(package, root, server):
    assert field(package, "Description").startswith("STAND-IN for Grafana (not Grafana itself)")
    assert "standin" in field(package, "Version")
    assert "Description=Stand-in for Grafana" in (root / "usr/lib/systemd/system/grafana-server.service").read_text()
    server.start()
    assert "This is a stand-in for Grafana, not Grafana." in server.log
    assert server.call("GET", "/api/health", login=None).json["version"] == "12.2.0-standin"
    for path in ("/login", "/d/readings"):
        page = server.call("GET", path).text
        assert "<title>Grafana stand-in</title>" in page
        assert "https://grafana.com" in page


def test_the_commands_of_the_package_pass_its_paths(root, server, tmp_path):
    fake = tmp_path / "home/bin/grafana"
    fake.parent.mkdir(parents=True)
    fake.write_text('#!/bin/sh\necho "$@"\n')
    fake.chmod(0o755)

    def output(name: str, *arguments: str) -> str:
        command = [root / "usr/sbin" / name, *arguments]
        environment = {**os.environ, "GRAFANA_HOME": str(fake.parents[1])}
        return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout

    assert output("grafana-server", "-v").strip() == "server -v"
    words = output("grafana-cli", "admin", "x")
    assert words.startswith(
        f"cli --homepath={fake.parents[1]} --config=/etc/grafana/grafana.ini --pluginsDir=/var/lib/"
    )
    assert words.endswith(" admin x\n")


def test_the_server_needs_less_than_40_mb(server):
    server.dashboard("a.json", {"uid": "a", "title": "A"})
    server.start()
    server.get("/api/search")
    status = Path(f"/proc/{server._program.process.pid}/status").read_text()
    own = int(re.search(r"RssAnon:\s+(\d+) kB", status)[1])
    assert own < 40_000, f"{own} kB"


def test_health_is_good_before_a_bad_file_ends_the_server(server):
    """Grafana may do this by chance. The stand-in always does, to expose a readiness check that only tries /api/health."""
    server.provision("datasources", "apiVersion: 1\ndatasources: [{uid: no-name}]\n")
    server.launch()
    healthy = False
    while server.ended is None:
        try:
            healthy |= server.call("GET", "/api/health", login=None).status == 200
        except (OSError, http.client.HTTPException):
            time.sleep(0.01)
    assert server.ended == 1
    assert healthy


# --- stricter than Grafana ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("[security]\nadmin_passwort = x", "unknown key 'admin_passwort' in section [security]"),
        ("[secuirty]\nadmin_user = x", "unknown section [secuirty]"),
    ],
)
def test_an_unknown_setting_is_an_error(server, line, complaint):
    text = server.config.read_text() + line + "\n"
    server.config.write_text(text)
    server.launch()
    assert server.wait_for_end() == 1
    assert f"{server.config} line {text.count(chr(10))}: {complaint}" in server.log


def test_every_setting_that_the_role_writes_is_known(repository):
    section, unknown = "", []
    for line in (repository / "roles/grafana/templates/grafana.ini.j2").read_text().splitlines():
        if header := re.fullmatch(r"\[(.+)\]", line):
            section = header[1]
        elif key := re.match(r"(\w+) *=", line):
            unknown += [known_settings.complaint(section, key[1])]
    assert len(unknown) > 20
    assert [complaint for complaint in unknown if complaint] == []


def test_an_unknown_value_is_an_error(server):
    server.config.write_text(INI.format(directory=server.directory, port=server.port) + "[database]\ntype = mysql\n")
    server.launch()
    assert server.wait_for_end() == 1
    assert "database type mysql is not known to this stand-in" in server.log


# --- its modules ------------------------------------------------------------------------------------------------------


def test_ini_files():
    text = (
        "app_mode = production\n; comment\n[server]\nhttp_port=1 ; no # secret\nroot_url: http://x/\n"
        'domain = "quoted"\n[security]\nadmin_password = `a;b#c`\nsecret_key = """x\ny"""\nadmin_user = a\\\nb\n'
    )
    assert [tuple(setting) for setting in ini.parse(text)] == [
        ("DEFAULT", "app_mode", "production", 1),
        ("server", "http_port", "1", 4),
        ("server", "root_url", "http://x/", 5),
        ("server", "domain", "quoted", 6),
        ("security", "admin_password", "a;b#c", 8),
        ("security", "secret_key", "x\ny", 9),
        ("security", "admin_user", "ab", 11),
    ]
    with pytest.raises(ini.IniError):
        ini.parse("[server\n")


def test_settings_from_the_environment_and_the_command_line(tmp_path, monkeypatch):
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf/defaults.ini").write_text("[server]\nhttp_port = 3000\n[paths]\ndata = data\n")
    (tmp_path / "grafana.ini").write_text("[server]\nhttp_port = 1\ndomain = ${TIG_PI_TEST_NAME}.local\n")
    monkeypatch.setenv("GF_SERVER_HTTP_PORT", "2")
    monkeypatch.setenv("TIG_PI_TEST_NAME", "pi")
    read = settings.Settings(tmp_path, tmp_path / "grafana.ini", ["cfg:default.paths.data=/d", "cfg:log.level=debug"])
    assert read.number("server", "http_port", 0) == 2
    assert read.data_path == Path("/d")
    assert read.text("log", "level") == "debug"
    assert read.root_url == "http://pi.local:2/"


@pytest.mark.parametrize(("text", "result"), [("1h30m", 5400), ("15s", 15), ("0", 0), ("2d", 172800)])
def test_durations(text, result):
    assert settings.seconds(text) == result


@pytest.mark.parametrize("text", ["", "60", "soon", "5 m", "-1m"])
def test_bad_durations(text):
    with pytest.raises(ValueError, match="duration"):
        settings.seconds(text)


def test_variables(monkeypatch, tmp_path):
    monkeypatch.setenv("NAME", "x")
    (tmp_path / "secret").write_text(" s3cret\n")
    for text, result in {
        "$NAME ${NAME} $__env{NAME}": "x x x",
        "a$$b $$NAME": "a$b $NAME",
        "$NOSUCH|": "|",
        "10$": "10$",
        "$ 5": "$ 5",
        f"$__file{{{tmp_path}/secret}}": "s3cret",
    }.items():
        assert expand.interpolate(text) == result
    monkeypatch.setenv("PORT", "8086")
    assert expand.interpolate_all({"a": ["$PORT", "8086", 1, None]}) == {"a": [8086, "8086", 1, None]}


def test_yaml_has_the_types_that_grafana_reads(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("a: yes\nb: true\nc: 2024-01-01\nd: 1\n")
    assert yaml_files.load(path) == {"a": "yes", "b": True, "c": "2024-01-01", "d": 1}


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("{{ $labels.device }} has {{ $values.B.Value }}", "d0 has 20.456"),
        ('{{ printf "%.1f" $values.B.Value }} {{ printf "%.0f" $values.B.Value }}', "20.5 20"),
        ('{{ with $values.B }}{{ printf "%.4g" .Value }} {{ .Labels.device }}{{ end }}', "20.46 d0"),
        ("{{ with $values.Z }}some{{ else }}none{{ end }}", "none"),
        ("{{ $labels.no }} {{ $values.Z }} {{ $values.Z.Value }}", "[no value] [no value] [no value]"),
        ("{{ if gt $values.B.Value 20.0 }}hot{{ else }}cold{{ end }}", "hot"),
        ("no template: { }", "no template: { }"),
    ],
)
def test_annotations(text, result):
    values = {"B": templates.Number.of(20.456, {"device": "d0"})}
    assert templates.expand(text, {"device": "d0", "place": "shed"}, values, 1.0) == result


@pytest.mark.parametrize(
    "text",
    [
        "{{ $nosuch }}",
        "{{ if true }}",
        "{{ end }}",
        "{{ nosuch 1 }}",
        # valid in Grafana, but not supported by the stand-in
        '{{ template "x" }}',
        "{{ range $labels }}{{ . }}{{ end }}",
        "{{ if true }}a{{ else if true }}b{{ end }}",
        "{{ $x := 1 }}",
        "{{ humanize 1.0 }}",
        '{{ $values | printf "%v" }}',
        '{{ (printf "%v" 1) }}',
        "{{ $labels }}",
    ],
)
def test_invalid_annotations(text):
    with pytest.raises(templates.TemplateError):
        templates.expand(text, {}, {}, "")


def series(values: list[float | None], **labels: str):
    return expressions.Series(labels, list(range(len(values))), values)


@pytest.mark.parametrize(
    ("how", "values", "result"),
    [
        ("last", [2.0, 4.0, None], "None"),
        ("mean", [2.0, 4.0, None], "nan"),
        ("mean", [2.0, 4.0], "3.0"),
        ("count", [2.0, 4.0, None], "3.0"),
        ("min", [2.0, 4.0], "2.0"),
        ("max", [2.0, 4.0], "4.0"),
        ("sum", [2.0, 4.0], "6.0"),
        ("sum", [], "0.0"),
    ],
)
def test_reduce(how, values, result):
    model = {"type": "reduce", "expression": "A", "reducer": how}
    (number,) = expressions.evaluate("B", model, {"A": [series(values, device="d0")]})
    assert (number.labels, str(number.value)) == ({"device": "d0"}, result)


@pytest.mark.parametrize(
    "model",
    [
        {"type": "reduce", "expression": "A", "reducer": "median"},
        {"type": "reduce", "expression": "A", "reducer": "last", "settings": {"mode": "dropNN"}},
        {"type": "resample", "expression": "A"},
        {"type": "classic_conditions", "conditions": []},
        {"type": "math", "expression": "abs($A)"},
        {"type": "math", "expression": "$A + 1"},
    ],
)
def test_expressions_that_the_stand_in_does_not_support_are_errors(model):
    with pytest.raises(expressions.ExpressionError):
        expressions.check(model)


@pytest.mark.parametrize(
    ("kind", "params", "result"),
    [
        ("gt", [5], 0.0),
        ("lt", [6], 1.0),
        ("gte", [5], 1.0),
        ("within_range", [4, 6], 1.0),
        ("within_range", [5, 6], 0.0),
        ("within_range_included", [5, 6], 1.0),
        ("outside_range", [1, 4], 1.0),
        ("outside_range", [1, 5], 0.0),
        ("eq", [5], 1.0),
    ],
)
def test_threshold(kind, params, result):
    model = {"type": "threshold", "expression": "B", "conditions": [{"evaluator": {"type": kind, "params": params}}]}
    assert expressions.evaluate("C", model, {"B": [expressions.Number({}, 5.0)]})[0].value == result


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("$A * 2", 10.0),
        ("$A > 4 && $A < 6", 1.0),
        ("$A < 1 || $B < 1", 0.0),
        ("$A == 5", 1.0),
        ("${A} != 5 || ($A >= 5 && $B <= 7)", 1.0),
    ],
)
def test_math(text, result):
    numbers = {"A": [expressions.Number({}, 5.0)], "B": [expressions.Number({}, 7.0)]}
    assert expressions.evaluate("C", {"type": "math", "expression": text}, numbers)[0].value == result


def test_math_matches_values_by_their_labels():
    device = expressions.Number({"device": "d0"}, 1.0), expressions.Number({"device": "d1"}, 2.0)
    others = expressions.Number({"device": "d1", "x": "y"}, 10.0), expressions.Number({"device": "d2"}, 20.0)
    found = expressions.evaluate("C", {"type": "math", "expression": "$A * $B"}, {"A": [*device], "B": [*others]})
    assert [(number.labels, number.value) for number in found] == [({"device": "d1", "x": "y"}, 20.0)]


def test_math_with_one_value_on_each_side_ignores_different_labels():
    left, right = expressions.Number({"a": "x"}, 1.0), expressions.Number({"a": "y"}, 2.0)
    (found,) = expressions.evaluate("C", {"type": "math", "expression": "$A * $B"}, {"A": [left], "B": [right]})
    assert (found.labels, found.value) == ({}, 2.0)


def test_math_without_a_number():
    numbers = {"A": [expressions.Number({}, float("nan"))], "B": [expressions.Number({}, None)]}
    for text, result in {"$A > 1": "nan", "1 || $A": "1.0", "0 && $A": "0.0", "$B * 1": "None"}.items():
        assert str(expressions.evaluate("C", {"type": "math", "expression": text}, numbers)[0].value) == result
    (found,) = expressions.evaluate("C", {"type": "math", "expression": "$A < 1"}, {"A": [expressions.NoData()]})
    assert isinstance(found, expressions.NoData)


@pytest.mark.parametrize("text", ["$A *", "$A $B", "($A", "1 ? 2"])
def test_invalid_math(text):
    with pytest.raises(expressions.ExpressionError):
        expressions.check({"type": "math", "expression": text})


RULE = {
    "uid": "r",
    "title": "R",
    "folderUID": "f",
    "interval": 10,
    "for": "20s",
    "keep_firing_for": "0s",
    "missing": 2,
    "noDataState": "NoData",
    "execErrState": "Error",
    "labels": {},
    "annotations": {},
    "notification_settings": None,
}


def states(*outcomes: str, **changes: str) -> list[str]:
    """The states of a device's alert after each evaluation; "" is an evaluation that returns no such device."""
    machine, shown = rule_states.RuleStates(), []
    for number, outcome in enumerate(outcomes):
        results = [rule_states.Evaluation(outcome, {"device": "d0"})] if outcome else []
        machine.process({**RULE, **changes}, "tig-pi", results, 1000.0 + 10 * number)
        shown.append(" ".join(instance.formatted for instance in machine.instances.values()))
    return shown


def test_an_alert_is_pending_before_it_fires():
    assert states("Normal", "Alerting", "Alerting", "Alerting", "Normal") == [
        "Normal",
        "Pending",
        "Pending",
        "Alerting",
        "Normal",
    ]


def test_an_alert_keeps_firing_for_the_time_of_its_rule():
    shown = states("Alerting", "Normal", "Normal", "Normal", **{"for": "0s", "keep_firing_for": "20s"})
    assert shown == ["Alerting", "Recovering", "Recovering", "Normal"]


def test_an_alert_whose_series_is_missing_ends_after_two_evaluations():
    assert states("Alerting", "", "", **{"for": "0s"}) == ["Alerting", "Alerting", ""]


def test_no_data_sets_the_state_of_all_alerts_of_a_rule():
    assert (
        states("Normal", "NoData", "NoData", **{"noDataState": "Alerting", "for": "0s"})[1:]
        == ["Alerting (NoData)"] * 2
    )
    assert states("Alerting", "NoData", "Error", noDataState="KeepLast", execErrState="KeepLast", **{"for": "0s"}) == [
        "Alerting",
        "Alerting (NoData, KeepLast)",
        "Alerting (Error, KeepLast)",
    ]


def test_nested_policies_are_refused(tmp_path):
    documents = store.Store(tmp_path / "state.db")
    policy = {"receiver": policies.DEFAULT_RECEIVER, "group_wait": "5s"}
    policies.check_tree(policy, documents)
    with pytest.raises(policies.PolicyError, match="does not support nested policies"):
        policies.check_tree({**policy, "routes": [policy]}, documents)
    with pytest.raises(policies.PolicyError, match="root route must not have any matchers"):
        policies.check_tree({**policy, "matchers": ["a=b"]}, documents)


@pytest.fixture
def notifier(tmp_path):
    """A notifier with one contact point; `delivered` lists its notifications."""
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf/defaults.ini").write_text("")
    (tmp_path / "grafana.ini").write_text("")
    documents = store.Store(tmp_path / "state.db")
    point = {"uid": "x", "name": "x", "type": "webhook", "settings": {"url": "x"}, "disableResolveMessage": False}
    documents.put("contact_point", "x", point)
    tree = {"receiver": "x", "group_wait": "10s", "group_interval": "60s", "repeat_interval": "1h"}
    documents.put("policies", "tree", {"tree": tree})
    own = notifications.Notifier(documents, settings.Settings(tmp_path, tmp_path / "grafana.ini"))
    own.delivered = []
    own._webhook = lambda point, payload: own.delivered.append(payload)
    yield own
    documents.close()


def test_notifications_are_grouped_and_not_repeated(notifier):
    machine, now = rule_states.RuleStates(), 1000.0

    def evaluate(at: float, **devices: str) -> None:
        outcomes = [rule_states.Evaluation(state, {"device": name}) for name, state in devices.items()]
        notifier.take(machine.process({**RULE, "for": "0s"}, "tig-pi", outcomes, at), at)
        notifier.tick(at)

    def delivered() -> list[tuple[str, list[str]]]:
        found = [(body["status"], [a["labels"]["device"] for a in body["alerts"]]) for body in notifier.delivered]
        notifier.delivered.clear()
        return found

    evaluate(now, d0="Alerting", d1="Normal")
    assert delivered() == []
    evaluate(now + 10, d0="Alerting", d1="Normal")
    assert delivered() == [("firing", ["d0"])]
    evaluate(now + 20, d0="Alerting", d1="Alerting")
    assert delivered() == []
    evaluate(now + 70, d0="Alerting", d1="Alerting")
    assert delivered() == [("firing", ["d0", "d1"])]
    evaluate(now + 130, d0="Alerting", d1="Alerting")
    assert delivered() == []
    evaluate(now + 140, d0="Normal", d1="Normal")
    evaluate(now + 190, d0="Normal", d1="Normal")
    assert delivered() == [("resolved", ["d0", "d1"])]
    evaluate(now + 300, d0="Normal", d1="Normal")
    assert delivered() == []
