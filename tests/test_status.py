"""What `make status` says of a site: the rows of its devices, and the whole as text."""

from __future__ import annotations

import http.server
import json
import os
import re
import subprocess
import threading
import time
import urllib.parse

import pytest
import yaml
from ansible_collections.tig_pi.stack.plugins.filter import status
from chain import Chain, free_port
from project import PROBE, REPOSITORY

FUNCTIONS = ("brokers", "databases", "collectors", "dashboards", "flows")


def series(device, at, **values):
    """The last point of a device as the database has it; what other points hold is there, too, as null."""
    return {
        "tags": {"device": device},
        "columns": ["time", "altitude", *values],
        "values": [[at, None, *values.values()]],
    }


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """A database with what a site has in it, and what it should not have."""
    chain = Chain(tmp_path_factory.mktemp("status") / "chain")
    chain.start_database()
    try:
        chain.create()
        chain.query('CREATE RETENTION POLICY "host" ON "iot" DURATION 30d REPLICATION 1')
        now = int(time.time())

        def write(line: str, back: int, database: str = "iot") -> None:
            chain.ask(f"write?db={database}", f"{line} {(now - back) * 10**9}".encode())

        for device, backs in {
            "new": [90_000, 80_000],
            "guest": [2_000, 1_000],
            "once": [500],
            "gone": [90_000] * 2,
        }.items():
            for back in backs:
                write(f"mqtt_consumer,device={device} outsidetemp={back}", back)
        write("mqtt_consumer,device=new casetemp=1", 10)
        for back in (400, 300):
            write('mqtt_consumer,device=evil\x1b[2Jname "a\x07b"=1,outsidetemp=2'.replace('"', ""), back)
            write(f"mqtt_consumer outsidetemp=25,wet={back}", back)
            write(f"mqtt_consumer,device={'long' * 30} outsidetemp=1", back)
            write(f"mqtt_consumer,device={PROBE} probe=1", back)
        # Somebody's clock was a day ahead.
        write("mqtt_consumer,device=new outsidetemp=77", -80_000)
        write('device_status,device=new online=0,waiting_for="77"', -80_000)
        write('device_status,device=new online=1,waiting_for="sensor",failed="dht11",version="1"', 80_000)
        for number in range(90):
            write(f"mqtt_consumer,device=flood{number} flood{number}=1", 600)
        for back, count in ((90_000, 50), (3000, 70), (2000, 73), (1000, 0), (500, 2)):
            write(f"pipeline,reason=not_json count={count}", back, "iot&rp=host")
            write("pipeline,reason=empty count=5", back, "iot&rp=host")
            write(f"mosquitto,host=pi publish_messages_dropped={count}", back, "iot&rp=host")
            write(f"internal_write,alias=host metrics_dropped={count},metrics_written={back}", back, "iot&rp=host")
        yield chain
    finally:
        chain.stop()


READINGS = [{"field": "outsidetemp"}, {"field": "airpressure"}]


def asked(chain, devices):
    """The database's answer, as the playbook has it."""
    statements = status.status_queries(devices, READINGS, "mqtt_consumer", "host", 5)
    form = urllib.parse.urlencode({"q": statements, "db": "iot", "epoch": "s"})
    results = json.loads(chain.ask("query", form.encode()))["results"]
    assert [result for result in results if "error" in result] == []
    return results


def test_declared_devices_are_listed_and_others_that_sent_more_than_once(chain):
    results = asked(chain, [{"name": "new"}, {"name": "newer"}])
    rows = {
        row["name"]: row for row in status.device_states([{"name": "new"}, {"name": "newer"}], results, time.time())
    }
    assert list(rows) == ["new", "newer", "", "evil\x1b[2Jname", "guest", "long" * 30]
    assert rows["new"]["reading"] == {"outsidetemp": 80_000}
    assert 80_000 <= rows["new"]["age"] < 80_100
    assert (rows["new"]["state"], rows["new"]["waiting_for"], rows["new"]["failed"]) == ("online", "sensor", "dht11")
    assert rows["newer"]["age"] is None
    assert 80_000 <= time.time() - rows["new"]["first_status"] < 80_100
    assert rows["guest"]["reading"] == {"outsidetemp": 1_000}


