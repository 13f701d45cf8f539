#!/usr/bin/env python3
"""Fill a feed: a signed apt repository in a directory, from which a Pi installs the packages that Debian does not have.

    feed.py fill [--release trixie] [--architecture amd64] [--stand-ins] [--vendors FILE] [--directory DIR] [--refresh]
                 [--complete [--package NAME]... [--status FILE]] [--interpreter FILE]...
    feed.py path [--release trixie] [--architecture amd64]
    feed.py deb  [--architecture amd64]

Packages come from their vendors' signed repositories, and apt verifies them. With --stand-ins (demo and tests), packages of
a vendor out of reach are replaced: Telegraf and InfluxDB are built from their Go modules, Grafana is the stand-in.
On armhf InfluxDB is always Debian's. A .deb in <cache>/feed/drop-in takes precedence over all others.
feed.lock.json lists the packages of the feed and their origins. The versions of the vendors' packages are kept until --refresh.
With --complete the feed also has all packages of Debian that the roles install, with those that they depend on, and the Python
packages of the controller and of esptool: a Pi can be set up from it without internet. Debian's packages are the newest each
time that something in the feed changes. --interpreter adds a copy of a file that lopy4_interpreter names.

vendors.json describes the vendors. --vendors names a JSON file with changes: {vendor: {setting: value}}.

`path` prints the directory of the feed. `deb` builds only the package node-red, for a Pi without a feed, and prints its path.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import grafana
import influxdb
import interpreters
import node_red
import repository
import telegraf
import wheels
from deb import FeedError, Package, newer, place, sha256
from sources import OutOfReach, from_debian, from_vendor, with_dependencies
from tools import GO_ARCHITECTURE, toolchain

HERE = Path(__file__).resolve().parent
ARCHITECTURES = tuple(GO_ARCHITECTURE)
# Vendor's package: the Debian packages that replace it.
DEBIAN = {"influxdb": ["influxdb", "influxdb-client"]}
# Vendor's package: the function that builds a replacement, and the files that it depends on.
STAND_INS = {
    "telegraf": (telegraf.make, telegraf.inputs),
    "influxdb": (influxdb.make, influxdb.inputs),
    "grafana": (grafana.make, grafana.inputs),
}
# Long builds are announced with their duration.
DURATIONS = {
    "telegraf": ", a minute or two on two cores",
    "influxdb": ", two minutes on two cores",
}
SETTINGS = {"uri", "suites", "components", "key", "fingerprint", "packages"}


def cache_directory() -> Path:
    """The user's cache directory, shared by all clones."""
    path = os.environ.get("TIG_PI_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "tig-pi")
    return Path(path).expanduser().resolve()


def host_architecture() -> str:
    return subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True, check=True).stdout.strip()


_print_lock = threading.Lock()


def say(text: str) -> None:
    with _print_lock:
        print(f"feed: {text}", file=sys.stderr, flush=True)


def fingerprint(paths: list[Path], *words: str) -> str:
    """A hash of the names and contents of files, and of words."""
    digest = hashlib.sha256("\0".join(words).encode())
    for path in sorted(paths):
        digest.update(f"{path.name}\0{sha256(path)}\0".encode())
    return digest.hexdigest()


def debian_packages(architecture: str) -> list[str]:
    """The packages that debian-packages.txt has for an architecture."""
    lines = (line.partition("[") for line in (HERE / "debian-packages.txt").read_text().splitlines())
    return [
        name.strip()
        for name, bracket, limit in lines
        if name.strip()
        and not name.startswith("#")
        and (not bracket or (limit.rstrip("] ").removeprefix("!") == architecture) != limit.startswith("!"))
    ]


