"""A virtual machine: its state directory, its power, and the boot loader."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterable

from virtual_pi import Failure
from virtual_pi.container import FEED_FILES
from virtual_pi.files import replace_file
from virtual_pi.owners import is_left_over, owner_mark
from virtual_pi.ports import choose_ports
from virtual_pi.ssh import Ssh

from . import BOOT_START, COMMAND_LINE, KERNEL, MB, RAM_DISK
from .image import ARCHITECTURE, RELEASE, CardImage, run

NAME = "pi"
CARD_SIZE = 3000 * MB
FILES = ("image.img", "image.sha256", "card.img", "feed.img", "console.log", "qemu", f"{NAME}.json", *FEED_FILES)
BOOTED = ("running", "degraded", "maintenance")  # what systemd says when it has done everything
# qemu translates the guest's code, which makes it ten to twenty times slower than this machine. KVM is not tried: in a virtual machine
# of a CI it may be there, and then never run the guest. A plain processor, and one of it, costs the least.
HARDWARE = ["-machine", "q35", "-accel", "tcg,tb-size=256", "-cpu", "qemu64", "-smp", "1"]
HARDWARE += ["-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot", "-device", "virtio-rng-pci"]
# What a boot loader adds to the parameters of the card. There is nobody in this guest to protect it from.
PARAMETERS = "console=ttyS0 mitigations=off"
# A power cut costs the guest what it has in its memory. What it has written stays, since this machine's memory has it: so it is with
# a card without a cache of its own, as SD cards are unless they are told otherwise. `unsafe` spares this machine's disk only.
CARD = "format=raw,if=virtio,cache=unsafe"


class Machine:
    """A virtual machine with a card, in the files of a state directory."""

    def __init__(self, state: pathlib.Path) -> None:
        self.state, self.ssh = state, Ssh(state)
        self.card, self.feed, self.console = (state / name for name in ("card.img", "feed.img", "console.log"))
        self.process = state / "qemu"

    def create(self, image: CardImage, feed: pathlib.Path, wanted: Iterable[tuple[int | None, str]]) -> None:
        """A machine that is off, with a blank card, the feed on a second disk, and what is needed to reach it."""
        self.remove()
        self.state.mkdir(parents=True, exist_ok=True)
        (self.state / "image.img").symlink_to(image.ensure())
        (self.state / "image.sha256").symlink_to(image.hash_file)
        with self.card.open("wb") as card:
            card.truncate(CARD_SIZE)
        feed.mkdir(parents=True, exist_ok=True)
        self._write_feed(feed)
        self.ssh.identity()  # makes the keys
        description = {
            "name": NAME,
            "alias": NAME,
            "hostname": NAME,
            "address": "127.0.0.1",
            "ports": choose_ports([(None, "22"), *wanted], set()),
            "release": RELEASE,
            "architecture": ARCHITECTURE,
            "ssh_config": str(self.state / "ssh_config"),
        }
        replace_file(self.state / f"{NAME}.json", json.dumps(description, indent=2) + "\n")
        self.ssh.write_config()

    def _write_feed(self, feed: pathlib.Path) -> None:
        for name, source in FEED_FILES.items():
            if (feed / source).is_file():
                shutil.copy(feed / source, self.state / name)
        size = sum(path.stat().st_size for path in feed.rglob("*"))
        with self.feed.open("wb") as disk:
            disk.truncate(size + size // 8 + 16 * MB)
        run("/usr/sbin/mke2fs", "-q", "-F", "-t", "ext4", "-L", "tig-pi-feed", "-m", 0, "-d", feed, self.feed)

    @property
    def ports(self) -> dict[str, int]:
        path = self.state / f"{NAME}.json"
        if not path.is_file():
            raise Failure(f"there is no virtual machine in {self.state}; `machine.py create` makes one")
        return json.loads(path.read_text())["ports"]

    @property
    def is_on(self) -> bool:
        return self.process.is_file() and not is_left_over(self.process.read_text())

    def switch_on(self, memory: int, timeout: float) -> None:
        """Boot the card, and wait until systemd has started everything."""
        ports = self.ports
        if self.is_on:
            raise Failure("it is on already; `machine.py cut` cuts its power")
        with tempfile.TemporaryDirectory() as folder, self.console.open("ab") as console:
            # As the boot loader of a Pi: it reads the kernel and its parameters from the card.
            names = (KERNEL, RAM_DISK, COMMAND_LINE)
            run("mcopy", "-n", "-i", f"{self.card}@@{BOOT_START}", *[f"::/{name}" for name in names], folder)
            parameters = pathlib.Path(folder, COMMAND_LINE).read_text().strip()
            options = [*HARDWARE, "-m", str(memory), "-append", f"{parameters} {PARAMETERS}"]
            options += ["-kernel", f"{folder}/{KERNEL}", "-initrd", f"{folder}/{RAM_DISK}"]
            options += ["-drive", f"file={self.card},{CARD}", "-drive", f"file={self.feed},{CARD},readonly=on"]
            forwarded = [f"hostfwd={forward(guest, here)}" for guest, here in ports.items()]
            options += [
                "-netdev",
                ",".join(["user", "id=net", *forwarded]),
                "-device",
                "virtio-net-pci,netdev=net,romfile=",
            ]
            streams = {"stdin": subprocess.DEVNULL, "stdout": console, "stderr": console}
            try:
                # In a session of its own: it outlives this program.
                qemu = subprocess.Popen(["qemu-system-x86_64", *options], start_new_session=True, **streams)
            except FileNotFoundError:
                raise Failure("qemu-system-x86_64 is not installed; run bin/prerequisites test") from None
            replace_file(self.process, owner_mark(qemu.pid))
            self._wait(qemu, time.monotonic() + timeout)

    def _wait(self, qemu: subprocess.Popen[bytes], deadline: float) -> None:
        ask = ["ssh", "-F", str(self.state / "ssh_config"), NAME, "systemctl is-system-running --wait"]
        said = ""
        while time.monotonic() < deadline:
            with contextlib.suppress(subprocess.TimeoutExpired):
                answer = subprocess.run(
                    ask,
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    text=True,
                    timeout=max(1, deadline - time.monotonic()),
                    check=False,
                )
                if answer.stdout.strip() in BOOTED:
                    return
                said = answer.stderr.strip()
            if qemu.poll() is not None:
                break
            time.sleep(1)
        self.cut()
        end = "\n".join(self.console.read_text(errors="replace").splitlines()[-20:])
        raise Failure(f"it has not booted; {said}\nThe end of {self.console}:\n{end}")

    def cut(self) -> None:
        """Cut the power: qemu ends at once, whatever the guest is doing."""
        while self.is_on:
            pid = int(self.process.read_text().partition(":")[0])
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):  # most often, another program has started it
                os.waitpid(pid, 0)
            time.sleep(0.05)
        self.ssh.hang_up(NAME)
        self.process.unlink(missing_ok=True)

    def remove(self) -> None:
        if self.state.is_dir():
            self.cut()
            self.ssh.remove()
            for name in FILES:
                (self.state / name).unlink(missing_ok=True)


def forward(guest: str, here: int) -> str:
    port, _, protocol = guest.partition("/")
    return f"{protocol or 'tcp'}:127.0.0.1:{here}-:{port}"