def test_without_declared_devices_those_that_publish_are_listed(chain):
    rows = status.device_states([], asked(chain, []), time.time())
    assert [row["name"] for row in rows] == ["", "evil\x1b[2Jname", "guest", "long" * 30, "new"]


def test_control_characters_in_names_are_escaped(chain):
    rows = status.device_states([], asked(chain, []), time.time())
    text = status.status_text({"services": [], "devices": rows, "sizes": [], "notes": []})
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "evil\\u{1b}[2Jname" in text
    assert max(map(len, text.splitlines())) < 160


def test_rejected_and_dropped_messages_of_the_last_day_are_reported(chain):
    results = asked(chain, [{"name": "new"}])
    assert status.message_faults(results) == {"not_json": 5}
    said = " ".join(status.message_notes(results, time.time()))
    assert "not_json 5." in said
    assert "The broker dropped 5 messages" in said
    assert "Telegraf dropped 5 points" in said
    assert "undeclared" not in said


def test_a_telegraf_that_no_longer_writes_is_reported(chain):
    """The database refuses it, for instance; what it would say of itself does not arrive either."""
    results = asked(chain, [{"name": "new"}])
    last = time.time() - 500
    assert "last wrote to the database" not in " ".join(status.message_notes(results, last + 60))
    said = " ".join(status.message_notes(results, last + 7260))
    assert "Telegraf last wrote to the database 2 h ago." in said
    assert "journalctl -u telegraf" in said


def test_a_list_that_is_cut_short_is_marked():
    many = [series(f"guest{number}", 99_990, outsidetemp=1) for number in range(60)]
    for one in many:
        one["values"] *= 2
    results = [{"statement_id": 8, "series": many}]
    assert len(status.device_states([], results, 100_000)) == 40
    assert "too many undeclared devices" in " ".join(status.message_notes(results, time.time()))


def test_without_rejected_messages_there_are_no_notes():
    assert status.message_notes([], 0) == []


def test_a_kernel_without_memory_limits_is_reported_with_the_fix():
    assert status.memory_notes([]) == []
    [note] = status.memory_notes(["raspberrypi"])
    assert "raspberrypi" in note
    assert "cgroup_enable=memory" in note


def test_points_of_the_tutorial_have_no_device_and_their_tags_are_not_readings():
    """Its Telegraf tagged each point with `host` and `topic`, and with nothing else."""
    last = series("", 99_990, host="raspberrypi", outsidetemp=25, topic="mats/test", wet=True)
    last["values"] *= 2
    (row,) = status.device_states([], [{"statement_id": 8, "series": [last]}], 100_000)
    assert row["name"] == ""
    assert row["reading"] == {"outsidetemp": 25}
    assert words(status.status_text({"services": [], "devices": [row], "sizes": [], "notes": []}))[-1] == [
        "(no device)",
        "unknown",
        "10 s ago",
        "outsidetemp=25",
    ]


LOOK = {"unit": "grafana-server.service", "state": "running", "since": 1_000, "restarts": 0, "problem": ""}
GRAFANA = {"name": "Grafana", "unit": "grafana-server.service", "host": "pi", "address": "http://pi:3000"}


@pytest.mark.parametrize(
    ("look", "error", "state", "problem"),
    [
        ({}, "", "runs", ""),
        ({"restarts": 7}, "", "runs", ""),
        ({"state": "starting"}, "refused", "starting since ", ""),
        ({"state": "starting", "problem": "too long"}, "refused", "does not become ready", "too long"),
        ({"state": "restarting", "problem": "its journal"}, "refused", "keeps restarting", "its journal"),
        (
            {},
            "x" * 500,
            "does not answer",
            "grafana-server.service runs on pi, but does not answer at http://pi:3000: xxx",
        ),
    ],
)
def test_the_state_of_a_service_combines_systemd_and_its_response(look, error, state, problem):
    (row,) = status.service_states([GRAFANA | {"error": error}], {"pi": [LOOK | look]})
    assert row["state"].startswith(state)
    assert len(row["state"]) < 30  # a long error has no place in a table
    assert row["problem"].startswith(problem)
    assert bool(row["problem"]) is bool(problem)


