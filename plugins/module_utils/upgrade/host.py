"""The state of an upgrade on this host, so that it can be completed or undone whenever it was interrupted.

    begun ──▶ verified
      └─────▶ reverting ──▶ reverted

Each step may be repeated, and is recorded once all of it is on the card.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from ansible_collections.tig_pi.stack.plugins.module_utils import state_files
from ansible_collections.tig_pi.stack.plugins.module_utils.influxdb.client import Server
from ansible_collections.tig_pi.stack.plugins.module_utils.upgrade import files, packages, points
from ansible_collections.tig_pi.stack.plugins.module_utils.upgrade.packages import Failure, run

STATE = Path("/var/lib/tig-pi/upgrade")
HOOK = Path("/etc/apt/apt.conf.d/90tig-pi-upgrade")
# Keeps a service from being started, also by a reboot, until its data is restored: what it would receive until then would be replaced.
UNITS = Path("/usr/local/lib/systemd/system")
HOLD = """# An upgrade is being rolled back. `make upgrade` completes that, and starts the service.
[Unit]
AssertPathExists=!/var/lib/tig-pi/upgrade/kept
"""
# Bytes that stay free on the card.
RESERVE = 200 * 10**6
# A database with years of data takes minutes to open.
SECONDS_TO_ANSWER = 900


class Upgrade:
    """What an upgrade is rolled back with, and how far it is."""

    def __init__(self) -> None:
        self.kept, self.points = STATE / "kept", STATE / "points"

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Wait for a call that still runs, since its controller was killed."""
        STATE.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (STATE / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @staticmethod
    def read() -> dict:
        with contextlib.suppress(OSError, ValueError):
            return json.loads((STATE / "upgrade.json").read_bytes())
        return {"state": "none", "id": ""}

    @staticmethod
    def write(about: dict) -> dict:
        os.sync()
        state_files.write(STATE / "upgrade.json", [json.dumps(about, indent=1).encode()])
        return about

    def begin(self, identifier: str, services: list[dict], unmanaged: list[str], managed: Sequence[str] = ()) -> dict:
        """Keep settings, data, for which the services pause, and packages: those that are installed without apt now, others by apt.

        An upgrade that was interrupted goes on.

        Args:
            managed: the packages that an upgrade usually replaces, for which there must be room.
            services: each with its `unit` and its directories `data`, and `package` if its data is to be restored only with that package.
        """
        about = self.read()
        if about["state"] == "reverting":
            raise Failure("the rollback of an earlier upgrade was interrupted")
        if about["state"] == "begun":
            packages.complete()
            self._start(about["services"])
            return about
        directories = [path for one in services for path in map(Path, one["data"]) if path.is_dir()]
        self._forget()
        for replaced in STATE.glob("replaced-*"):
            shutil.rmtree(replaced)
        self._require_room(directories, managed)
        try:
            return self.write(self._keep(identifier, services, unmanaged, directories))
        except BaseException:
            self._forget()
            raise
        finally:
            self._start(services)

    def _keep(self, identifier: str, services: list[dict], unmanaged: list[str], directories: list[Path]) -> dict:
        self.kept.mkdir()
        packages.complete()
        before = packages.installed()
        if broken := sorted(packages.present().keys() - before.keys()):
            raise Failure(
                f"these packages are not completely installed: {', '.join(broken)}; run sudo apt-get --fix-broken install"
            )
        for name in before:
            if name.split(":")[0] in unmanaged:
                packages.keep(name, self.kept / packages.KEPT)
        files.keep_settings(self.kept / "settings")
        self._have_apt_keep_packages()
        begun = time.time() - 1
        self._stop(services)
        for directory in directories:
            files.copy(directory, self._kept(directory))
        return {"id": identifier, "state": "begun", "begun": begun, "packages": before, "services": services}

    def _require_room(self, directories: list[Path], managed: Sequence[str]) -> None:
        """There must be room for the data in the snapshot and restored from it; and for new packages, the previous ones, and these packed."""
        for directory in directories:
            files.refuse_other_file_system(directory)
        data = sum(files.size(directory, STATE) for directory in directories)
        wanted = 2 * data + 3 * packages.size(managed) + RESERVE
        free = shutil.disk_usage(STATE).free
        if free < wanted:
            raise Failure(
                f"an upgrade that can be rolled back takes up to {wanted / 1e6:.0f} MB on the card, of which {free / 1e6:.0f} MB are free"
            )

    def _kept(self, directory: Path) -> Path:
        return self.kept / "data" / directory.relative_to("/")

    def _have_apt_keep_packages(self) -> None:
        """Have apt keep each package before it changes it, by a program that works without Ansible."""
        program = self.kept / "keep-packages"
        program.write_text(f"#!/usr/bin/python3\n{packages.__loader__.get_source(packages.__name__)}")
        program.chmod(0o755)
        HOOK.write_text(f'DPkg::Pre-Install-Pkgs {{ "{program}"; }};\nDPkg::Tools::Options::{program}::Version "3";\n')

    def _forget(self) -> None:
        """Remove the snapshot. The hook first: without its program, apt fails."""
        HOOK.unlink(missing_ok=True)
        for directory in (self.kept, self.points):
            shutil.rmtree(directory, ignore_errors=True)

    @staticmethod
    def _enabled(services: list[dict]) -> list[str]:
        """The units of services that are enabled on this host."""
        units = [one["unit"] for one in services]
        return [unit for unit in units if run("systemctl", "is-enabled", unit, check=False).returncode == 0]

    def _stop(self, services: list[dict]) -> None:
        if units := self._enabled(services):
            run("systemctl", "stop", *units)

    @staticmethod
    def _hold_file(service: dict) -> Path:
        return UNITS / f"{service['unit']}.d" / "tig-pi-upgrade.conf"

    def _hold(self, services: list[dict]) -> None:
        """Stop the services, and keep them from being started."""
        for file in map(self._hold_file, services):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(HOLD)
        run("systemctl", "daemon-reload", check=False)
        self._stop(services)

    def _release(self, services: list[dict]) -> None:
        for file in map(self._hold_file, services):
            file.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # others use it
                os.removedirs(file.parent)

    def _start(self, services: list[dict]) -> list[str]:
        """Start the services; what is wrong with those that do not start."""
        run("systemctl", "daemon-reload")
        units = self._enabled(services)
        if not units:
            return []
        run("systemctl", "reset-failed", *units, check=False)
        run("systemctl", "start", *units, check=False)
        return [
            f"{unit} does not start: sudo journalctl --unit={unit}"
            for unit in units
            if run("systemctl", "is-active", unit, check=False).returncode
        ]

    def end(self) -> dict:
        """Remove the snapshot: the new versions are verified."""
        about = self.read()
        if about["state"] == "reverting":
            raise Failure("this upgrade is being rolled back")
        if about["state"] != "begun":
            self._forget()  # the power may have been cut before that
            return about
        before, now = about.pop("packages"), packages.installed()
        del about["services"]
        names = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
        about["lines"] = [
            f"{name.split(':')[0]}: {before.get(name, 'not installed')} → {now.get(name, 'removed')}" for name in names
        ]
        self.write({**about, "state": "verified", "ended": time.time()})
        self._forget()
        return self.read()

    def revert(self, influxdb: dict) -> dict:
        """Restore packages, settings and data, and add what the database has received during the upgrade.

        Args:
            influxdb: `url`, `user` and `password` of an administrator, its directory `data`, and a measurement that is `ignored`; {} if
                this host has no database.
        """
        about = self.read()
        if about["state"] not in ("begun", "reverting"):
            self._forget()
            return about
        about["state"] = "reverting"
        done = about.setdefault("done", {})
        self.write(about)
        if "_data" not in done:
            self._hold(about["services"])
        steps = (self._export, self._compare, self._packages, self._export_again, self._settings, self._data, self._add)
        try:
            for step in steps:
                if step.__name__ not in done:
                    done[step.__name__] = step(about, influxdb)
                    self.write(about)
        except (Failure, OSError) as failure:
            if "_data" in done:
                raise
            raise Failure(
                f"{failure}. The services stay stopped until `make upgrade` has completed the rollback"
            ) from failure
        about["lines"] = [line for lines in done.values() for line in lines]
        about["problems"] = about.get("problems", [])
        for used in ("packages", "changed", "services", "done", "unread", "stays"):
            about.pop(used, None)
        self.write({**about, "state": "reverted", "ended": time.time()})
        self._forget()
        return self.read()

    def _replaced(self, about: dict) -> Path:
        return STATE / f"replaced-{about['id']}"

    def _export(self, about: dict, influxdb: dict) -> list[str]:
        """Read the points that arrived since the snapshot, with the program that wrote them."""
        if influxdb:
            self._try_export(about, influxdb)
        return []

    def _export_again(self, about: dict, influxdb: dict) -> list[str]:
        """Debian's InfluxDB has no program that reads its files: then the previous version's is tried.

        If neither has one, a database of the same version stays as it is, so that nothing is lost.
        """
        if not influxdb or "unread" not in about or self._try_export(about, influxdb):
            return []
        if "influxdb" not in self._changed(about):
            about["stays"] = influxdb["data"]
            return [
                f"left {influxdb['data']} as it is, with the points received during the upgrade: InfluxDB's version has not changed"
            ]
        self._lack(about, f"points that were received during the upgrade cannot be read: {about['unread']}")
        return []

    def _try_export(self, about: dict, influxdb: dict) -> bool:
        about.pop("unread", None)
        try:
            points.export(Path(influxdb["data"]), about["begun"], self.points)
        except (Failure, OSError) as failure:
            shutil.rmtree(self.points, ignore_errors=True)
            about["unread"] = str(failure)
        return "unread" not in about

    @staticmethod
    def _changed(about: dict) -> set[str]:
        """The packages that the upgrade changed."""
        return {name.split(":")[0] for names in about["changed"].values() for name in names}

    def _lack(self, about: dict, text: str) -> None:
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(about["begun"]))
        hint = f'`make replay SINCE="{since}"` has the nodes send them again; the replaced database is in {self._replaced(about)}'
        about.setdefault("problems", []).append(f"{text}. {hint}")

    def _compare(self, about: dict, influxdb: dict) -> list[str]:
        """Record which packages differ, as long as all of them do."""
        about["changed"] = packages.changes(self.kept / packages.KEPT, about["packages"])
        return []

    def _packages(self, about: dict, influxdb: dict) -> list[str]:
        HOOK.unlink(missing_ok=True)  # not for the packages that are restored now
        packages.restore(self.kept / packages.KEPT, about["packages"])
        lines = [
            f"installed {name.split(':')[0]} {about['packages'][name]} again" for name in about["changed"]["replaced"]
        ]
        return lines + [f"removed {name.split(':')[0]}" for name in about["changed"]["new"]]

    def _settings(self, about: dict, influxdb: dict) -> list[str]:
        count = files.restore_settings(self.kept / "settings", self._replaced(about))
        return [f"restored {count} files of settings"]

    def _data(self, about: dict, influxdb: dict) -> list[str]:
        lines = []
        changed = self._changed(about)
        for service in about["services"]:
            if service["package"] and service["package"] not in changed:
                continue
            for directory in map(Path, service["data"]):
                if self._kept(directory).is_dir() and str(directory) != about.get("stays"):
                    replaced = self._replaced(about) / directory.relative_to("/")
                    files.restore(directory, self._kept(directory), replaced)
                    lines.append(f"restored {directory}; what was there is in {replaced}")
        return lines

    def _add(self, about: dict, influxdb: dict) -> list[str]:
        self._release(about["services"])
        about["problems"] = about.get("problems", []) + self._start(about["services"])
        if not self.points.is_dir():
            return []
        try:
            server = Server.at(influxdb["url"], (influxdb["user"], influxdb["password"]))
            self._wait(server)
            return list(points.add(self.points, server, influxdb["ignored"]))
        except Failure as failure:
            kept = self._replaced(about) / "points"
            shutil.move(self.points, kept)
            self._lack(about, f"{failure}. They are in {kept}")
        return []

    @staticmethod
    def _wait(server: Server) -> None:
        """Wait until the database answers."""
        deadline = time.monotonic() + SECONDS_TO_ANSWER
        while not server.answers():
            if time.monotonic() > deadline:
                raise Failure("InfluxDB does not answer")
            time.sleep(0.5)