@dataclasses.dataclass
class Feed:
    release: str
    architecture: str
    directory: Path
    cache: Path
    stand_ins: bool
    vendors: dict[str, dict]
    refresh: bool = False
    complete: bool = False  # with all that a Pi without internet needs
    more: tuple[str, ...] = ()  # Debian's packages, beside those that the roles install
    status: Path | None = None  # the packages of the Pi's image, as in its /var/lib/dpkg/status
    interpreters: tuple[Path, ...] = ()  # of the site's devices

    @property
    def drop_ins(self) -> list[Path]:
        return sorted((self.cache / "feed/drop-in").glob("*.deb"))

    def inputs(self) -> str:
        """A hash of everything that determines the contents of the feed."""
        drop_ins = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in self.drop_ins]
        files = [*telegraf.inputs(), *influxdb.inputs(), *node_red.inputs(), *HERE.glob("*.py")]
        if self.stand_ins:
            files += grafana.inputs()
        description = [self.release, self.architecture, self.stand_ins, self.vendors, drop_ins]
        files += [interpreter.path for interpreter in interpreters.read(self.interpreters)]
        if self.complete:
            files += [*wheels.inputs(), HERE / "debian-packages.txt", *([self.status] if self.status else [])]
            description.append(self.more)
        return fingerprint(files, json.dumps(description, sort_keys=True))

    def fill(self) -> dict:
        inputs = self.inputs()
        if not self.refresh and repository.is_complete(self.directory, inputs):
            say(f"{self.directory} is up to date")
            return repository.read_lock(self.directory)
        repository.refuse_other_files(self.directory)
        key = repository.SigningKey(self.cache / "feed/key")
        key.ensure()
        packages = self.collect() + interpreters.read(self.interpreters)
        if self.complete:
            packages += self.dependencies(packages)
            packages += [wheel for directory in wheels.LOCKS for wheel in self.wheels(directory)]
        return repository.publish(self.directory, packages, key, self.release, self.architecture, inputs)

    def dependencies(self, own: list[Package]) -> list[Package]:
        """Debian's packages that the roles install, and all that they and the feed's `own` packages depend on."""
        say(f"looking up the packages of Debian {self.release}, a minute the first time")
        names = [*debian_packages(self.architecture), *self.more]
        work = self.cache / f"apt/feed/{self.release}-{self.architecture}/complete"
        keep = self.cache / f"debs/debian-{self.release}-{self.architecture}"
        try:
            return with_dependencies(names, own, self.release, self.architecture, keep, work, self.status)
        except OutOfReach as error:
            raise FeedError(f"Debian's packages cannot be downloaded: {error}") from error

    def wheels(self, directory: str) -> list[wheels.Wheel]:
        """The Python packages of a directory of the feed, kept in the cache under a hash of what determines them."""
        targets = wheels.targets(directory, self.release, self.architecture, host_architecture())
        kept = self.cache / "wheels" / f"{directory}-{fingerprint(wheels.inputs(), json.dumps(targets))[:16]}"
        if targets and not kept.exists():
            say(f"downloading the Python packages of {wheels.LOCKS[directory].name}")
            kept.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".get-", dir=kept.parent) as temporary:
                got = Path(temporary) / "wheels"
                wheels.download(wheels.LOCKS[directory], targets, got, self.cache / f"feed/logs/{directory}.log")
                got.rename(kept)
        if kept.exists():
            kept.touch()
            remove_unused(kept.parent.glob(f"{directory}-*"))
        return [wheels.Wheel.of(path, directory) for path in sorted(kept.glob("*.whl"))]

    def collect(self) -> list[Package]:
        """Get all packages, several at a time; failures are reported when all have finished."""
        dropped: dict[str, Package] = {}
        for path in self.drop_ins:
            package = Package.read(path, "drop-in", "drop-in")
            if package.architecture not in (self.architecture, "all"):
                say(f"left out {path}: it is for {package.architecture}")
                continue
            known = dropped.get(package.name)
            if known is None or newer(package.version, known.version):
                dropped[package.name] = package

        jobs: dict[str, Callable[[], list[Package]]] = {}
        for label, vendor in self.vendors.items():
            for name in vendor["packages"]:
                if name in dropped:
                    continue
                if name in DEBIAN and self.architecture == "armhf":
                    jobs[name] = lambda name=name: self.debian(name)
                else:
                    jobs[name] = lambda name=name, label=label: self.vendor_or_stand_in(name, label)
        if "node-red" not in dropped:
            jobs["node-red"] = lambda: [self.node_red()]

        packages = list(dropped.values())
        failures = []
        if any(self.would_build(name) for name in jobs):
            toolchain(self.cache)
        with concurrent.futures.ThreadPoolExecutor(max_workers=len(jobs) or 1) as pool:
            futures = {pool.submit(self.timed, name, job): name for name, job in jobs.items()}
            for future in concurrent.futures.as_completed(futures):
                try:
                    packages += [package for package in future.result() if package.name not in dropped]
                except FeedError as error:
                    failures.append(str(error))
        if failures:
            raise FeedError("\n".join(failures))
        return packages

    def would_build(self, name: str) -> bool:
        return name == "node-red" or (self.stand_ins and name in ("telegraf", "influxdb"))

    def timed(self, name: str, job: Callable[[], list[Package]]) -> list[Package]:
        started = time.monotonic()
        packages = job()
        for package in packages:
            took = time.monotonic() - started
            say(f"{package.name} {package.version} ({package.origin}: {package.source}) after {took:.0f} s")
        return packages

    def vendor_or_stand_in(self, name: str, label: str) -> list[Package]:
        """The vendor's package. With --stand-ins, its replacement if the vendor is out of reach or its key is not pinned.

        It is always an error if the vendor's answer cannot be trusted.
        """
        try:
            if not self.vendors[label]["fingerprint"] and self.stand_ins:
                raise OutOfReach("the fingerprint of its key is not set")
            return [self.vendor(name, label)]
        except OutOfReach as error:
            if not self.stand_ins or name not in STAND_INS:
                raise FeedError(
                    f"{name}: {label} is out of reach, and a feed without --stand-ins needs the vendor's package. Try "
                    f"again later, or put the .deb into {self.cache / 'feed/drop-in'}. ({error})"
                ) from error
            say(f"{name}: replacing the vendor's package: {str(error).splitlines()[0][:160]}")
        maker, inputs = STAND_INS[name]
        return [self.cached_build(name, maker, inputs())]

    def vendor(self, name: str, label: str) -> Package:
        """The package in the wanted version: the one in the lock file, else the vendor's newest one that matches."""
        version = self.vendors[label]["packages"][name]
        if package := self.locked_package(name, "vendor", version):
            return package
        say(f"{name}: looking it up at {label}")
        work = self.cache / f"apt/feed/{self.release}-{self.architecture}/{name}"
        return from_vendor(label, self.vendors[label], name, version, self.architecture, self.cache / "debs", work)

    def debian(self, name: str) -> list[Package]:
        """The Debian packages that replace a vendor's: those in the lock file, else those of the mirror."""
        names = DEBIAN[name]
        packages = [self.locked_package(name, "debian", "") for name in names]
        if all(packages):
            return packages
        work = self.cache / f"apt/feed/{self.release}-{self.architecture}/debian"
        try:
            return from_debian(names, self.release, self.architecture, self.cache / "debs", work)
        except OutOfReach as error:
            raise FeedError(f"{', '.join(names)}: {error}") from error

    def locked_package(self, name: str, origin: str, version: str) -> Package | None:
        """The package that is already in the feed, unless --refresh asks for a new one."""
        for entry in repository.read_lock(self.directory).get("packages", []):
            path = self.directory / entry["file"]
            wanted = fnmatchcase(entry["version"], version or "*")
            known = entry["name"] == name and entry["origin"] == origin and wanted
            if known and not self.refresh and path.exists() and sha256(path) == entry["sha256"]:
                return Package.read(path, origin, entry["source"])
        return None

    def cached_build(self, name: str, maker: Callable[[str, Path, Path], Package], inputs: list[Path]) -> Package:
        """Build a package, or take it from the cache, where it is kept under the hash of its inputs."""
        stem = f"{name}-{self.architecture}"
        kept = self.cache / "debs" / f"{stem}-{fingerprint(inputs)[:16]}"
        record = kept / "package.json"
        if record.exists():
            kept.touch()
            fields = json.loads(record.read_text())
            return Package(path=kept / fields.pop("file"), **fields)
        say(f"{name}: building it for {self.architecture}{DURATIONS.get(name, '')}")
        kept.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".build-", dir=self.cache / "debs") as temporary:
            package = maker(self.architecture, self.cache, Path(temporary))
            place(package.path, kept / package.file_name)
        fields = dataclasses.asdict(package) | {"file": package.file_name}
        del fields["path"]
        record.write_text(json.dumps(fields))
        remove_unused(kept.parent.glob(f"{stem}-*"))
        return dataclasses.replace(package, path=kept / package.file_name)

    def node_red(self) -> Package:
        return self.cached_build("node-red", node_red.make, node_red.inputs())