def test_a_service_without_an_address_has_a_row():
    looks = {"pi": [LOOK], "other": [LOOK | {"unit": "chrony.service"}]}
    rows = status.service_states([GRAFANA], looks)
    assert [(row["name"], row["state"]) for row in rows] == [("Grafana", "runs"), ("chrony on other", "runs")]


@pytest.mark.parametrize(
    ("password", "site_secrets", "place"),
    [
        ("in-the-file", {}, "secrets/grafana/admin"),
        ("in-a-vault", {"grafana/admin": "in-a-vault"}, 'site_secrets["grafana/admin"]'),
        ("set-for-the-role", {}, "grafana_admin_password"),
        ("set-for-the-role", {"grafana/admin": "in-a-vault"}, "grafana_admin_password"),
    ],
)
def test_the_location_of_a_password_is_reported(tmp_path, monkeypatch, password, site_secrets, place):
    (tmp_path / "secrets/grafana").mkdir(parents=True)
    (tmp_path / "secrets/grafana/admin").write_text("in-the-file\n")
    monkeypatch.setenv("PWD", str(tmp_path))
    found = status.secret_location(password, "grafana/admin", "grafana_admin_password", site_secrets, str(tmp_path))
    assert found == place


def test_a_password_without_a_file_is_in_the_variable_of_the_role(tmp_path):
    assert status.secret_location("x", "grafana/admin", "grafana_admin_password", {}, str(tmp_path)) == (
        "grafana_admin_password"
    )


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
def test_an_age_has_the_largest_unit_of_which_there_are_at_least_two(seconds, said):
    assert status.age(seconds) == said


AVERAGES = [{"interval": "5m", "retention": "104w"}, {"interval": "1h", "retention": "0s"}]


def test_a_year_of_a_device_has_the_size_that_was_measured():
    """25 MB of readings and 5 MB of averages were measured for four noisy readings every 15 seconds."""
    sizes = status.expected_sizes([{"fields": [1, 2, 3, 4], "interval": 15}], "0s", AVERAGES)
    assert [one["total"] is None for one in sizes] == [True, False, True]
    assert [round(one["per_year"] / 1e6) for one in sizes] == [25, 5, 0]
    assert status.expected_sizes([], "0s", [])[0]["per_year"] == 0


DAY = 86400
NOW = 1_800_000_000


def keeping(first_status=NOW - 200 * DAY, **status_):
    """The row of a device with this status, a day after the last backup, and the notes on it."""
    known = {"time": NOW - 20, "online": 1, "uptime": 100 * DAY} | status_
    first = {"time": first_status, "first": 1}
    results = [
        {"statement_id": number, "series": [{"tags": {"device": "a"}, "columns": [*row], "values": [[*row.values()]]}]}
        for number, row in ((1, known), (6, first))
    ]
    (row,) = status.device_states([{"name": "a"}], results, NOW, NOW - DAY)
    return row, status.device_notes([row], [{"name": "a"}], NOW - DAY)


def test_the_margin_is_what_a_device_keeps_from_before_the_last_backup():
    row, notes = keeping(kept_since=NOW - 15 * DAY, gaps="")
    assert (row["kept_for"], row["margin"], row["gaps"], notes) == (15 * DAY, 14 * DAY, [], [])


def test_a_margin_that_shrinks_is_reported_before_it_is_gone():
    row, [note] = keeping(kept_since=NOW - 2 * DAY + 7200)
    assert row["margin"] == DAY - 7200
    assert note.startswith(f"a has its readings since {status.moment(NOW - 2 * DAY + 7200)}. ")
    assert "run make backup" in note
    # That of a device that has started lately does not shrink.
    assert keeping(kept_since=NOW - 2 * DAY + 7200, uptime=2 * DAY - 7200)[1] == []


