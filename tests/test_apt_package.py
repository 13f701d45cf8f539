"""Apt sources are written and packages installed, unless the host's facts say that this is done."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import zlib
from functools import partial
from types import SimpleNamespace

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.tig_pi.stack.plugins.action import apt_package
from ansible_collections.tig_pi.stack.plugins.module_utils import interrupted_apt
from ansible_collections.tig_pi.stack.plugins.module_utils.interrupted_apt import is_interrupted
from ansible_collections.tig_pi.stack.plugins.modules import host_facts

FACTS = {"packages": {"grafana": [{"name": "grafana", "version": "12.4.1", "arch": "arm64", "source": "apt"}]}}
NOTHING = {"changed": False, "upgraded": [], "diff": []}
SOURCE = {"dest": "/etc/apt/sources.list.d/grafana.sources", "content": "Types: deb\n"}
PIN = {"dest": "/etc/apt/preferences.d/grafana", "content": "Pin-Priority: 995\n"}


@pytest.fixture
def run(monkeypatch):
    """The action on a host with these packages: its result, and the modules that it has run there with their arguments.
    A module's answers come one after the other; the last one lasts.
    """
    monkeypatch.setattr(apt_package.ActionBase, "run", lambda *_: {})
    monkeypatch.setattr(apt_package, "RETRY_DELAY", 0)

    def do(args, check_mode=False, facts=FACTS, **answers):
        calls = []

        def execute(module, module_args, task_vars):
            name = module.rpartition(".")[2]
            calls.append((name, module_args))
            answer = answers.get(name, {"changed": True})
            if isinstance(answer, list):
                answer = answer.pop(0) if len(answer) > 1 else answer[0]
            return dict(answer)

        action = object.__new__(apt_package.ActionModule)
        action._task = SimpleNamespace(args=args, check_mode=check_mode)
        action._execute_module = execute
        return action.run(task_vars={"ansible_facts": facts}), calls

    return do


def files(module_args):
    return json.loads(zlib.decompress(base64.b64decode(module_args["packed"])))


@pytest.mark.parametrize("wanted", [["grafana"], ["grafana=*"], ["grafana=12.*"], []])
def test_installed_packages_need_no_remote_call(run, wanted):
    assert run({"name": wanted}) == (NOTHING, [])


@pytest.mark.parametrize("wanted", ["grafana=13.*", "grafana=12.1*", "influxdb"])
def test_missing_packages_are_installed_from_updated_lists(run, wanted):
    result, [(first, _), (then, asked)] = run({"name": [wanted], "allow_downgrade": True, "lock_timeout": 60})
    assert (first, then) == ("command", "apt")
    assert result["changed"]
    assert asked == {
        "name": [wanted],
        "allow_downgrade": True,
        "lock_timeout": 60,
        "policy_rc_d": 101,
        "install_recommends": False,
        "update_cache": False,
    }


@pytest.mark.parametrize("check_mode", [False, True])
def test_an_upgrade_is_distinguished_from_a_first_installation(run, check_mode):
    result, _ = run({"name": ["grafana=13.*", "influxdb"]}, check_mode)
    assert result["upgraded"] == ["grafana=13.*"]
    result, _ = run({"name": ["influxdb"], "sources": [PIN]}, check_mode)
    assert result["upgraded"] == []


def test_a_changed_source_is_no_upgrade(run):
    result, [(module, asked)] = run({"name": ["grafana"], "sources": [SOURCE, PIN]})
    assert (module, files(asked)) == ("tree", [SOURCE, PIN])
    assert (result["changed"], result["upgraded"]) == (True, [])


def test_an_unchanged_source_is_not_a_change(run):
    result, _ = run({"name": ["grafana"], "sources": [SOURCE]}, tree={"changed": False})
    assert not result["changed"]


@pytest.mark.parametrize("check_mode", [False, True])
def test_a_source_that_this_run_has_written_is_not_compared_again(run, check_mode):
    result, _ = run({"name": ["grafana"], "sources": [SOURCE]}, check_mode)
    later = FACTS | result["ansible_facts"]
    assert run({"name": ["grafana"], "sources": [SOURCE]}, check_mode, later) == (NOTHING, [])
    result, [(_, asked)] = run({"name": ["grafana"], "sources": [PIN, SOURCE]}, check_mode, later)
    assert files(asked) == [PIN]
    assert result["ansible_facts"]["apt_sources"]["done"] == [SOURCE, PIN]


def test_the_diffs_of_all_steps_are_kept(run):
    result, _ = run(
        {"name": ["influxdb"], "sources": [SOURCE]},
        tree={"changed": True, "diff": [{"after": "source"}]},
        apt={"changed": True, "diff": {"prepared": "influxdb"}},
    )
    assert result["diff"] == [{"after": "source"}, {"prepared": "influxdb"}]


def test_nothing_is_installed_if_a_source_cannot_be_written(run):
    result, [(module, _)] = run({"name": ["influxdb"], "sources": [SOURCE]}, tree={"failed": True, "msg": "read-only"})
    assert (module, result["failed"], result["msg"]) == ("tree", True, "read-only")
    assert "ansible_facts" not in result


FAILED = {"failed": True, "msg": "No package matching 'influxdb' is available"}


@pytest.mark.parametrize(
    ("wanted", "check_mode", "fails"),
    [
        ("influxdb", False, True),
        ("influxdb", True, False),
        ("grafana=13.*", True, True),  # an installed package has a source
    ],
)
def test_a_package_that_apt_does_not_know_is_an_error_unless_its_source_was_only_to_be_written(
    run, wanted, check_mode, fails
):
    result, _ = run({"name": [wanted]}, check_mode, apt=FAILED)
    assert result.get("failed", False) is fails
    assert result["changed"] is not fails


INTERRUPTED = FACTS | {"apt_interrupted": True}


@pytest.mark.parametrize(("wanted", "modules"), [("grafana", ["command"]), ("influxdb", ["command", "command", "apt"])])
def test_what_a_power_cut_has_interrupted_is_completed_first(run, wanted, modules):
    """Even if the wanted packages are installed: others may not be, and apt would refuse the next one that a person wants."""
    result, calls = run({"name": [wanted]}, facts=INTERRUPTED)
    assert result["changed"]
    assert [module for module, _ in calls] == modules
    assert "dpkg" in calls[0][1]["argv"][-1]
    assert all(asked["state"] == "fixed" for module, asked in calls if module == "apt")


def test_check_mode_completes_nothing(run):
    result, calls = run({"name": ["grafana"]}, check_mode=True, facts=INTERRUPTED)
    assert (result["changed"], calls) == (True, [])


# dpkg's exit status and errors, as dpkg 1.21 has them.
HALF_DONE = {"failed": True, "rc": 1, "stderr": "telegraf: no space left\n"}
UNUSABLE = {"failed": True, "rc": 2, "stderr": "dpkg: error: parsing file updates/0003\n"}
DPKG_IS_LOCKED = {"failed": True, "rc": 2, "stderr": "dpkg: error: lock was locked by another process with pid 9\n"}


@pytest.mark.parametrize(
    ("wanted", "answer", "said"),
    [
        ("grafana", HALF_DONE, "telegraf: no space left\nRun `sudo apt --fix-broken install`"),  # apt does not run
        ("grafana", UNUSABLE, "parsing file updates/0003"),
        ("influxdb", UNUSABLE, "parsing file updates/0003"),  # apt could not work, either
        ("influxdb", DPKG_IS_LOCKED, "locked by another process with pid 9"),
    ],
)
def test_what_neither_dpkg_nor_apt_can_complete_is_an_error_with_the_reason(run, wanted, answer, said):
    with pytest.raises(AnsibleActionFail, match=f"dpkg cannot complete an installation that was interrupted: .*{said}"):
        run({"name": [wanted], "lock_timeout": 0}, facts=INTERRUPTED, command=answer)


def test_what_dpkg_cannot_complete_is_left_to_apt_with_a_warning(run):
    command = [DPKG_IS_LOCKED, HALF_DONE, {"changed": True}]
    answer = {"changed": True, "warnings": ["of apt"]}
    result, calls = run({"name": ["influxdb"]}, facts=INTERRUPTED, command=command, apt=answer)
    assert [module for module, _ in calls] == ["command", "command", "command", "apt"]
    assert calls[-1][1]["state"] == "fixed"
    first, second = result["warnings"]
    assert "telegraf: no space left" in first
    assert second == "of apt"


INSTALLED = ["ii ", "hi ", "rc ", "un "]


@pytest.mark.parametrize(
    ("policy", "files", "statuses", "interrupted"),
    [
        (None, [], INSTALLED, False),
        (None, ["tmp.i"], INSTALLED, False),  # apt does not mind it: dpkg had written its state before
        (None, ["0000", "tmp.i"], INSTALLED, True),
        ("#!/bin/sh\nexit 101\n", [], INSTALLED, True),
        ("", [], INSTALLED, True),  # the power was cut before its content was on the card
        ("#!/bin/sh\n# of the site\nexit 101\n", [], INSTALLED, False),
        # dpkg has completed its journal, and the power was cut again before apt has completed the packages.
        *[(None, [], [*INSTALLED, status], True) for status in ("iU ", "iF ", "iHR", "hF ", "it ", "iW ", "rH ")],
    ],
)
def test_what_dpkg_or_ansible_leave_shows_that_apt_was_interrupted(tmp_path, policy, files, statuses, interrupted):
    (tmp_path / "updates").mkdir()
    for name in files:
        (tmp_path / "updates" / name).touch()
    path = tmp_path / "policy-rc.d"
    if policy is not None:
        path.write_text(policy)
    assert is_interrupted(statuses, str(tmp_path / "updates"), str(path)) is interrupted


def test_a_package_that_is_not_complete_is_not_installed_and_costs_no_further_program(tmp_path, monkeypatch):
    calls = []

    class Module:
        def run_command(self, command):
            calls.append(command)
            return 0, "ii \tgrafana\t12.4.1\tarm64\niF \ttelegraf\t1.39\tarm64\nrc \told\t1\tall\n", ""

    monkeypatch.setattr(
        host_facts, "is_interrupted", partial(is_interrupted, journal=tmp_path, policy=tmp_path / "none")
    )
    host = host_facts.Host(Module())
    assert host.packages() == FACTS["packages"]
    assert host.apt_interrupted()
    assert len(calls) == 1


# What dpkg does is exit; dpkg-query knows a package that is not complete, or only complete ones.
COMPLETE = "installed grafana\nconfig-files old\nnot-installed none\n"


@pytest.mark.parametrize(
    ("status", "known", "expected", "removes"),
    [
        (0, COMPLETE, 0, True),
        (1, COMPLETE, 1, True),
        (2, COMPLETE, 2, False),  # as if dpkg is locked: the policy may be that of another program
        (0, f"{COMPLETE}half-installed libc\n", 1, True),  # which dpkg passes over
        (0, f"{COMPLETE}triggers-awaited libc\n", 1, True),
    ],
)
@pytest.mark.parametrize("policy", [None, "", interrupted_apt.POLICY_TEXT, "#!/bin/sh\n# of the site\nexit 0\n"])
def test_services_do_not_start_while_dpkg_completes_packages(tmp_path, policy, status, known, expected, removes):
    path = tmp_path / "policy-rc.d"
    if policy is not None:
        path.write_text(policy)
    is_the_sites = policy not in (None, "", interrupted_apt.POLICY_TEXT)
    (tmp_path / "known").write_text(known)
    dpkg = f"cp -p {path} {tmp_path}/at-the-time; exit {status}"
    for name, does in (("dpkg", dpkg), ("dpkg-query", f"cat {tmp_path}/known")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / name).chmod(0o755)
    script = interrupted_apt.CLEAN_UP.replace(interrupted_apt.POLICY, str(path))
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["sh", "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == expected
    assert ("libc" in done.stderr) is ("libc" in known)
    then = tmp_path / "at-the-time"
    assert then.read_text() == (policy if is_the_sites else interrupted_apt.POLICY_TEXT)
    assert is_the_sites or os.access(then, os.X_OK)
    assert path.exists() is (is_the_sites or not removes)


def test_check_mode_does_not_update_the_lists(run):
    _, calls = run({"name": ["influxdb"]}, check_mode=True)
    assert [module for module, _ in calls] == ["apt"]


LOCKED = {"failed": True, "stderr": "E: Could not get lock /var/lib/apt/lists/lock"}


def test_the_module_waits_for_the_lock_of_apt(run):
    result, calls = run({"name": ["influxdb"]}, command=[LOCKED, LOCKED, {"changed": True}])
    assert [module for module, _ in calls] == ["command", "command", "command", "apt"]
    assert result["changed"]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (LOCKED, "Could not get lock"),
        ({"failed": True, "stderr": "E: The repository is not signed."}, "is not signed"),
        ({"failed": True, "msg": "No such file: apt"}, "No such file: apt"),
    ],
)
def test_lists_that_cannot_be_updated_are_an_error(run, answer, said):
    with pytest.raises(AnsibleActionFail, match=f"apt cannot update the package lists: .*{said}"):
        run({"name": ["influxdb"], "lock_timeout": 0}, command=answer)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({}, "missing required arguments: name"),
        ({"name": ["grafana"], "cache_valid_time": 60}, "Unsupported parameters .*cache_valid_time"),
    ],
)
def test_wrong_options_are_an_error(run, args, said):
    with pytest.raises(AnsibleActionFail, match=said):
        run(args)


def test_missing_facts_are_an_error(run):
    with pytest.raises(AnsibleActionFail, match="gather package facts first"):
        run({"name": ["grafana"]}, facts={})
