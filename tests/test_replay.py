"""Requests of `make replay`: times as people write them, and the report of what became of them."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable

import pytest
import yaml
from ansible_collections.tig_pi.stack.plugins.filter.replay import (
    missing_spans,
    moment,
    replay_line,
    replay_lines,
    replay_request,
    replay_requests,
    replay_result,
)
from firmware.network import NAME, Broker, Device, TimeServer, until
from project import CONTRACT, REPOSITORY

NOW = 1_783_860_000  # 2026-07-12 14:40 in Stockholm
ZONE = "Europe/Stockholm"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-07-12 14:40", NOW),
        ("2026-07-12T14:40:05", NOW + 5),
        ("2026-07-12T12:40:00Z", NOW),
        ("2026-07-12 15:40+03:00", NOW),
        ("2026-07-12", NOW - (14 * 60 + 40) * 60),
        ("2026-01-12 14:40", NOW - 181 * 86400 + 3600),
        (str(NOW - 5), NOW - 5),
        (NOW - 5, NOW - 5),
        ("36h", NOW - 36 * 3600),
        ("2d", NOW - 2 * 86400),
        (" 90m ", NOW - 90 * 60),
        ("1w", NOW - 7 * 86400),
    ],
)
def test_a_time_as_people_write_it(text, seconds):
    assert moment(text, ZONE, NOW) == seconds


@pytest.mark.parametrize(
    "text",
    ["", "yesterday", "14:40", "5", "36", "36 h", "-1d", "2026-13-01", "2026-07-12 25:00", "20260712", "12.7.2026"],
)
def test_what_is_not_a_time(text):
    with pytest.raises(ValueError, match=r"is not a time; write it like 2026-07-12 14:40"):
        moment(text, ZONE, NOW)


@pytest.mark.parametrize(
    ("since", "until", "problem"),
    [
        ("36h", "", ""),
        ("36h", "35h", ""),
        ("36h", "2026-07-13", ""),  # in the future
        ("noon", "", "SINCE: 'noon' is not a time"),
        ("", "", "SINCE: '' is not a time"),
        ("36h", "noon", "UNTIL: 'noon' is not a time"),
        ("2026-07-13", "", "SINCE: 2026-07-13 00:00:00 is not in the past"),
        ("2019-07-13", "", "SINCE: 2019-07-13 00:00:00 is before there were any readings"),
        ("36h", "37h", "UNTIL: 2026-07-11 01:40:00 is not after SINCE, 2026-07-11 02:40:00"),
        ("36h", "36h", "is not after SINCE"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(since, until, problem):
    request = replay_request(since, until, ZONE, NOW)
    assert problem in request["problem"]
    assert bool(request["problem"]) is bool(problem)
    if not problem:
        assert request["since"] == NOW - 36 * 3600


@pytest.mark.parametrize(
    ("status", "spans"),
    [
        ({"kept_since": 50}, []),
        ({"kept_since": 100}, []),
        ({"kept_since": 130, "gaps": []}, [(100, 130)]),
        ({"kept_since": 500}, [(100, 200)]),
        (
            {"kept_since": 50, "gaps": [[10, 20], [90, 110], [150, 160], [190, 250], [300, 400]]},
            [(100, 110), (150, 160), (190, 200)],
        ),
        ({"kept_since": 130, "gaps": [[150, 160]]}, [(100, 130), (150, 160)]),
        ({"kept_since": 0}, [(100, 200)]),
        ({}, [(100, 200)]),
    ],
)
def test_what_a_device_does_not_have_any_more(status, spans):
    assert missing_spans(status, 100, 200) == spans


def result(state: str, **more) -> dict:
    command = {"do": "replay", "since": NOW - 3600}
    return {"state": state, "command": command, "answer": {}, "status": {"kept_since": 1}, "seconds": 12, **more}


@pytest.mark.parametrize(
    ("result", "line"),
    [
        (result("done", answer={"sent": 240}), "a: sent 240 readings again, in 12 s."),
        (
            result("done", answer={"sent": 120}, status={"kept_since": NOW - 1800}),
            "a: sent 120 readings again, in 12 s; it has no readings of 2026-07-12 13:40:00 to 2026-07-12 14:10:00.",
        ),
        (result("refused", answer={"reason": "unknown command"}), "a: refused the request: unknown command."),
        (result("away"), "a: does not answer; run the command again when `make status` shows that it is online."),
        (result("incapable"), "a: has a program that cannot send readings again; run `make flash`, and then"),
        (result("silent"), "a: accepted the request, and has been silent since; run the command again when"),
    ],
)
def test_the_line_of_a_device(result, line):
    said = replay_line("a", result, ZONE, NOW)
    assert said.startswith(line)
    assert said.endswith(".")
    assert not said.endswith("..")


def test_the_minutes_that_are_requested_to_be_safe_are_no_hole():
    """After a restoration: `since` is ten minutes before the newest reading in the backup."""
    found = result("done", answer={"sent": 1}, status={"kept_since": NOW - 3300})
    assert replay_line("a", found, ZONE, NOW, 600) == "a: sent 1 readings again, in 12 s."
    assert "; it has no readings of 2026-07-12 13:42:00 to 2026-07-12 13:45:00." in replay_line(
        "a", found, ZONE, NOW, 120
    )
    # The backup does not know this one.
    found["command"]["since"] = CONTRACT["earliest_time"] - 600
    assert replay_line("a", found, ZONE, NOW, 600) == "a: sent 1 readings again, in 12 s."


OPERATOR = CONTRACT["operator"]


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """A site with a broker and two devices, one of which exists. Its inventory."""
    folder = tmp_path_factory.mktemp("house")
    broker = Broker(folder / "broker")
    broker.account(OPERATOR, "operator")
    with (folder / "broker/acl").open("a") as acl:
        acl.write(f"user {OPERATOR}\ntopic write tig/+/command\ntopic read tig/+/answer\ntopic read tig/+/status\n")
    broker.start()
    clock = TimeServer()
    device = Device(folder / "device", profile="pycom")
    device.settings(broker.port, clock.port)
    inventory = folder / "inventory"
    secret = inventory / "secrets/mosquitto" / OPERATOR
    secret.parent.mkdir(parents=True)
    secret.write_text("operator\n")
    pi = {"ansible_connection": "local", "mosquitto_listeners": [{"port": broker.port}]}
    sensors = yaml.safe_load((REPOSITORY / "inventories/home/host_vars/matslopy4.yml").read_text())["lopy4_sensors"]
    devices = {name: {"lopy4_sensors": sensors} for name in (NAME, "attic")}
    functions = {
        name: {"hosts": {"pi": None}} for name in ("brokers", "databases", "collectors", "dashboards", "flows")
    }
    site = {"hosts": {"pi": pi}, "children": {**functions, "devices": {"hosts": devices}}}
    (inventory / "hosts.yml").write_text(yaml.safe_dump({"site": site}))
    (inventory / "group_vars/site").mkdir(parents=True)
    readings = (REPOSITORY / "inventories/home/group_vars/site/readings.yml").read_text()
    (inventory / "group_vars/site/readings.yml").write_text(readings)
    device.start()
    try:
        until(lambda: "broker: connected" in device.console, 40, device.console)
        yield inventory
    finally:
        device.close()
        clock.close()
        broker.stop()


def replay(inventory, *variables: str, options: Iterable[str] = ()) -> tuple[int, str]:
    command = [
        REPOSITORY / "bin/play",
        f"--inventory={inventory}",
        "playbooks/replay.yml",
        "--extra-vars=replay_timeout=3",
    ]
    command += [*(f"--extra-vars={variable}" for variable in variables), *options]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    return done.returncode, " ".join((done.stdout + done.stderr).split())


def test_a_device_sends_its_readings_again(house):
    code, said = replay(house, f"replay_device={NAME}", "replay_since=1d")
    assert code == 0, said
    assert re.search(rf"{NAME}: sent \d+ readings again, in \d+ s", said)
    assert "attic: does not" not in said


def test_a_device_that_is_away_is_named_and_the_others_are_asked(house):
    code, said = replay(house, "replay_since=1d")
    assert code != 0
    assert re.search(rf"{NAME}: sent \d+ readings again", said)
    assert "attic: does not answer" in said
    assert replay(house, "replay_since=1d", "replay_required=false")[0] == 0


@pytest.mark.parametrize(
    ("options", "code", "sentence"),
    [
        (["--check"], 0, "changed=0"),  # nothing is sent, and nothing is said to be owing
        ([f"--limit={NAME}"], 2, "--limit leaves out pi, the host of the database. Choose a device with DEVICE="),
    ],
)
def test_options_of_ansible(house, options, code, sentence):
    found, said = replay(house, "replay_since=1d", options=options)
    assert found == code, said
    assert sentence in said
    assert "attic" not in said.partition("PLAY RECAP")[0]


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        (["replay_device=atic", "replay_since=1d"], "the site has no device atic; its devices are"),
        (["replay_device=pi", "replay_since=1d"], "the site has no device pi"),
        (["replay_since=noon"], "is not a time; write it like"),
        (["replay_until=1d"], "is not a time; write it like"),
        (["replay_since=1d", "replay_until=2d"], "is not after SINCE"),
        ([], "nothing was restored on pi"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused_before_it_is_sent(house, variables, problem):
    code, said = replay(house, *variables)
    assert code != 0
    assert problem in said
    assert "Send the requests" not in said


def test_what_became_of_requests_is_recorded_by_device():
    replayed = {"devices": {"one": {"state": "done"}, "two": {"state": "away"}}}
    assert replay_result(["one", "two"], replayed) == {"done": ["one"], "owing": ["two"]}
    failed = {"failed": True, "msg": "Cannot connect to a broker at pi:1883: refused."}
    assert replay_result(["one", "two"], failed) == {"done": [], "owing": ["one", "two"]}
    (line,) = replay_lines(["one", "two"], failed, ZONE, NOW)
    assert line.startswith("one, two: Cannot connect to a broker at pi:1883: refused. `make pi` ")


def test_the_span_of_each_device_begins_before_its_newest_reading_in_the_backup():
    devices = [{"name": name, "host": f"{name}-host", "topic": f"tig/{name}"} for name in ("one", "two", "new")]
    backup = {"begun": NOW - 60.5, "newest": {"one": NOW - 3600, "two": NOW}}

    def asked(only: str = "", span: dict | None = None) -> dict:
        found = replay_requests(devices, only, span or {}, backup, 600)
        return {each["device"]: each["command"] for each in found}

    assert {device: command["since"] for device, command in asked().items()} == {
        "one-host": NOW - 3600 - 600,
        "two-host": NOW - 61 - 600,  # its clock is ahead
        "new-host": CONTRACT["earliest_time"] - 600,  # the backup does not know it
    }
    span = {"since": NOW - 9, "until": None, "problem": ""}
    assert asked("two-host", span) == {"two-host": {"do": "replay", "since": NOW - 9}}
    assert asked("two-host", {**span, "until": NOW})["two-host"] == {"do": "replay", "since": NOW - 9, "until": NOW}
    topics = replay_requests(devices, "", span, {}, 0)[0]["topics"]
    assert topics == {branch: f"tig/one/{CONTRACT['branches'][branch]}" for branch in ("command", "answer", "status")}
