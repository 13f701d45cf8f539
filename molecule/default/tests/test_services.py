"""What the verbs report about services that were asked to start but do not keep running."""

from __future__ import annotations

import json
import subprocess

import pytest

testinfra_hosts = ["ansible://servers"]

UNITS = ("chrony", "mosquitto", "influxdb", "telegraf", "grafana-server", "node-red")


@pytest.fixture
def status(project, inventory):
    def run():
        command = [project / "bin/status", inventory, "--format", "json"]
        return subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)

    return run


@pytest.mark.parametrize("how", ["cannot start", "exits without an error", "exits with an error"])
def test_every_verb_fails_if_a_service_does_not_stay_up(broken, playbook, status, how):
    broken(how, *UNITS)
    run = playbook("site.yml", "--tags=services")
    assert run.returncode != 0
    for unit in UNITS:
        assert f"{unit}.service does not stay up" in run.stdout, unit
    assert ("Control process exited" if how == "cannot start" else "Giving up") in run.stdout

    report = status()
    assert report.returncode == 1
    for service in json.loads(report.stdout)["services"]:
        assert service["state"] == "keeps restarting", service
        assert f"{service['unit']} does not stay up" in service["problem"]

    run = playbook("verify.yml", ANSIBLE_STDOUT_CALLBACK="tig_pi.stack.lines")
    assert run.returncode != 0
    assert "FAILED  Services: all of them run" in run.stdout
    assert "mosquitto.service does not stay up" in run.stdout
