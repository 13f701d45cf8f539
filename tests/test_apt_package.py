"""Packages are installed with apt, unless the host's facts say that the wanted versions are there."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.tig_pi.stack.plugins.action import apt_package

FACTS = {"packages": {"grafana": [{"name": "grafana", "version": "12.4.1", "arch": "arm64", "source": "apt"}]}}


@pytest.fixture
def run(monkeypatch):
    """The action on a host with these packages, where apt answers with a result; it returns the result and apt's arguments."""
    monkeypatch.setattr(apt_package.ActionBase, "run", lambda *_: {})

    def do(args, apt=None, check_mode=False, facts=FACTS):
        asked = []

        def execute(name, module_args, task_vars):
            assert name == "ansible.builtin.apt"
            asked.append(module_args)
            return apt or {"changed": True}

        action = object.__new__(apt_package.ActionModule)
        action._task = SimpleNamespace(args=args, check_mode=check_mode)
        action._execute_module = execute
        return action.run(task_vars={"ansible_facts": facts}), asked

    return do


@pytest.mark.parametrize("wanted", [["grafana"], ["grafana=*"], ["grafana=12.*"], []])
def test_apt_does_not_run_for_what_is_installed(run, wanted):
    assert run({"name": wanted}) == ({"changed": False}, [])


@pytest.mark.parametrize("wanted", ["grafana=13.*", "grafana=12.1*", "influxdb"])
def test_apt_installs_what_is_not(run, wanted):
    result, [asked] = run({"name": [wanted], "allow_downgrade": True, "cache_valid_time": 60})
    assert result == {"changed": True}
    assert asked["name"] == [wanted]
    assert asked["allow_downgrade"]
    assert (asked["cache_valid_time"], asked["policy_rc_d"], asked["install_recommends"]) == (60, 101, False)


FAILED = {"failed": True, "msg": "No package matching 'influxdb' is available"}


@pytest.mark.parametrize(
    ("wanted", "check_mode", "result"),
    [
        ("influxdb", False, FAILED),
        ("influxdb", True, {"changed": True}),
        ("grafana=13.*", True, FAILED),  # an installed package has a source
    ],
)
def test_a_package_that_apt_does_not_know_is_an_error_unless_its_source_was_only_to_be_written(
    run, wanted, check_mode, result
):
    assert run({"name": [wanted]}, apt=FAILED, check_mode=check_mode)[0] == result


def test_without_facts_it_is_an_error(run):
    with pytest.raises(AnsibleActionFail, match="gather package facts first"):
        run({"name": ["grafana"]}, facts={})
