"""A virtual Pi: a container and its entry in a state directory."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import pathlib
import shutil
import subprocess
import tarfile
from typing import Any

from . import LABEL, Failure
from .boot import Boot
from .files import replace_file
from .host import host_architecture
from .image import Image
from .podman import Podman
from .ports import choose_ports
from .ssh import Ssh

FEED_FILES = {"feed.asc": "feed.asc", "feed.lock": "feed.lock.json"}  # file in a state directory: file in the feed

# systemd needs these to set up sandboxes (ProtectSystem=, PrivateTmp=, …), so that hardened units behave as on a Pi.
# Others are what root can do on a Pi: firewall, ping, audit, reading the memory map of a process.
# Not SYS_TIME, because containers share this machine's clock.
CAPABILITIES = "SYS_ADMIN,NET_ADMIN,NET_RAW,SYS_PTRACE,SYS_NICE,IPC_LOCK,AUDIT_WRITE"
# As the boot loader does: systemd gets the kernel parameters of the boot partition, and starts.
INIT = """if [ -s /boot/firmware/cmdline.txt ]; then export SYSTEMD_PROC_CMDLINE="$(cat /boot/firmware/cmdline.txt)"; fi
exec /sbin/init"""
# As the initial RAM disk of Raspberry Pi OS mounts it.
RUN = "rw,nosuid,nodev,noexec,mode=755"
REBOOTS = 3  # how often it may reboot itself while it boots


class Pi:
    """One virtual Pi: a container and its entry in a state directory."""

    def __init__(self, podman: Podman, cache: pathlib.Path, name: str, state: pathlib.Path, alias: str = "") -> None:
        self.podman, self.cache, self.name, self.state, self.alias = podman, cache, name, state, alias or name
        self.ssh = Ssh(state)

    @classmethod
    def existing(cls, podman: Podman, cache: pathlib.Path, name: str, pis: dict[str, dict[str, Any]]) -> Pi:
        if name not in pis:
            raise Failure(f"there is no virtual Pi {name!r}; `pi.py list` lists all of them")
        labels = pis[name]["labels"]
        return cls(podman, cache, name, pathlib.Path(labels["state"]), labels["alias"])

    @property
    def boot_folder(self) -> pathlib.Path:
        return self.state / f".boot-{self.alias}"

    @property
    def network(self) -> str:
        return f"{LABEL}-{hashlib.sha256(str(self.state).encode()).hexdigest()[:10]}"

    def create(
        self,
        image: Image,
        hostname: str,
        wanted: list[tuple[int | None, str]],
        taken: set[int],
        owner: str,
        memory: str,
    ) -> None:
        """Create the container and write what is needed to reach it; do not start it."""
        ports = choose_ports([(None, "22"), *wanted], taken)
        apt = self.cache / "apt" / image.stem
        feed = self.cache / "feed" / image.stem
        for folder in (apt, feed, self.boot_folder):
            folder.mkdir(parents=True, exist_ok=True)
        labels = {
            "state": str(self.state),
            "alias": self.alias,
            "owner": owner,
            "release": image.release,
            "ports": json.dumps(ports),
        }
        self.podman.run(
            "create",
            f"--name={self.name}",
            f"--hostname={hostname}",
            f"--network={self.network}",
            f"--network-alias={hostname}",
            "--systemd=always",
            f"--tmpfs=/run:{RUN}",
            f"--cap-add={CAPABILITIES}",
            "--sdnotify=ignore",
            "--env=NOTIFY_SOCKET=/run/host/pi/notify",
            f"--volume={self.boot_folder}:/run/host/pi",
            f"--volume={feed}:/srv/tig-pi-feed:ro",
            f"--volume={apt}:/var/cache/apt/archives:O",
            *([f"--memory={memory}"] if memory else []),
            *[f"--label={LABEL}.{key}={value}" for key, value in labels.items()],
            *[f"--publish=127.0.0.1:{here}:{guest}" for guest, here in ports.items()],
            image.tag,
            "sh",
            "-c",
            INIT,
        )
        self.podman.run("cp", "-", f"{self.name}:/", data=self.ssh.identity())
        description = {
            "name": self.name,
            "alias": self.alias,
            "hostname": hostname,
            "address": "127.0.0.1",
            "ports": ports,
            "release": image.release,
            "architecture": image.architecture,
            "image": image.tag,
            "ssh_config": str(self.state / "ssh_config"),
        }
        self.describe_feed(image.stem)
        # Last, because this file marks the Pi as complete (is_lost). ssh_config is written from it.
        replace_file(self.state / f"{self.alias}.json", json.dumps(description, indent=2) + "\n")
        self.ssh.write_config()

    def describe_feed(self, stem: str) -> None:
        """Copy key and list of the feed, which may have changed, to the state directory, where playbooks look for them."""
        feed = self.cache / "feed" / stem
        for name, source in FEED_FILES.items():
            if (feed / source).is_file():
                replace_file(self.state / name, (feed / source).read_bytes())

    @property
    def is_lost(self) -> bool:
        """Whether it can no longer be reached: its files were removed, or its creation was interrupted."""
        return not ((self.state / f"{self.alias}.json").is_file() and self.ssh.has_keys)

    def start(self, timeout: float) -> None:
        """Start the container and wait until it has booted. If it reboots itself meanwhile, start it again."""
        for _ in range(1 + REBOOTS):
            if self._boots(timeout):
                return
            if (
                self.podman.run("inspect", "--format={{.State.Status}} {{.State.ExitCode}}", self.name).strip()
                != "exited 0"
            ):
                break
        jobs = self.podman.run("exec", self.name, "systemctl", "list-jobs", "--no-legend", check=False).strip()
        logs = self.podman.run("logs", "--tail=20", self.name, check=False).strip()
        why = f"pending jobs: {jobs}" if jobs else "the container has stopped"
        raise Failure(f"{self.name} has not booted within {timeout:.0f} s; {why}\n{logs}".rstrip())

    def _boots(self, timeout: float) -> bool:
        with Boot(self.boot_folder) as boot:
            self.podman.run("start", self.name)
            watch = [*self.podman.prefix, "podman", "wait", self.name]
            with subprocess.Popen(watch, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as watcher:
                booted = boot.wait(timeout, watcher.stdout)
                watcher.terminate()
        return booted

    def reboot(self, timeout: float) -> None:
        self.ssh.hang_up(self.name)
        self.podman.run("stop", f"--time={timeout:.0f}", self.name)
        self.start(timeout)

    def power_cut(self, timeout: float) -> None:
        """Send SIGKILL to PID 1: the kernel then kills all other processes of the container, too."""
        self.ssh.hang_up(self.name)
        self.podman.run("kill", "--signal=KILL", self.name)
        self.podman.run("wait", self.name)
        self.start(timeout)

    def isolate(self) -> None:
        """Remove the route to all other networks."""
        self.podman.run("exec", self.name, "ip", "route", "replace", "unreachable", "default", "metric", "0")
        self.podman.run(
            "exec", self.name, "ip", "-6", "route", "replace", "unreachable", "default", "metric", "1", check=False
        )
        for address in ("192.0.2.1", "2001:db8::1"):  # of no network; reserved for documentation
            if self.podman.succeeds("exec", self.name, "ip", "route", "get", address):
                raise Failure(f"{self.name} still has a route to other networks")

    def harvest(self) -> int:
        """Copy .deb files that this Pi downloaded to the cache, and return their number."""
        release = self.podman.pis()[self.name]["labels"]["release"]
        cache = self.cache / "apt" / f"{release}-{host_architecture()}"
        archives = "/var/cache/apt/archives"
        listed = self.podman.run("exec", self.name, "ls", archives).split()
        new = [name for name in listed if name.endswith(".deb") and not (cache / name).exists()]
        if new:
            command = [*self.podman.prefix, "podman", "exec", self.name, "tar", "-C", archives, "-cf", "-", "--", *new]
            packed = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True).stdout
            with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
                for name in new:
                    replace_file(cache / name, tar.extractfile(name).read())
        return len(new)

    def remove(self, harvest: bool = True) -> None:
        """Remove the container and its entry; with the last Pi of a state directory, also the network and the keys."""
        if harvest:
            with contextlib.suppress(Failure, subprocess.CalledProcessError, KeyError):
                self.harvest()
        self.ssh.hang_up(self.name)
        self.podman.run("rm", "--force", "--ignore", "--volumes", "--time=0", self.name)
        (self.state / f"{self.alias}.json").unlink(missing_ok=True)
        shutil.rmtree(self.boot_folder, ignore_errors=True)
        if list(self.state.glob("*.json")):
            with contextlib.suppress(FileNotFoundError):  # the keys may be missing
                self.ssh.write_config()
            return
        self.podman.run("network", "rm", self.network, check=False)
        self.ssh.remove()
        for name in FEED_FILES:
            (self.state / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            (self.state / ".lock").unlink(missing_ok=True)
            self.state.rmdir()
