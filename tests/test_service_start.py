"""No service is started on the host if its facts, or an earlier task of the run, say that it runs."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.tig_pi.stack.plugins.action import service_state

UNIT = "telegraf.service"
SERVICES = {
    UNIT: {"state": "running", "status": "enabled"},
    "grafana-server.service": {"state": "running", "status": "disabled"},
    "mosquitto.service": {"state": "stopped", "status": "enabled"},
}
FACTS = {"services": SERVICES, "listeners": [{"port": 1883, "protocol": "tcp"}]}


@pytest.fixture
def run(monkeypatch):
    """The action on a host with these facts: its result, and whether the module has run there."""
    monkeypatch.setattr(service_state.ActionBase, "run", lambda *_: {})

    def do(*services, state="started", facts=FACTS, answer=None):
        calls = []

        def execute(module, module_args, task_vars):
            calls.append(module_args)
            return answer or {"changed": True}

        args = {"services": [{"unit": one} if isinstance(one, str) else one for one in services], "state": state}
        action = object.__new__(service_state.ActionModule)
        action._task = SimpleNamespace(args={name: value for name, value in args.items() if value})
        action._execute_module = execute
        return action.run(task_vars={"ansible_facts": facts}), len(calls) == 1

    return do


def test_a_service_that_runs_and_is_enabled_is_not_changed(run):
    assert run(UNIT) == ({"changed": False}, False)


@pytest.mark.parametrize("unit", ["grafana-server.service", "mosquitto.service", "influxdb.service"])
def test_a_service_that_does_not_run_or_is_not_enabled_is_started(run, unit):
    assert run(unit)[1]
    assert run(UNIT, unit)[1]


@pytest.mark.parametrize(
    ("ports", "starts"),
    [
        ([], False),
        ([{"port": 1883}], False),
        ([{"port": "1883", "protocol": "tcp"}], False),
        ([{"port": 1883, "protocol": "udp"}], True),
        ([{"port": 1883}, {"port": 8883}], True),
    ],
)
def test_a_service_that_does_not_listen_on_all_of_its_ports_is_started(run, ports, starts):
    assert run({"unit": UNIT, "ports": ports})[1] is starts


def test_without_facts_a_service_is_started(run):
    assert run(UNIT, facts={})[1]
    assert run({"unit": UNIT, "ports": [{"port": 1883}]}, facts={"services": SERVICES})[1]


@pytest.mark.parametrize("state", ["restarted", None])
def test_facts_do_not_count_for_a_restart_or_a_check(run, state):
    assert run(UNIT, state=state)[1]


@pytest.mark.parametrize("state", ["started", "restarted"])
def test_a_service_is_not_started_again_after_a_start_or_restart(run, state):
    result, _ = run("influxdb.service", state=state)
    later = FACTS | result["ansible_facts"]
    assert run("influxdb.service", facts=later) == ({"changed": False}, False)
    assert run("node-red.service", facts=later)[1]


def test_a_service_that_failed_or_was_only_checked_is_started_later(run):
    assert "ansible_facts" not in run("influxdb.service", answer={"failed": True})[0]
    assert "ansible_facts" not in run("influxdb.service", state=None)[0]


def test_a_service_without_a_unit_is_an_error(run):
    with pytest.raises(AnsibleActionFail, match="missing required arguments: unit found in services"):
        run({"ports": []})


START = """
- hosts: all
  gather_facts: false
  tasks:
    - name: Start it
      tig_pi.stack.service_state:
        services: [{unit: telegraf.service}]
        state: started
        settle: 0
    - name: Start it again
      tig_pi.stack.service_state:
        services: [{unit: telegraf.service}]
        state: started
        settle: 0
"""
SYSTEMCTL = """#!/bin/sh
echo "$@" >>{log}
printf 'LoadState=loaded\\nActiveState=active\\nUnitFileState=enabled\\nNRestarts=0\\nJob=\\n'
"""


def test_services_started_by_an_earlier_run_do_not_count_with_cached_facts(ansible_playbook, tmp_path, monkeypatch):
    log, program = tmp_path / "log", tmp_path / "bin/systemctl"
    program.parent.mkdir()
    program.write_text(SYSTEMCTL.format(log=log))
    program.chmod(0o755)
    cache = {"ANSIBLE_CACHE_PLUGIN": "jsonfile", "ANSIBLE_CACHE_PLUGIN_CONNECTION": str(tmp_path / "cache")}
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    first = ansible_playbook(START, environment=cache)
    assert first.returncode == 0, first.stdout
    looks = len(log.read_text().splitlines())
    second = ansible_playbook(START, environment=cache)
    assert second.returncode == 0, second.stdout
    assert len(log.read_text().splitlines()) == 2 * looks
    assert looks == 2  # those of the first task: before it starts anything, and after