def test_readings_that_a_dead_card_would_cost_are_reported():
    row, [note] = keeping(kept_since=NOW - 3600, uptime=3600)
    assert row["margin"] == 3600 - DAY
    assert f"the readings of a from {status.moment(NOW - DAY)} to {status.moment(NOW - 3600)} would be lost" in note


def test_a_new_device_has_lost_nothing():
    """After a loss of power, the oldest reading of a device that keeps its readings in the flash is older than its start."""
    for since in (NOW - 3600, NOW - 2 * DAY + 7200):
        assert keeping(first_status=since - 5, kept_since=since, uptime=600)[1] == []
        assert len(keeping(kept_since=since, uptime=600)[1]) == 1


def test_a_device_with_gaps_is_named():
    row, [note] = keeping(kept_since=NOW - 15 * DAY, gaps=f"{NOW - 500}-{NOW - 400},{NOW - 50}-{NOW - 20}")
    assert row["gaps"] == [[NOW - 500, NOW - 400], [NOW - 50, NOW - 20]]
    assert note == (
        f"a has no readings of {status.moment(NOW - 500)} to {status.moment(NOW - 400)},"
        f" {status.moment(NOW - 50)} to {status.moment(NOW - 20)}."
    )


@pytest.mark.parametrize("of_status", [{}, {"kept_since": None, "gaps": None, "uptime": None}, {"kept_since": 0}])
def test_what_a_device_keeps_may_be_unknown(of_status):
    row, notes = keeping(**of_status)
    assert (row["kept_for"], row["margin"], notes) == (None, None, [])


def test_without_a_backup_there_is_no_margin():
    (row,) = status.device_states([{"name": "a"}], [], NOW)
    assert row["margin"] is None
    assert status.device_notes([row | {"kept_since": NOW}], [{"name": "a"}], 0) == []


def words(text):
    """The cells of each line; two blanks or more are between them."""
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in text.splitlines() if line]


