"""What a host has to finish before role base goes on, and how the role waits for it."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest
from ansible_collections.tig_pi.stack.plugins.modules import host_facts

HOLD = """
import fcntl, sys, time
with open(sys.argv[1], "r+b") as file:
    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


class Module:
    """What the host's facts need of AnsibleModule."""

    @staticmethod
    def run_command(command):
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        return result.returncode, result.stdout, result.stderr


@pytest.fixture(autouse=True)
def locks(tmp_path, monkeypatch):
    """A host of the test's own: its files lie below a folder, and its programs come first. This is apt's locks there."""
    monkeypatch.setattr(host_facts, "Path", lambda path: pathlib.Path(f"{tmp_path}{path}"))
    monkeypatch.setattr(host_facts, "TIMESYNC_DONE", str(tmp_path / "synchronized"))
    locks = [tmp_path / "lock-frontend", tmp_path / "lock", tmp_path / "not there"]
    for lock in locks[:2]:
        lock.touch()
    monkeypatch.setattr(host_facts, "DPKG_LOCKS", [str(lock) for lock in locks])
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    return locks


@pytest.fixture(autouse=True)
def program(locks, tmp_path):
    """Put a program on the host, which notes its arguments: program("timedatectl", "echo yes"). Its clock is its own."""

    def put(name, script):
        path = tmp_path / "bin" / name
        path.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/{name}.log\n{script}\n')
        path.chmod(0o755)
        return lambda: (
            (tmp_path / f"{name}.log").read_text().splitlines() if (tmp_path / f"{name}.log").exists() else []
        )

    put("systemd-detect-virt", "echo none; exit 1")
    put("timedatectl", "echo yes")
    return put


@pytest.fixture
def hold():
    """Hold a lock as another program would, for some seconds."""
    holders = []

    def start(path, seconds):
        command = [sys.executable, "-c", HOLD, path, str(seconds)]
        holders.append(subprocess.Popen(command, stdout=subprocess.PIPE))
        assert holders[-1].stdout.readline() == b"held\n"

    yield start
    for holder in holders:
        holder.kill()
        holder.communicate()


def not_ready(*wanted):
    return host_facts.Host(Module()).not_ready(list(wanted) or ["first_boot", "apt", "clock"])


def test_a_host_that_is_ready():
    assert not_ready() == []


@pytest.mark.parametrize("which", [0, 1])
def test_a_program_holds_apt_s_lock(locks, hold, which):
    hold(locks[which], 60)
    assert not_ready() == ["apt"]
    assert not_ready("first_boot", "clock") == []


def test_apt_s_locks_are_released(locks, hold):
    assert not_ready() == []
    for lock in locks[:2]:
        hold(lock, 0)  # raises if the lock is still held


@pytest.fixture
def first_boot(tmp_path):
    """What cloud-init leaves on a host that it sets up."""
    (tmp_path / "run/cloud-init").mkdir(parents=True)


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        ("running", 0, ["first_boot"]),
        ("not run", 0, ["first_boot"]),
        ("not started", 0, ["first_boot"]),
        ("done", 0, []),
        # It has ended all the same.
        ("error", 1, []),
        ("error - done", 2, []),
        ("disabled", 0, []),
    ],
)
def test_cloud_init_must_have_ended_with_or_without_an_error(first_boot, program, status, code, expected):
    log = program("cloud-init", f"echo status: {status}; exit {code}")
    assert not_ready() == expected
    assert log() == ["status"]


def test_a_disabled_cloud_init_is_ignored(program):
    log = program("cloud-init", "echo status: not run")
    assert not_ready() == []
    assert log() == []


def test_the_clock_must_be_synchronised(program):
    log = program("timedatectl", "echo no")
    assert not_ready() == ["clock"]
    assert not_ready("first_boot", "apt") == []
    assert log() == ["show -p NTPSynchronized --value"]


def test_a_clock_synchronised_by_timesyncd_is_accepted(program, tmp_path):
    program("timedatectl", "echo no")
    (tmp_path / "synchronized").touch()
    assert not_ready() == []


def test_a_container_has_the_clock_of_its_host(program):
    program("timedatectl", "echo no")
    program("systemd-detect-virt", "echo podman")
    assert not_ready() == []


def test_all_missing_conditions_are_reported_with_advice(hold, locks, program):
    hold(locks[0], 60)
    program("timedatectl", "echo no")
    assert not_ready() == ["apt", "clock"]
    assert "sudo fuser -v /var/lib/dpkg/lock-frontend" in host_facts.ADVICE["apt"]
    assert "base_wait_for_clock: false" in host_facts.ADVICE["clock"]


PREFLIGHT = """
- hosts: all
  gather_facts: false
  tasks:
    - name: Check the host
      ansible.builtin.import_role: {name: tig_pi.stack.base, tasks_from: preflight}
"""


def test_the_role_waits_until_the_host_is_ready(ansible_playbook, program, tmp_path):
    program("timedatectl", f"if [ -e {tmp_path}/asked ]; then echo yes; else echo no; touch {tmp_path}/asked; fi")
    run = ansible_playbook(PREFLIGHT, "--extra-vars={base_wait_timeout: 20}")
    assert "FAILED - RETRYING" in run.stdout
    assert "ok: [localhost]" in run.stdout
    assert "not synchronised" not in run.stdout


def test_the_role_waits_for_a_limited_time(ansible_playbook, program):
    program("timedatectl", "echo no")
    run = ansible_playbook(PREFLIGHT, "--extra-vars={base_wait_timeout: 1}")
    assert run.returncode != 0
    assert "The clock is not synchronised. See `timedatectl` on the host" in run.stdout + run.stderr
