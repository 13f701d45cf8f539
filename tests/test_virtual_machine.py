"""virtual/machine without qemu: what it reads from a card, how it is switched on and off, and who ends it."""

from __future__ import annotations

import os
import subprocess

import blank_card
import pytest
from virtual_machine.machine import Machine
from virtual_pi import Failure, owners

PARAMETERS = "console=tty1 root=PARTUUID=7469672d-02 rootwait"


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Put a shell script into the place of a program: `program("ssh", "echo running")`."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def create(name: str, script: str) -> None:
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)

    return create


@pytest.fixture
def machine(tmp_path, program) -> Machine:
    """A machine with a written card. Its qemu prints its arguments and the kernel, and then SSH answers."""
    result = Machine(tmp_path / "state")
    program(
        "qemu-system-x86_64",
        'printf "%s\\n" "$@"; while [ "$1" != -kernel ]; do shift; done; cat "$2"; exec sleep 60',
    )
    program("ssh", f"[ $3 = -O ] || until grep -q 'a kernel' {result.console}; do sleep 0.05; done; echo running")
    result.state.mkdir()
    blank_card.create(
        result.card, {"vmlinuz": "a kernel\n", "initrd.img": "a disk\n", "cmdline.txt": f"{PARAMETERS}\n"}
    )
    (result.state / "pi.json").write_text('{"name": "pi", "alias": "pi", "ports": {"22": 40022, "123/udp": 40123}}')
    yield result
    result.cut()


def test_it_boots_the_kernel_of_the_card_with_the_parameters_of_the_card(machine):
    machine.switch_on(512, 10)
    console = machine.console.read_text()
    assert "a kernel\n" in console
    assert f"\n{PARAMETERS} console=ttyS0" in console
    assert "hostfwd=tcp:127.0.0.1:40022-:22,hostfwd=udp:127.0.0.1:40123-:123" in console


def test_a_power_cut_ends_it_at_once(machine):
    machine.switch_on(512, 10)
    with pytest.raises(Failure, match="on already"):
        machine.switch_on(512, 10)
    machine.cut()
    assert not machine.is_on
    machine.cut()  # nothing happens


def test_a_machine_that_does_not_boot_shows_what_it_wrote_to_the_console(machine, program):
    program("qemu-system-x86_64", "echo Kernel panic; exit 1")
    program("ssh", "echo Connection refused >&2; exit 255")
    with pytest.raises(Failure, match=r"(?s)Connection refused.*Kernel panic"):
        machine.switch_on(512, 10)
    assert not machine.is_on


def test_a_card_without_a_kernel_does_not_boot(machine):
    blank_card.create(machine.card)
    with pytest.raises(Failure, match="vmlinuz"):
        machine.switch_on(512, 10)


def test_it_is_left_over_when_its_owner_ends_or_leaves(machine, monkeypatch, program):
    program("ssh", "echo running")
    program("qemu-system-x86_64", "while :; do sleep 0.1; done")
    with subprocess.Popen(["sleep", "60"]) as owner:
        monkeypatch.setenv("TIG_PI_OWNER_PID", str(owner.pid))
        machine.switch_on(512, 10)
        pid = int(machine.process.read_text().partition(":")[0])
        assert pid not in owners.orphans()
        assert pid in owners.orphans(owner.pid)
        assert owner.pid not in owners.orphans(owner.pid)
        owner.kill()
    assert pid in owners.orphans()
