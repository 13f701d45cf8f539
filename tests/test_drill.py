"""bin/drill: whether a drill that fails shows that the archive is bad, or could not be carried out."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from project import REPOSITORY

# What bin/drill starts: a playbook of the name FAILING fails with MESSAGE, and the last one keeps the result.
PLAY = """#!{python}
import json, os, pathlib, shutil, sys
(name,) = (pathlib.Path(one).stem for one in sys.argv if one.startswith("playbooks/"))
values = dict(one.removeprefix("--extra-vars=").split("=", 1) for one in sys.argv if one.startswith("--extra-vars="))
if name == os.environ["FAILING"]:
    print("fatal: [pi -> localhost]: FAILED! => " + json.dumps({{"msg": os.environ["MESSAGE"]}}))
    sys.exit(2)
if name == "drill_prepare":
    directory = pathlib.Path(values["drill_directory"])
    (directory / "inventory/host_vars/pi").mkdir(parents=True)
    (directory / "ports.json").write_text("[1883]")
if name == "drill_record":
    shutil.copy(pathlib.Path(values["drill_directory"], "result.json"), os.environ["RESULT"])
"""
PI = """#!/bin/sh
echo "$1" >>"$PI_LOG"
[ "$1" != "$FAILING" ]
"""


@pytest.fixture
def drill(tmp_path):
    """Run bin/drill; returns its exit status and output, what it records, and what it has done with the throwaway Pi."""
    project = tmp_path / "project"
    for name, text in {"bin/play": PLAY.format(python=sys.executable), "virtual/pi/pi.py": PI}.items():
        path = project / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    shutil.copy(REPOSITORY / "bin/drill", project / "bin/drill")

    def run(failing: str, message: str = "it fails") -> tuple[subprocess.CompletedProcess, dict, list[str]]:
        log, result = tmp_path / "pi.log", tmp_path / "result.json"
        more = {"FAILING": failing, "MESSAGE": message, "PI_LOG": str(log), "RESULT": str(result)}
        done = subprocess.run(
            [sys.executable, project / "bin/drill", "site"], env={**os.environ, **more}, capture_output=True, text=True
        )
        verbs = log.read_text().split() if log.exists() else []
        return done, json.loads(Path(result).read_text()), verbs

    return run


def test_a_drill_that_succeeds_has_no_problem(drill):
    done, result, verbs = drill("nothing")
    assert (done.returncode, result["problem"]) == (0, "")
    assert verbs == ["up", "isolate", "down"]


@pytest.mark.parametrize("playbook", ["restore", "drill_compare", "verify"])
def test_what_the_archive_lacks_is_a_problem_of_the_archive(drill, playbook):
    done, result, verbs = drill(playbook, "damaged: stick: the repository is damaged")
    assert (done.returncode, result["aborted"], result["hosts"]) == (1, False, ["pi"])
    assert "damaged: stick" in result["problem"]
    assert "could not be carried out" not in done.stdout
    assert verbs[-1] == "down"


@pytest.mark.parametrize(
    ("failing", "message"),
    [
        ("drill_prepare", "There is no archive of pi that was checked."),
        ("up", ""),
        ("site", "Failed to update apt cache"),
        ("isolate", ""),
        ("restore", "unreachable: attic: the target cannot be reached"),
        ("restore", "Failed to connect to the host via ssh: Connection refused"),
    ],
)
def test_what_keeps_a_drill_from_being_carried_out_is_no_problem_of_the_archive(drill, failing, message):
    done, result, verbs = drill(failing, message)
    assert (done.returncode, result["aborted"]) == (1, True)
    assert message in result["problem"]
    assert "the drill could not be carried out" in done.stdout
    assert verbs[-1:] == ([] if failing == "drill_prepare" else ["down"])
