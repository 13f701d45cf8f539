"""The repositories: encrypted, deduplicated, made by restic, one on each target."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import os
import re
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from . import Problem

FILE = "tig-pi.tar"
# A snapshot gets this tag once it has been checked. Only snapshots that have it are restored, or count as the last good one.
CHECKED = "checked"
# And this one, with the machine that made it: a new card is another machine.
MACHINE = "machine-"
# Of a larger repository (in bytes), one part of so many is read each day.
LARGE = 256 * 10**6
CHECK_PARTS = 14
# What restic 0.14 to 0.18 say. Only since 0.17 its exit status says some of it.
MESSAGES = [
    ("wrong_key", r"wrong password or no key found"),
    ("locked", r"repository is already locked"),
    ("disk_full", r"no space left on device|disk quota exceeded"),
    ("host_key", r"Host key verification failed|REMOTE HOST IDENTIFICATION HAS CHANGED"),
    ("refused", r"Permission denied \("),
    (
        "unreachable",
        r"Connection (refused|timed out|reset|closed)|No route to host|Could not resolve|Network is unreachable",
    ),
    ("unreachable", r"unable to start the sftp session|ssh command exited|connection lost"),
    (
        "no_repository",
        r"Is there a repository at the following location|unable to open config file|repository does not exist",
    ),
    (
        "damaged",
        r"ciphertext verification failed|repository contains errors|pack .*(does not match|damaged|invalid|not found)"
        r"|invalid data returned|unexpected EOF|does not exist in the repository|file size|corrupt|hash mismatch|not found in"
        r"|invalid character|load <|id .* not found",
    ),
]
EXPLANATIONS = {
    "wrong_key": "the key is not that of the repository: it was made with another recovery key, or belongs to another site",
    "locked": "another program uses the repository",
    "disk_full": "the target is full",
    "host_key": "the host does not have the SSH key that the inventory declares for it",
    "refused": "the host does not accept this Pi's SSH key; `make backup` prints the line for its authorized_keys",
    "unreachable": "the target cannot be reached",
    "no_repository": "there is no repository",
    "damaged": "the repository is damaged",
}


def moment(time: str) -> datetime.datetime:
    """A time as restic prints it, in the time zone of the computer that made the snapshot."""
    # With nanoseconds, of which Python before 3.11 reads six digits only.
    return datetime.datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", time).replace("Z", "+00:00"))


def _message(line: str) -> str:
    """What a line of restic's says: since 0.17 it is JSON, also of an error."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        about = json.loads(line)
        return about.get("message") or about["error"]["message"]
    return line


@dataclasses.dataclass
class Snapshot:
    id: str
    time: str
    checked: bool
    machine: str = ""


