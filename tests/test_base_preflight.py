"""What role base waits for before a host is touched, and which processors it refuses."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
from types import SimpleNamespace

import pytest
from ansible_collections.tig_pi.stack.plugins.modules import base_preflight

HOLD = """
import fcntl, sys, time
with open(sys.argv[1], "r+b") as file:
    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


class Failed(Exception):
    """The module has ended with this message."""


class Module:
    """What the preflight asks of AnsibleModule."""

    def __init__(self, **params) -> None:
        self.params = {"timeout": 5, "wait_for_clock": True, "architectures": ["amd64", "arm64", "armhf"], **params}

    def run_command(self, command):
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        return result.returncode, result.stdout, result.stderr

    def fail_json(self, **result):
        raise Failed(result["msg"])


@pytest.fixture(autouse=True)
def locks(tmp_path, monkeypatch):
    """A host of the test's own: its files lie below a folder, and its programs come first. This is apt's locks there."""
    monkeypatch.setattr(base_preflight, "Path", lambda path: pathlib.Path(f"{tmp_path}{path}"))
    monkeypatch.setattr(base_preflight, "TIMESYNC_DONE", str(tmp_path / "synchronized"))
    locks = [tmp_path / "lock-frontend", tmp_path / "lock", tmp_path / "not there"]
    for lock in locks[:2]:
        lock.touch()
    monkeypatch.setattr(base_preflight, "DPKG_LOCKS", [str(lock) for lock in locks])
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


def waited_for(**params):
    preflight = base_preflight.Preflight(Module(**params))
    preflight.wait()
    return preflight.waited_for


def test_a_host_that_is_ready_is_not_waited_for():
    assert waited_for() == []


@pytest.mark.parametrize("which", [0, 1])
def test_a_program_that_holds_apt_s_lock_is_waited_for(locks, hold, which):
    hold(locks[which], 1.2)
    assert waited_for() == ["apt's lock"]
    hold(locks[which], 0)  # it has been given back


def test_a_program_that_does_not_let_go_of_apt_s_lock_is_told(locks, hold):
    hold(locks[0], 60)
    with pytest.raises(Failed, match=r"for apt's lock, in vain\. See `sudo fuser -v /var/lib/dpkg/lock-frontend`"):
        waited_for(timeout=1)


@pytest.fixture
def first_boot(tmp_path):
    """What cloud-init leaves on a host that it sets up."""
    (tmp_path / "run/cloud-init").mkdir(parents=True)


@pytest.mark.parametrize("code", [0, 1])
def test_cloud_init_is_waited_for_however_it_ends(first_boot, program, code):
    log = program("cloud-init", f"sleep 1.2; exit {code}")
    assert waited_for() == ["first-boot set-up (cloud-init)"]
    assert log() == ["status --wait"]


def test_a_cloud_init_that_does_not_end_is_told(first_boot, program):
    program("cloud-init", "exec sleep 60")
    with pytest.raises(Failed, match=r"for first-boot set-up \(cloud-init\), in vain\. See `cloud-init status --long`"):
        waited_for(timeout=1)


def test_a_cloud_init_that_has_nothing_to_do_here_is_not_asked(program):
    log = program("cloud-init", "exec sleep 60")
    assert waited_for() == []
    assert log() == []


def test_a_clock_is_waited_for_until_it_is_synchronised(program, tmp_path):
    log = program("timedatectl", f"if [ -e {tmp_path}/asked ]; then echo yes; else echo no; touch {tmp_path}/asked; fi")
    assert waited_for() == ["a synchronised clock"]
    assert log() == ["show -p NTPSynchronized --value"] * 2


def test_a_clock_that_stays_wrong_is_told(program):
    program("timedatectl", "echo no")
    with pytest.raises(
        Failed, match=r"for a synchronised clock, in vain\..*base_wait_for_clock: false goes on without"
    ):
        waited_for(timeout=1)


def test_timesyncd_s_word_for_a_right_clock_is_enough(program, tmp_path):
    program("timedatectl", "echo no")
    (tmp_path / "synchronized").touch()
    assert waited_for() == []


def test_nobody_waits_for_the_clock_of_a_container(program):
    program("timedatectl", "echo no")
    program("systemd-detect-virt", "echo podman")
    assert waited_for() == []


def test_nobody_waits_for_a_clock_that_is_not_asked_for(program):
    program("timedatectl", "echo no")
    assert waited_for(wait_for_clock=False) == []


@pytest.mark.parametrize(
    ("kernel", "userland", "supported", "problem"),
    [
        ("x86_64", "amd64", ["amd64", "arm64", "armhf"], None),
        ("armv7l", "armhf", ["amd64", "arm64", "armhf"], None),
        # A 32-bit Raspberry Pi OS has a 64-bit kernel on a Pi 4: the packages are those of the userland.
        ("aarch64", "armhf", ["amd64", "arm64", "armhf"], None),
        ("aarch64", "armhf", ["amd64", "arm64"], "The architecture is armhf; the stack runs on amd64, arm64."),
        ("x86_64", "i386", ["amd64", "arm64", "armhf"], "The architecture is i386; the stack runs on"),
        # Debian's armhf needs ARMv7, Raspberry Pi OS' does not.
        ("armv6l", "armhf", ["amd64", "arm64", "armhf"], "This Pi has an ARMv6 processor (Pi 1, Zero, Zero W)"),
        ("armv6l", "armhf", [], None),
    ],
)
def test_a_processor_is_known_by_its_kernel_and_its_userland(
    program, monkeypatch, kernel, userland, supported, problem
):
    program("dpkg", f"echo {userland}")
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine=kernel))
    preflight = base_preflight.Preflight(Module(architectures=supported))
    said = preflight.architecture_problem()
    assert said is None if problem is None else said.startswith(problem)
    assert preflight.architecture == userland
