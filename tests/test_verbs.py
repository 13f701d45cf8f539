"""The verbs of the Makefile: in any locale, and if only the beginning of their output is read."""

from __future__ import annotations

import os
import subprocess

import pytest
from conftest import REPOSITORY
from project import load

SYNTAX_CHECK = ("ARGS=--syntax-check", "INVENTORY=inventories/home")


def make(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run make with only the locale that `environment` sets."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG", "MAKE", "MFLAGS"))}
    return subprocess.run(
        ["make", *arguments], cwd=REPOSITORY, env={**own, **environment}, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    "locale",
    [{"LC_ALL": "C"}, {"LC_ALL": "POSIX"}, {"LC_ALL": "xx_XX.UTF-8"}, {"LANG": "C.UTF-8", "LC_TIME": "xx_XX.UTF-8"}],
    ids=["C", "POSIX", "not generated", "one category not generated"],
)
def test_a_verb_runs_in_any_locale(locale):
    result = make("verify", *SYNTAX_CHECK, **locale)
    assert result.returncode == 0, result.stderr
    assert "playbook: playbooks/" in result.stdout


def test_a_locale_with_utf_8_is_kept():
    program = ["bin/utf8", "sh", "-c", "echo ${LC_ALL-unset} $LANG"]
    for environment, kept in (({"LANG": "C.UTF-8"}, "unset C.UTF-8"), ({"LC_ALL": "C.utf8", "LANG": "C"}, "C.utf8 C")):
        environment = {"PATH": os.environ["PATH"], **environment}
        result = subprocess.run(program, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True)
        assert result.stdout.strip() == kept


@pytest.mark.parametrize("command", ["make pi ARGS=--list-tasks INVENTORY=inventories/home", "make fault", "make help"])
def test_a_verb_succeeds_if_nobody_reads_its_output(command):
    read, write = os.pipe()
    os.close(read)
    result = subprocess.run(
        command.split(), cwd=REPOSITORY, stdout=write, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(write)
    assert (result.returncode, result.stderr) == (0, "")


def test_a_playbook_runs_to_its_end_if_nobody_reads_its_output(tmp_path):
    playbook = tmp_path / "playbook.yml"
    playbook.write_text(
        "- hosts: localhost\n  gather_facts: false\n  tasks:\n"
        "    - ansible.builtin.debug: {msg: one}\n"
        f"    - ansible.builtin.file: {{path: {tmp_path}/done, state: touch}}\n"
        "    - ansible.builtin.fail: {}\n"
    )
    with subprocess.Popen([REPOSITORY / "bin/play", playbook], cwd=REPOSITORY, stdout=subprocess.PIPE) as play:
        play.stdout.readline()
        play.stdout.close()
        assert play.wait(60) == 2
    assert (tmp_path / "done").exists()


def test_format_needs_a_device():
    """Without one, it would delete the files of all devices. With --list-tasks, nothing is run even if it does not stop."""
    result = make("format", "ARGS=--list-tasks", "INVENTORY=inventories/home")
    assert result.returncode == 2
    assert "Name the device: make format DEVICE=greenhouse." in result.stderr


class TestRunner:
    """bin/test"""

    @pytest.fixture
    def runner(self, monkeypatch, tmp_path):
        runner = load("bin/test")
        monkeypatch.setattr(runner, "PROJECT", tmp_path)
        monkeypatch.setattr(runner, "RESULTS", tmp_path)
        return runner

    def test_unknown_scenario_is_an_error(self, runner, tmp_path):
        (tmp_path / "molecule/base").mkdir(parents=True)
        (tmp_path / "molecule/base/molecule.yml").touch()
        assert list(runner.jobs(["base"])) == ["molecule-base"]
        with pytest.raises(SystemExit, match=r"There is no scenario nothing\. Scenarios are: base"):
            runner.jobs(["base", "nothing"])

    @pytest.mark.parametrize(("code", "expected"), [(0, {"passed": 1}), (3, {"failed": 1})])
    def test_a_job_without_tests_counts_as_one(self, runner, code, expected):
        assert runner.run("job", ["sh", "-c", f"exit {code}"]) == expected

    def test_a_failure_outside_of_the_tests_is_counted(self, runner, tmp_path):
        (tmp_path / "job.xml").write_text("<testsuite><testcase/><testcase><skipped/></testcase></testsuite>")
        assert runner.run("job", ["false"]) == {"passed": 1, "skipped": 1, "failed": 1}