def remove_unused(kept: Iterable[Path]) -> None:
    """Remove what was not used for a month from the cache."""
    for path in kept:
        if time.time() - path.stat().st_mtime > 30 * 86400:
            shutil.rmtree(path)


def read_vendors(changes: str | None) -> dict[str, dict]:
    """The vendors of vendors.json with the changes in a file (- is standard input), validated."""
    vendors = json.loads((HERE / "vendors.json").read_text())
    if changes:
        text = sys.stdin.read() if changes == "-" else Path(changes).read_text()
        for label, settings in (json.loads(text) or {}).items():
            vendors[label] = vendors.get(label, {}) | settings
    for label, settings in vendors.items():
        if unknown := set(settings) - SETTINGS:
            raise FeedError(f"{label}: unknown setting {min(unknown)!r}. Settings are {', '.join(sorted(SETTINGS))}.")
        if missing := SETTINGS - set(settings):
            raise FeedError(f"{label}: set {', '.join(sorted(missing))}, too.")
    return vendors


@contextlib.contextmanager
def locked(cache: Path) -> Iterator[None]:
    """Allow one run at a time. The kernel releases the lock when the process ends, however it ends."""
    (cache / "feed/drop-in").mkdir(parents=True, exist_ok=True)
    with (cache / "feed/.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another run")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=["fill", "path", "deb"])
    parser.add_argument("--release", default="trixie", help="Debian release of the Pi; default: trixie")
    parser.add_argument("--architecture", choices=ARCHITECTURES, help="architecture of the Pi; default: this machine's")
    parser.add_argument(
        "--directory",
        type=Path,
        help="directory of feeds, each in its <release>-<architecture>; default: <cache>/feed",
    )
    parser.add_argument("--vendors", metavar="FILE", help="JSON file with changes to vendors.json; - is standard input")
    parser.add_argument("--stand-ins", action="store_true", help="replace packages whose vendor is out of reach")
    parser.add_argument(
        "--complete", action="store_true", help="add Debian's and Python's packages, for a Pi without internet"
    )
    parser.add_argument("--package", action="append", default=[], help="with --complete: one more package of Debian")
    parser.add_argument(
        "--status",
        type=Path,
        metavar="FILE",
        help="with --complete: /var/lib/dpkg/status of the image, to include upgrades",
    )
    parser.add_argument(
        "--interpreter", type=Path, action="append", default=[], metavar="FILE", help="an interpreter of a sensor node"
    )
    parser.add_argument("--refresh", action="store_true", help="look for newer versions")
    arguments = parser.parse_args()

    cache = cache_directory()
    architecture = arguments.architecture or host_architecture()
    above = arguments.directory or cache / "feed"
    directory = above.expanduser().resolve() / f"{arguments.release}-{architecture}"
    if arguments.verb == "path":
        print(directory)
        return 0
    try:
        feed = Feed(
            arguments.release,
            architecture,
            directory,
            cache,
            arguments.stand_ins,
            read_vendors(arguments.vendors),
            arguments.refresh,
            arguments.complete,
            tuple(arguments.package),
            arguments.status,
            tuple(arguments.interpreter),
        )
        started = time.monotonic()
        with locked(cache):
            if arguments.verb == "deb":
                print(feed.node_red().path)
                return 0
            lock = feed.fill()
        size = sum(entry["size"] for entry in repository.entries(lock)) / 1e6
        say(f"{directory} has {len(lock['packages'])} packages, {size:.0f} MB ({time.monotonic() - started:.1f} s)")
        print(directory)
        for entry in repository.entries(lock):
            print(f"{entry['name']} {entry['version']}".rstrip(), f"({entry['origin']}: {entry['source']})")
    except FeedError as error:
        print(f"feed: ERROR: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
