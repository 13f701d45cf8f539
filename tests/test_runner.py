"""bin/test: which jobs it runs, how it counts them, and its exit code."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from project import REPOSITORY, load


@pytest.fixture
def runner(monkeypatch, tmp_path):
    runner = load("bin/test")
    monkeypatch.setattr(runner, "PROJECT", tmp_path)
    monkeypatch.setattr(runner, "RESULTS", tmp_path)
    (tmp_path / "molecule/base").mkdir(parents=True)
    (tmp_path / "molecule/base/molecule.yml").touch()
    return runner


def test_all_jobs_are_unit_tests_scenarios_and_lint(runner):
    assert list(runner.jobs([])) == ["pytest", "molecule-base", "lint"]


def test_unknown_scenario_is_an_error(runner):
    assert list(runner.jobs(["base"])) == ["molecule-base"]
    with pytest.raises(SystemExit, match=r"There is no scenario nothing\. Scenarios are: base"):
        runner.jobs(["base", "nothing"])


@pytest.mark.parametrize(("code", "expected"), [(0, {"passed": 1}), (3, {"failed": 1})])
def test_a_job_without_tests_counts_as_one(runner, code, expected):
    assert runner.run("job", ["sh", "-c", f"exit {code}"]) == expected


def test_a_failure_outside_of_the_tests_is_counted(runner, tmp_path):
    (tmp_path / "job.xml").write_text("<testsuite><testcase/><testcase><skipped/></testcase></testsuite>")
    assert runner.run("job", ["false"]) == {"passed": 1, "skipped": 1, "failed": 1}


def test_failures_errors_and_skipped_tests_are_counted(runner, tmp_path):
    cases = ("<failure/>", "<error/>", "<skipped/>", "<skipped/><error/>", "<system-out/>")
    (tmp_path / "job.xml").write_text(f"<x>{''.join(f'<testcase>{case}</testcase>' for case in cases)}</x>")
    assert runner.run("job", ["false"]) == {"failed": 3, "skipped": 1, "passed": 1}


def test_a_job_that_takes_too_long_is_ended_and_counts_as_failed(runner, monkeypatch):
    monkeypatch.setattr(runner, "LIMIT", 0.2)
    started = time.monotonic()
    assert runner.run("job", ["sleep", "60"]) == {"failed": 1}
    assert time.monotonic() - started < 30
    assert runner.reasons("job") == ["job: ended because it took longer than 0 minutes"]


def test_a_failed_test_has_a_line_with_its_reason(runner, tmp_path):
    (tmp_path / "job.xml").write_text(
        '<x><testcase name="good"/><testcase name="lost"><failure message="two lost&#10;1 == 3"/></testcase></x>'
    )
    assert runner.reasons("job") == ["job: lost: two lost"]


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        ("begun\nno space left", "no space left"),
        ("begun\nfatal: [pi]: UNREACHABLE\nPLAY RECAP", "fatal: [pi]: UNREACHABLE"),
    ],
)
def test_a_job_that_failed_outside_of_its_tests_has_a_line_with_the_reason(runner, log, reason):
    runner.run("job", ["sh", "-c", f"echo '{log}'; exit 1"])
    assert runner.reasons("job") == [f"job: {reason}"]


class TestProgram:
    """bin/test in a directory of its own, where a scenario fails or not by its name."""

    @pytest.fixture
    def project(self, tmp_path):
        for name in ("good", "bad", "endless"):
            (tmp_path / "molecule" / name).mkdir(parents=True)
            (tmp_path / "molecule" / name / "molecule.yml").touch()
        (tmp_path / "bin").mkdir()
        shutil.copy(REPOSITORY / "bin/test", tmp_path / "bin")
        for name, script in {
            "bin/scenario": "case $1 in good) ;; endless) touch endless; exec sleep 60 ;; *) echo see the plug; exit 3 ;; esac",
            "virtual/pi/pi.py": 'echo "$*" >>pi-calls',
        }.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"#!/bin/sh\ncd {tmp_path}\n{script}\n")
            path.chmod(0o755)
        return tmp_path

    def start(self, project, *scenarios):
        command = [sys.executable, project / "bin/test", "--jobs", "1", *scenarios]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ)

    @pytest.mark.parametrize(
        ("scenarios", "code", "summary"),
        [(("good",), 0, "0 failed, 1 passed"), (("bad", "good"), 1, "1 failed, 1 passed")],
    )
    def test_exits_with_1_if_a_job_failed(self, project, scenarios, code, summary):
        with self.start(project, *scenarios) as program:
            output, _ = program.communicate(timeout=60)
        assert program.returncode == code
        assert f" {summary} in " in output.splitlines()[-1]
        assert output.splitlines().count("molecule-bad: see the plug") == code

    def test_removes_the_containers_of_its_tests(self, project):
        with self.start(project, "bad") as program:
            program.communicate(timeout=60)
        assert (project / "pi-calls").read_text() == f"gc\ngc --owned-by {program.pid}\n"

    def test_that_is_interrupted_ends_its_jobs_and_exits_with_130(self, project):
        with self.start(project, "endless", "good") as program:
            deadline = time.monotonic() + 30
            while not (project / "endless").exists() and time.monotonic() < deadline:
                time.sleep(0.05)
            program.send_signal(signal.SIGTERM)
            output, _ = program.communicate(timeout=30)
        assert program.returncode == 130
        assert "good …" not in output
        assert (project / "pi-calls").read_text().endswith(f"gc --owned-by {program.pid}\n")
