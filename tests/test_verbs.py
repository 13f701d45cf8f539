"""The verbs of the Makefile: in any locale, and if only the beginning of their output is read."""

from __future__ import annotations

import os
import subprocess

import pytest
from conftest import REPOSITORY

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