def test_the_report_as_text():
    device = {"name": "greenhouse", "state": "online", "waiting_for": "sensor", "failed": "dht11", "age": 5}
    device |= {"kept_for": 9000, "margin": -3600 * 5}
    service = {
        "name": "Grafana",
        "state": "runs",
        "address": "http://pi:3000",
        "account": "admin",
        "password": "secrets/a",
        "restarts": 7,
        "problem": "grafana.service sulks.\nLast lines of its journal:\n  no",
    }
    text = status.status_text(
        {
            "services": [service],
            "devices": [device | {"reading": {"light": 1000.5, "airpressure": 1013.25}}],
            "sizes": status.expected_sizes(
                [{"fields": [1, 2, 3, 4], "interval": 15}, {"fields": [1], "interval": 60}], "30d", AVERAGES
            ),
            "notes": ["One.", "Two."],
        }
    )
    assert text == (
        "SERVICE  STATE                    ADDRESS         ACCOUNT  PASSWORD IN\n"
        "Grafana  runs, restarted 7 times  http://pi:3000  admin    secrets/a\n"
        "\n"
        "DEVICE      STATE                  WAITS FOR  KEEPS  MARGIN  LAST READING\n"
        "greenhouse  online, failed: dht11  sensor     2 h    -5 h    5 s ago       airpressure=1013.25 light=1000.5\n"
        "\n"
        "STORED          KEPT     EXPECTED SIZE\n"
        "readings        30d      2.2 MB\n"
        "averages of 5m  104w     13 MB\n"
        "averages of 1h  forever  0.5 MB a year\n"
        "\n"
        "* grafana.service sulks.\n"
        "  Last lines of its journal:\n"
        "    no\n"
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


# What systemd says of a service that has run for long, and of one that was stopped.
SHOWN = "LoadState=loaded\nActiveState=%s\nSubState=%s\nResult=success\nNRestarts=0\nJob=\nConditionResult=yes\n"
SHOWN += "InactiveExitTimestampMonotonic=1\nActiveEnterTimestampMonotonic=1\n\n"
SYSTEMCTL = f"""#!/bin/sh
for unit in "$@"; do
  case $unit in
    telegraf.service) printf '{SHOWN % ("inactive", "dead")}' ;;
    *.service) printf '{SHOWN % ("active", "running")}' ;;
  esac
done
"""
JOURNALCTL = """#!/bin/sh
echo '{"MESSAGE": "I have had enough", "INVOCATION_ID": "1"}'
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """What bin/status says of a site on this machine, with a proxy in the environment that nobody answers at."""
    inventory = tmp_path_factory.mktemp("site")
    programs = tmp_path_factory.mktemp("bin")
    for name, script in (("systemctl", SYSTEMCTL), ("journalctl", JOURNALCTL)):
        (programs / name).write_text(script.replace("\n'", "\\n'"))
        (programs / name).chmod(0o755)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Services) as server:
        threading.Thread(target=server.serve_forever).start()
        pi = {
            "ansible_connection": "local",
            "grafana_http_port": server.server_port,
            "node_red_http_port": server.server_port,
            "node_red_admin_password": "set-for-the-role",
            "mosquitto_listeners": [{"port": free_port()}],
        }
        functions = {name: {"hosts": {"pi": None}} for name in FUNCTIONS}
        (inventory / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": {"pi": pi}, "children": functions}}))
        proxy = f"http://127.0.0.1:{free_port()}"
        result = subprocess.run(
            [REPOSITORY / "bin/status", inventory, "--ask-become-pass"],
            cwd=REPOSITORY,
            env={
                **os.environ,
                "PATH": f"{programs}:{os.environ['PATH']}",
                "http_proxy": proxy,
                "HTTP_PROXY": proxy,
                "no_proxy": "",
            },
            input="sesame\n",
            start_new_session=True,  # without a terminal the password is read from the input
            capture_output=True,
            text=True,
            check=False,
        )
        server.shutdown()
    return result


def services(said):
    """The state of each service."""
    return {cells[0]: cells[1] for cells in words(said.stdout.partition("\n\n")[0])}


def test_a_proxy_in_the_environment_is_not_used(said):
    states = services(said)
    assert (states["Grafana"], states["Node-RED"]) == ("runs", "runs")


def test_the_location_of_a_password_is_that_of_the_site(said):
    places = {cells[0]: cells[-1] for cells in words(said.stdout.partition("\n\n")[0])}
    assert places["Grafana"].endswith("/secrets/grafana/admin")
    assert places["Node-RED"] == "node_red_admin_password"
    assert "set-for-the-role" not in said.stdout


def test_a_stopped_service_is_reported_with_its_last_messages(said):
    assert services(said)["Telegraf"] == "does not run"
    assert (
        "* telegraf.service was stopped, or has ended without an error.\n  Last lines of its journal:\n    I have had enough\n"
        in said.stdout
    )


def test_a_service_that_does_not_listen_is_reported(said):
    assert services(said)["Mosquitto"] == "does not listen"
    assert re.search(r"mosquitto.service runs, but does not listen on port \d+/tcp", said.stdout)


def test_the_verb_fails_if_a_service_does_not_run(said):
    assert said.returncode == 1
    assert re.match(r"Services with problems: Mosquitto, (InfluxDB, )?Telegraf\.", said.stderr.splitlines()[-1])


def test_a_wrong_option_is_an_error_of_ansible_playbook():
    command = [REPOSITORY / "bin/status", REPOSITORY / "inventories/home", "--no-such-option"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "unrecognized arguments: --no-such-option" in result.stderr


def test_the_stand_in_and_a_missing_contact_point_are_reported_at_the_end(said):
    assert said.stdout.splitlines()[-2:] == [
        "* Grafana is a stand-in: it has the API and the alerts of Grafana, but no web pages.",
        "* Alerts are sent to nobody: site_contact_point is not set.",
    ]


def test_the_verb_asks_for_passwords(said):
    assert "BECOME password" in said.stderr
