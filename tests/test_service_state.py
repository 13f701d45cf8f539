"""A service is started or restarted in one call, which waits until it runs."""

from __future__ import annotations

import json
import os
import subprocess
import time
from types import SimpleNamespace

import pytest
from ansible_collections.tig_pi.stack.plugins.modules import service_state

RUNNING = {"LoadState": "loaded", "ActiveState": "active", "UnitFileState": "enabled", "NRestarts": "0", "Job": ""}
STOPPED = RUNNING | {"ActiveState": "inactive", "Result": "success"}
MISSING = {"LoadState": "not-found", "ActiveState": "inactive", "UnitFileState": ""}
UNIT = "telegraf.service"


class Ended(Exception):
    """The module has ended."""


class Module:
    """What the module needs of AnsibleModule."""

    def __init__(self, state, check_mode, units, settle=0) -> None:
        services = [{"unit": unit, "ports": [], "timeout": 2} for unit in units]
        self.params = {"services": services, "state": state, "settle": settle, "wait": True, "journal": False}
        self.check_mode = check_mode

    @staticmethod
    def run_command(command):
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        return result.returncode, result.stdout, result.stderr

    def exit_json(self, **result):
        raise Ended(result)

    def fail_json(self, **result):
        raise Ended(result | {"failed": True})


@pytest.fixture
def systemd(tmp_path, monkeypatch):
    """A host whose units have these properties, one dictionary for each look: systemd({"telegraf.service": [STOPPED, RUNNING]}).
    The last look lasts."""
    state, log = tmp_path / "state.json", tmp_path / "log"
    program = tmp_path / "systemctl"
    program.write_text(
        f"""#!/usr/bin/env python3
import json, pathlib, sys
state = json.loads(pathlib.Path("{state}").read_text())
command = [argument for argument in sys.argv[1:] if not argument.startswith("--property=")]
if command[0] != "show":
    with open("{log}", "a") as file:
        print(*command, file=file)
    sys.exit(command[-1] == "refused.service" and "failed, says systemd")
shown = []
for unit in command[1:]:
    shown.append("\\n".join(f"{{name}}={{value}}" for name, value in state[unit][0].items()))
    if len(state[unit]) > 1:
        del state[unit][0]
print("\\n\\n".join(shown))
pathlib.Path("{state}").write_text(json.dumps(state))
"""
    )
    program.chmod(0o755)
    journal = tmp_path / "journalctl"
    journal.write_text("#!/bin/sh\n")
    journal.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(service_state, "INTERVAL", 0.05)

    def run(units, state_wanted, check_mode=False, **options):
        state.write_text(json.dumps(units))
        module = Module(state_wanted, check_mode, units, **options)
        monkeypatch.setattr(service_state, "AnsibleModule", lambda **_: module)
        with pytest.raises(Ended) as ended:
            service_state.main()
        told = log.read_text().splitlines() if log.exists() else []
        return SimpleNamespace(**({"told": told, "failed": False} | ended.value.args[0]))

    return run


def test_a_service_that_runs_is_not_changed(systemd):
    run = systemd({UNIT: [RUNNING]}, "started")
    assert (run.changed, run.told) == (False, [])


def test_a_service_that_is_stopped_is_started_and_waited_for(systemd):
    run = systemd({UNIT: [STOPPED, STOPPED | {"Job": "7"}, RUNNING]}, "started")
    assert (run.changed, run.told) == (True, [f"--no-block start {UNIT}"])
    assert run.services[0]["state"] == "running"


def test_a_service_that_is_disabled_is_enabled(systemd):
    run = systemd({UNIT: [RUNNING | {"UnitFileState": "disabled"}]}, "started")
    assert (run.changed, run.told) == (True, [f"enable {UNIT}"])


def test_only_the_services_that_need_it_are_started(systemd):
    run = systemd({UNIT: [RUNNING], "mosquitto.service": [STOPPED, RUNNING]}, "started")
    assert run.told == ["--no-block start mosquitto.service"]


def test_a_service_is_restarted_with_its_unit_loaded_again(systemd):
    run = systemd({UNIT: [RUNNING]}, "restarted")
    assert (run.changed, run.told) == (True, ["daemon-reload", f"--no-block restart {UNIT}"])


def test_failures_before_the_restart_do_not_count(systemd):
    """It had been up for long, or had been restarted by systemd several times."""
    before = RUNNING | {"Job": "7", "NRestarts": "5", "InactiveExitTimestampMonotonic": "1"}
    run = systemd({UNIT: [RUNNING, before, before, RUNNING]}, "restarted")
    assert not run.failed, run.msg
    assert (run.services[0]["state"], run.services[0]["restarts"]) == ("running", 0)


def test_a_service_that_keeps_ending_after_its_restart_is_an_error(systemd):
    looks = [RUNNING, RUNNING | {"Job": "7", "NRestarts": "5"}]
    looks += [RUNNING | {"ActiveState": "activating", "NRestarts": str(count)} for count in (0, 1, 2)]
    run = systemd({UNIT: looks}, "restarted")
    assert run.failed
    assert f"{UNIT} does not stay up: systemd has restarted it 2 times" in run.msg


def test_a_service_that_fails_after_its_restart_is_an_error(systemd):
    failed = RUNNING | {"ActiveState": "failed", "Result": "exit-code"}
    run = systemd({UNIT: [RUNNING, RUNNING | {"Job": "7"}, failed]}, "restarted")
    assert run.failed
    assert f"{UNIT} has ended with an error" in run.msg


def test_a_job_that_does_not_end_is_an_error_after_the_timeout(systemd):
    began = time.monotonic()
    run = systemd({UNIT: [RUNNING, RUNNING | {"Job": "7"}]}, "restarted")
    assert run.failed
    assert "longer than its timeout of 2 s" in run.msg
    assert 2 < time.monotonic() - began < 20


def test_an_error_of_systemd_is_reported_in_its_words(systemd):
    run = systemd({"refused.service": [STOPPED]}, "started")
    assert run.failed
    assert run.msg == "systemctl --no-block start refused.service failed: failed, says systemd"


@pytest.mark.parametrize("state", ["started", "restarted"])
def test_a_missing_unit_is_an_error_except_in_check_mode(systemd, state):
    run = systemd({UNIT: [MISSING]}, state)
    assert run.failed
    assert "cannot be started: its unit is not-found" in run.msg
    run = systemd({UNIT: [MISSING]}, state, check_mode=True)
    assert (run.failed, run.changed) == (False, False)


@pytest.mark.parametrize(
    ("found", "state", "changed"),
    [
        (RUNNING, "started", False),
        (RUNNING, "restarted", True),
        (STOPPED, "started", True),
        (RUNNING | {"UnitFileState": "disabled"}, "started", True),
    ],
)
def test_check_mode_reports_and_changes_nothing(systemd, found, state, changed):
    run = systemd({UNIT: [found]}, state, check_mode=True)
    assert (run.changed, run.told) == (changed, [])
