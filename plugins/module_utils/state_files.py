"""State files that a power cut damaged: move them aside, report them, and restore what can still be read.

Each service has a program for its files (roles/*/files/*-state); what these programs have in common is here. They run on
the host of the service and need Python's standard library only.

Directories below /var/lib/tig-pi/<service>/:

    damaged/      damaged files that were moved aside, each with a note (<name>.json); systemd-tmpfiles removes old ones
    copies/       second copies of small files that cannot be restored from others
    report.json   damaged files that need `make repair`
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import shutil
import stat
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path

HOME = "/var/lib/tig-pi"


def moment(seconds: float | None) -> str | None:
    """A readable time, in the time zone of the host."""
    return None if seconds is None else datetime.datetime.fromtimestamp(seconds).isoformat(" ", "seconds")


def span(begin: float | None, end: float | None) -> str:
    """A readable time span; either end may be unknown."""
    words = [f"from {moment(begin)}" if begin is not None else "", f"to {moment(end)}" if end is not None else ""]
    return " ".join(word for word in words if word) or "of unknown age"


def sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write(path: Path, content: Iterable[bytes], like: os.stat_result | None = None) -> None:
    """Replace a file with an atomic rename and sync it to the card; owner and mode are those of `like`."""
    staged = path.with_name(f".{path.name}.new")
    staged.unlink(missing_ok=True)  # "x" below: do not follow a link that another account created
    with staged.open("xb") as file:
        if like:
            os.fchmod(file.fileno(), like.st_mode & 0o7777)
            if os.geteuid() == 0:
                os.fchown(file.fileno(), like.st_uid, like.st_gid)
        file.writelines(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(staged, path)
    sync(path.parent)


class StateFiles:
    """One check of the state files of a service.

    The verb `start` makes the repairs that lose nothing readable, `repair` makes all of them, and `plan` only reports what
    `repair` would do. `live` is true if the service runs, so that a file may be in the middle of a write.
    """

    def __init__(self, service: str, verb: str, root: str = "", live: bool = False) -> None:
        self.service, self.verb, self.root, self.live = service, verb, root.rstrip("/"), live
        self.home = self.path(f"{HOME}/{service}")
        self.found: list[dict] = []
        self.may_start = True

    def path(self, name: str) -> Path:
        return Path(f"{self.root}{name}")

    def name(self, path: Path) -> str:
        """The path on the host."""
        return str(path).removeprefix(self.root)

    def damaged(
        self,
        path: Path,
        problem: str,
        *,
        content: Iterable[bytes] | None = None,
        done: str = "",
        lost: str = "nothing",
        command: str = "",
        stays_down: bool = False,
        also: tuple[Path, ...] = (),
    ) -> bool:
        """Move a file (or directory) aside and replace it with `content`, if there is any; True if that was done.

        `also` are more files to move aside. With a `command`, only this command repairs the file, and `start` does not
        change it; `stays_down` prevents a start that would do more damage.
        """
        finding = {
            "file": self.name(path),
            "problem": problem,
            "done": done,
            "lost": lost,
            "at": moment(time.time()),
        }
        self.found.append(finding)
        if self.verb == "plan" or (command and self.verb == "start"):
            self.may_start = self.may_start and not stays_down
            finding["repair"] = command or "make repair"
            return False
        try:
            for other in also:
                self._aside(other)
            finding["copy"] = self.name(self._aside(path, finding))
            if content is not None:
                write(path, content, self._was)
        except OSError as error:
            finding["repair"] = "make repair"
            finding["problem"] += f"; it could not be moved aside ({error.strerror or error})"
            return False
        return True

    def _aside(self, path: Path, finding: dict | None = None) -> Path:
        """Move a file to damaged/, with a note about it if there is a finding."""
        folder = self.home / "damaged"
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        flat = self.name(path).strip("/").replace("/", "-")
        place = folder / f"{time.strftime('%Y%m%dT%H%M%S')}-{flat}"
        number = 1
        while place.exists():
            number += 1
            place = place.with_name(f"{time.strftime('%Y%m%dT%H%M%S')}-{number}-{flat}")
        self._was = path.lstat()
        if not (stat.S_ISREG(self._was.st_mode) or stat.S_ISDIR(self._was.st_mode)):
            raise OSError(f"{path} is neither a file nor a directory")
        if path.is_dir():
            shutil.move(path, place)
        else:
            # A link first, so that the content always has a name.
            try:
                os.link(path, place)
            except OSError:
                shutil.copy2(path, place)
                sync(place)
            path.unlink()
        sync(folder)
        if finding:
            note = {
                **finding,
                "copy": self.name(place),
                "modified": moment(self._was.st_mtime),
                "size": self._was.st_size,
            }
            write(Path(f"{place}.json"), [(json.dumps(note, indent=1) + "\n").encode()])
        now = time.time()  # its maximum age counts from now
        for each in (place, *(place.rglob("*") if place.is_dir() else ())):
            os.utime(each, (now, now))
        return place

    def second_copy(self, path: Path) -> Path:
        return self.home / "copies" / path.name

    def keep_second_copy(self, path: Path, content: bytes | None = None) -> None:
        """Copy an undamaged file, or the part of it that matters, if it has changed."""
        copy = self.second_copy(path)
        content = path.read_bytes() if content is None else content
        with contextlib.suppress(OSError):
            if copy.read_bytes() == content:
                return
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.parent.chmod(0o700)
        write(copy, [content])
        copy.chmod(0o600)

    @property
    def open(self) -> list[dict]:
        """The files that are still damaged."""
        return [finding for finding in self.found if "repair" in finding]

    def report(self) -> dict:
        """The files that need a repair, and those that were moved aside and still exist."""
        try:
            waiting = json.loads((self.home / "report.json").read_bytes())["damaged"]
        except (OSError, ValueError, KeyError, TypeError):
            waiting = []
        aside = []
        for note in sorted((self.home / "damaged").glob("*.json")):
            with contextlib.suppress(OSError, ValueError):
                aside.append(json.loads(note.read_bytes()))
        return {"service": self.service, "damaged": waiting, "set_aside": aside}

    def save(self) -> None:
        path = self.home / "report.json"
        text = (json.dumps({"damaged": self.open}, indent=1) + "\n").encode()
        if (path.exists() and path.read_bytes() == text) or not (self.open or path.exists()):
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, [text])
        path.chmod(0o644)

    def log(self) -> None:
        """Write the findings to the journal, at level warning."""
        for finding in self.found:
            after = f"run {finding['repair']}" if "repair" in finding else finding["done"]
            if "copy" in finding:
                after += f"; the damaged file is {finding['copy']}"
            print(f"<4>{finding['file']} {finding['problem']}; {after}. Lost: {finding['lost']}.", flush=True)


def is_active(service: str) -> bool:
    return not subprocess.run(["systemctl", "is-active", "--quiet", f"{service}.service"], check=False).returncode


def confirmed(first: StateFiles, look: Callable[[StateFiles], None]) -> StateFiles:
    """The findings that a second check confirms: a running service may have been writing during the first."""
    time.sleep(1)
    second = StateFiles(first.service, first.verb, first.root, first.live)
    look(second)
    names = {finding["file"] for finding in first.found}
    second.found = [finding for finding in second.found if finding["file"] in names]
    return second


def main(
    service: str, look: Callable[[StateFiles], None], more: dict[str, Callable[[StateFiles], None]] | None = None
) -> int:
    """The command line of a service's program; `more` are additional verbs."""
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("verb", choices=["start", "plan", "repair", "report", *(more or ())])
    parser.add_argument("--root", default="", help="the root directory of the host, for tests")
    options = parser.parse_args()
    files = StateFiles(service, options.verb, options.root, live=not options.root and is_active(service))
    if more and options.verb in more:
        more[options.verb](files)
        return 0
    if options.verb == "report":
        print(json.dumps(files.report()))
        return 0
    try:
        look(files)
        if files.live and files.found:
            files = confirmed(files, look)
        if options.verb != "plan":
            files.save()
    except Exception:
        # A check that fails must not prevent the start of the service.
        print("<3>The state files could not be checked:", traceback.format_exc(), file=sys.stderr)
        return 0 if options.verb == "start" else 1
    if options.verb == "start":
        files.log()
        return 0 if files.may_start else 1
    print(
        json.dumps({"service": service, "found": files.found, "left": files.open if options.verb == "repair" else []})
    )
    return 0