class Repository:
    """A repository on a target. `command` starts restic, with the options that the target needs."""

    def __init__(self, target: dict, password: str, host: str, scratch: Path) -> None:
        self.target, self.password, self.host, self.scratch = target, password, host, scratch
        self.location, self.options = "", []
        self.ssh_log = scratch / "ssh-log"

    @contextlib.contextmanager
    def opened(self) -> Iterator[Repository]:
        """Mount the target if it is a disk, and know where the repository is."""
        kind = self.target["kind"]
        with contextlib.ExitStack() as stack:
            if kind == "disk":
                directory = stack.enter_context(_disk(self.target, self.scratch))
                self.location = str(directory / self.target.get("path", "tig-pi").lstrip("/") / self.host)
            elif kind == "directory":
                directory = Path(self.target["path"])
                _refuse_the_card(directory)
                self.location = str(directory / self.host)
            elif kind == "ssh":
                self.location, self.options = self._ssh()
            else:
                raise Problem("unknown_target", f"a target of kind {kind} is not one of this program's")
            yield self

    def _ssh(self) -> tuple[str, list[str]]:
        known, key = self.scratch / "known_hosts", self.scratch / "ssh_key"
        host, port = self.target["host"], int(self.target.get("port", 22))
        name = host if port == 22 else f"[{host}]:{port}"
        known.write_text(f"{name} {self.target['host_key']}\n")
        key.touch(mode=0o600)
        key.write_text(self.target["key"])
        command = [
            "ssh",
            "-F",
            "none",
            "-i",
            str(key),
            "-p",
            str(port),
            "-o",
            "BatchMode=yes",
            "-o",
            "ConnectTimeout=20",
        ]
        command += ["-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=yes", "-o", f"UserKnownHostsFile={known}"]
        command += ["-o", "ServerAliveInterval=30", "-o", "ServerAliveCountMax=4"]
        # restic prints the messages of ssh, but often ends before it has printed them.
        command += ["-E", str(self.ssh_log)]
        command += [f"{self.target['user']}@{host}", "-s", "sftp"]
        path = f"{self.target.get('path', 'tig-pi')}/{self.host}"
        return f"sftp:{self.target['user']}@{host}:{path}", ["-o", f"sftp.command={shlex.join(command)}"]

    def _command(self, *arguments: str) -> list[str]:
        return ["restic", "--repo", self.location, "--no-cache", *self.options, *arguments]

    @property
    def _environment(self) -> dict[str, str]:
        # Packs are assembled in TMPDIR, which is in memory. Two at a time, so that they fit.
        return {
            **os.environ,
            "RESTIC_PASSWORD": self.password,
            "TMPDIR": str(self.scratch),
            "HOME": str(self.scratch),
            "GOGC": "20",
            "GOMAXPROCS": "2",
            "LC_ALL": "C.UTF-8",
        }

    def _run(self, *arguments: str) -> str:
        try:
            result = subprocess.run(self._command(*arguments), env=self._environment, capture_output=True, text=True)
        except FileNotFoundError as error:
            raise Problem("no_restic", "restic is not installed") from error
        if result.returncode:
            raise self._problem(result.stderr + result.stdout)
        return result.stdout

    def _problem(self, said: str) -> Problem:
        said = said.strip()
        with contextlib.suppress(FileNotFoundError):
            said = f"{self.ssh_log.read_text(errors='replace')}{said}"
            self.ssh_log.unlink()
        lines = [_message(line).strip() for line in said.splitlines()]
        for name, pattern in MESSAGES:
            line = next((line for line in lines if re.search(pattern, line)), None)
            if line is not None:
                return Problem(name, f"{EXPLANATIONS[name]} ({self.location}: {line})")
        return Problem("failed", f"restic fails at {self.location}: {' '.join(lines) or 'it says nothing'}")

    def ready(self) -> None:
        """Create the repository, unless there is one. What is not a repository is not touched."""
        try:
            self._run("cat", "config")
        except Problem as problem:
            if problem.name != "no_repository":
                raise
            if self.target["kind"] != "ssh" and Path(self.location).is_dir() and any(Path(self.location).iterdir()):
                raise Problem("no_repository", f"{self.location} is not empty, and not a repository") from problem
            self._run("init")
        self._run("unlock")  # what a power cut left; the lock of a program that runs is kept

    def add(self, write) -> dict:
        """Store an archive as `backup` does, check it, and then remove what the policy in its manifest does not keep."""
        self.ready()
        result = self.backup(write)
        self.check()
        about = result["manifest"]
        self.mark_checked(result["snapshot"], about["machine"])
        # Only now: the last good archive is never removed for one that is not known to be good.
        self.forget(about["keep"], about["restored"])
        return {**result, "archives": len(self.snapshots())}

    def backup(self, write) -> dict:
        """Store what `write` writes to a stream. An archive that breaks off is not stored.

        Returns the bytes added and processed, and the snapshot's id.
        """
        command = self._command("backup", "--stdin", "--stdin-filename", FILE, "--host", self.host, "--json")
        process = subprocess.Popen(
            command, env=self._environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        said: list[bytes] = []
        reader = _read_all(process.stdout, said)
        try:
            about = write(process.stdin)
            process.stdin.close()
        except BaseException as error:
            if isinstance(error, BrokenPipeError):  # it is about to say why it reads no more
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(60)
            process.kill()  # before its input ends, which it would take for the end of the archive
            process.wait()
            reader.join()
            if isinstance(error, BrokenPipeError):
                raise self._problem(b"".join(said).decode(errors="replace")) from error
            raise
        process.wait()
        reader.join()
        text = b"".join(said).decode(errors="replace")
        summary = next((line for line in _json_lines(text) if line.get("message_type") == "summary"), None)
        if process.returncode or not summary:
            raise self._problem("\n".join(line for line in text.splitlines() if '"status"' not in line))
        return {
            "snapshot": summary["snapshot_id"],
            "bytes_added": summary["data_added"],
            "bytes": summary["total_bytes_processed"],
            "manifest": about,
        }

    def check(self) -> None:
        """Read the structure of the repository and its data: of a large one each day another part."""
        size = json.loads(self._run("stats", "--mode=raw-data", "--json"))["total_size"]
        parts = 1 if size <= LARGE else CHECK_PARTS
        self._run("check", f"--read-data-subset={int(time.time() // 86400) % parts + 1}/{parts}")

    def mark_checked(self, snapshot: str, machine: str) -> None:
        self._run("tag", "--add", f"{CHECKED},{MACHINE}{machine}", snapshot)

    def forget(self, keep: dict, restored: bool) -> None:
        """Remove what the policy does not keep. Snapshots that were not checked are removed once a checked one is newer.

        A machine to which nothing was `restored` removes no archive of the one before: its own may be of a host that has nothing yet.
        """
        group = "host" if restored else "host,tags"
        policy = [f"--keep-{span}={count}" for span, count in keep.items() if count]
        self._run("forget", "--host", self.host, "--group-by", group, "--tag", CHECKED, "--keep-last=1", *policy)
        unchecked = [snapshot.id for snapshot in self.snapshots() if not snapshot.checked]
        if unchecked:
            self._run("forget", *unchecked)
        self._run("prune")

    def snapshots(self) -> list[Snapshot]:
        """All snapshots of this host, or of all hosts if it has no name; the newest first."""
        of_host = ["--host", self.host] if self.host else []
        found = json.loads(self._run("snapshots", *of_host, "--json") or "null") or []
        result = []
        for one in sorted(found, key=lambda one: moment(one["time"]), reverse=True):
            tags = one.get("tags") or []
            machine = next((tag.removeprefix(MACHINE) for tag in tags if tag.startswith(MACHINE)), "")
            result.append(Snapshot(one["short_id"], one["time"], CHECKED in tags, machine))
        return result

    def chosen(self, archive: str = "", machine: str = "") -> Snapshot:
        """The archive with that id, or the newest; only one that was checked. Those that `machine` has made come last."""
        usable = [one for one in self.snapshots() if one.checked and archive in ("", one.id)]
        if not usable:
            raise Problem("no_archive", f"there is no archive {archive}".strip() + " that was checked")
        return next((one for one in usable if machine and one.machine != machine), usable[0])

    @contextlib.contextmanager
    def read(self, snapshot: str) -> Iterator[BinaryIO]:
        """The archive as a stream."""
        errors = self.scratch / "restic-errors"
        with errors.open("wb") as log:
            command = self._command("dump", snapshot, f"/{FILE}")
            process = subprocess.Popen(command, env=self._environment, stdout=subprocess.PIPE, stderr=log)
        try:
            yield process.stdout
        except Problem as problem:
            process.kill()
            process.wait()
            said = errors.read_text(errors="replace")
            raise self._problem(said) if said.strip() and problem.name == "damaged" else problem from None
        finally:
            process.stdout.close()
            process.wait()
        if process.returncode not in (0, -signal.SIGPIPE, 141):
            raise self._problem(errors.read_text(errors="replace"))


def _json_lines(text: str) -> Iterator[dict]:
    for line in text.splitlines():
        with contextlib.suppress(ValueError):
            if isinstance(found := json.loads(line), dict):
                yield found


def _read_all(stream: BinaryIO, into: list[bytes]) -> threading.Thread:
    """Read a program's output while something else is written to it."""
    thread = threading.Thread(target=lambda: into.extend(iter(lambda: stream.read(65536), b"")))
    thread.start()
    return thread


def _refuse_the_card(directory: Path) -> None:
    """A directory of another disk. That of the root file system dies with the card."""
    if not directory.is_dir():
        raise Problem("unreachable", f"{directory} does not exist; is the disk plugged in, or the share mounted?")
    if _disk_of(directory.stat().st_dev) == _disk_of(Path("/").stat().st_dev):
        raise Problem("on_the_card", f"{directory} is on the card itself: nothing is mounted there")


def _disk_of(device: int) -> Path:
    """The whole disk that a file system is on, all partitions of which die together."""
    path = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve()
    return path.parent if (path / "partition").exists() else path


@contextlib.contextmanager
def _disk(target: dict, scratch: Path) -> Iterator[Path]:
    """Mount a disk by its UUID or its label for as long as it is used."""
    kind, name = next((key, target[key]) for key in ("uuid", "label") if target.get(key))
    device = Path(f"/dev/disk/by-{kind}/{name}")
    for _ in range(10):  # a disk that sleeps, or a stick that has just been plugged in
        if device.exists():
            break
        time.sleep(0.5)
    else:
        raise Problem("unreachable", f"there is no disk with the {kind} {name}; is it plugged in?")
    if _disk_of(os.stat(device.resolve()).st_rdev) == _disk_of(os.stat("/").st_dev):
        raise Problem("on_the_card", f"the disk with the {kind} {name} is the card itself")
    place = scratch / "disk"
    place.mkdir(exist_ok=True)
    result = subprocess.run(
        ["mount", "-o", "nosuid,nodev,noexec", device, place], capture_output=True, text=True, check=False
    )
    if result.returncode:
        raise Problem("unreachable", f"the disk with the {kind} {name} cannot be mounted: {result.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=False)
