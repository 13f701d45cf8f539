"""Python packages as wheels, verified by the hashes of a lock file: those of the controller, and esptool for it and for the Pi."""

from __future__ import annotations

import dataclasses
import re
import sys
from pathlib import Path

from deb import FeedError, Package
from tools import BuildFailed, run

HERE = Path(__file__).resolve().parent
# A directory of the feed: the lock file of the packages in it. Those of the controller begin with python.
LOCKS = {
    "python": HERE.parent / "requirements.txt",
    "esptool": HERE.parent / "roles/lopy4/files/esptool-requirements.txt",
    "python-esptool": HERE.parent / "roles/lopy4/files/esptool-requirements.txt",
}
# Packages without wheels. They are pure Python, so that a wheel that is built here fits every Pi.
BUILT = ("esp-pylib", "esptool", "reedsolo")

# The version of Python in each Debian release, and all versions that a controller may have.
PYTHON = {"bookworm": "3.11", "trixie": "3.13"}
CONTROLLERS = ("3.11", "3.12", "3.13", "3.14")
# dpkg's architecture: Python's. There are no wheels of all packages for armhf.
MACHINE = {"amd64": "x86_64", "arm64": "aarch64"}
# The C libraries, as 2.x, that wheels may need: up to that of the oldest release.
GLIBC = range(17, 37)


@dataclasses.dataclass(frozen=True)
class Wheel(Package):
    """A wheel, with the tag of its platform as architecture, in a directory of the feed."""

    directory: str = ""

    @classmethod
    def of(cls, path: Path, directory: str) -> Wheel:
        name, version, *_, platform = path.stem.split("-")
        origin = "built" if name.replace("_", "-") in BUILT else "pypi"
        return cls(path, name, version, platform, origin, f"PyPI, by {LOCKS[directory].name}", directory)

    @property
    def file_name(self) -> str:
        return f"{self.directory}/{self.path.name}"


def inputs() -> list[Path]:
    return [*LOCKS.values(), HERE / "wheels.py"]


def targets(directory: str, release: str, architecture: str, own: str) -> list[tuple[str, str]]:
    """The machines, with the version of Python, that need a directory's wheels: the Pi, or as controller computers with the
    architecture of the Pi or of this one, which is `own`."""
    machines = {MACHINE[name] for name in (architecture, own) if name in MACHINE}
    if directory != "esptool":
        return [(machine, version) for machine in sorted(machines) for version in CONTROLLERS]
    return [(MACHINE[architecture], PYTHON[release])] if architecture in MACHINE else []


def download(lock: Path, targets: list[tuple[str, str]], directory: Path, log: Path) -> None:
    """Download the wheels of the packages in a lock file into a new directory."""
    log.unlink(missing_ok=True)
    directory.mkdir()

    def pip(*arguments: str | Path) -> None:
        run([sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments], log)

    entries = re.split(r"\n(?=[a-z])", lock.read_text())
    try:
        for is_built in (False, True):
            chosen = [entry for entry in entries if (entry.partition("==")[0] in BUILT) == is_built]
            if not chosen:
                continue
            part = directory.with_name("requirements.txt")
            part.write_text("\n".join(chosen) + "\n")
            options = ["--no-deps", "--require-hashes", "--requirement", part]
            if is_built:
                pip("wheel", *options, "--wheel-dir", directory)
                continue
            for machine, version in targets:
                target = ["--implementation=cp", f"--python-version={version}", f"--platform=manylinux2014_{machine}"]
                target += [f"--platform=manylinux_2_{minor}_{machine}" for minor in GLIBC]
                pip("download", *options, "--only-binary=:all:", "--dest", directory, *target)
    except BuildFailed as error:
        raise FeedError(f"The Python packages in {lock.name} cannot be downloaded: {error}") from error
