"""Write a flat apt repository: packages, indexes, signature and lock file. Wheels and interpreters are in directories beside the packages."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import tempfile
from pathlib import Path

from deb import FeedError, Package, place, sha256

LOCK = "feed.lock.json"
PARTS = ("packages", "python", "interpreters")  # of the lock file


class SigningKey:
    """The feed's own key, created once, without a passphrase, in a GnuPG home directory that only its owner can read."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def _gpg(self, *arguments: str | Path) -> bytes:
        # gpg-agent's socket is in the home directory, and the path of a socket is limited to 107 characters: use a short link.
        with tempfile.TemporaryDirectory(prefix="tig-pi-", dir="/tmp") as short:
            home = Path(short) / "gnupg"
            home.symlink_to(self.home)
            environment = os.environ | {"GNUPGHOME": str(home), "LC_ALL": "C"}
            try:
                result = subprocess.run(
                    ["gpg", "--batch", "--no-tty", *arguments], capture_output=True, env=environment, check=False
                )
            finally:
                subprocess.run(["gpgconf", "--kill", "all"], env=environment, capture_output=True, check=False)
        if result.returncode:
            raise FeedError(f"gpg failed: {result.stderr.decode(errors='replace').strip()}")
        return result.stdout

    def ensure(self) -> None:
        if (self.home / "pubring.kbx").exists() and self._gpg("--list-secret-keys"):
            return
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.home.chmod(0o700)
        self._gpg("--passphrase", "", "--quick-generate-key", "tig-pi feed", "ed25519", "sign", "never")

    def public(self) -> bytes:
        return self._gpg("--armor", "--export")

    def sign(self, text: Path, clear: Path) -> None:
        self._gpg("--yes", "--output", clear, "--clear-sign", text)


def read_lock(directory: Path) -> dict:
    try:
        return json.loads((directory / LOCK).read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}


def is_complete(directory: Path, inputs: str) -> bool:
    """Whether the repository was published from these inputs and still has all its files."""
    lock = read_lock(directory)
    if lock.get("inputs") != inputs or not all((directory / n).exists() for n in ("InRelease", "feed.asc")):
        return False
    return all(
        (directory / entry["file"]).exists() and (directory / entry["file"]).stat().st_size == entry["size"]
        for entry in entries(lock)
    )


def entries(lock: dict) -> list[dict]:
    """All files of a feed that are no index."""
    return [entry for part in PARTS for entry in lock.get(part, [])]


def refuse_other_files(directory: Path) -> None:
    """FeedError if a directory has files of somebody else: publishing removes all packages that the feed does not list."""
    if directory.is_dir() and any(directory.iterdir()) and not (directory / LOCK).exists():
        raise FeedError(
            f"{directory} has files, but no {LOCK}: it is not a feed, and packages in it would be removed. "
            "Move them away, or name another directory."
        )


def publish(directory: Path, packages: list[Package], key: SigningKey, release: str, arch: str, inputs: str) -> dict:
    """Publish exactly `packages`, wheels and interpreters, in `directory`. A running Pi may have it mounted, so it is always consistent: packages
    are added first, then the indexes are replaced, the signed one last, and packages that are no longer listed are removed.
    """
    refuse_other_files(directory)
    directory.mkdir(parents=True, exist_ok=True)
    if not (directory / LOCK).exists():  # if this run is interrupted, the next one knows that the files are the feed's
        (directory / LOCK).write_text(
            json.dumps({"release": release, "architecture": arch, "inputs": "", **{part: [] for part in PARTS}}) + "\n"
        )
    packages = sorted(packages, key=lambda package: package.name)
    debs = [package for package in packages if package.path.suffix == ".deb"]
    wheels = [package for package in packages if package.path.suffix == ".whl"]
    interpreters = [package for package in packages if package.path.suffix not in (".deb", ".whl")]
    for package in packages:
        target = directory / package.file_name
        target.parent.mkdir(exist_ok=True)
        place(package.path, target, is_linked=package not in interpreters)  # which are files of the user

    # Links are elsewhere, because the feed may be on a USB stick, whose file system has none.
    with (
        tempfile.TemporaryDirectory() as links,
        tempfile.TemporaryDirectory(prefix=".index-", dir=directory) as temporary,
    ):
        work = Path(temporary)
        for package in debs:
            (Path(links) / package.file_name).symlink_to((directory / package.file_name).absolute())
        index = _ftparchive(Path(links), "packages", ".")
        (work / "Packages").write_bytes(index)
        (work / "Packages.gz").write_bytes(gzip.compress(index, mtime=0))
        lock = {
            "release": release,
            "architecture": arch,
            "inputs": inputs,
            "packages": [_entry(directory, package) for package in debs],
            "python": [_entry(directory, package) for package in wheels],
            "interpreters": [_entry(directory, package) for package in interpreters],
        }
        (work / LOCK).write_text(json.dumps(lock, indent=2) + "\n")
        options = {
            "Origin": "tig-pi",
            "Label": "tig-pi feed",
            "Suite": "./",
            "Codename": release,
            "Architectures": arch,
        }
        flags = [f"-oAPT::FTPArchive::Release::{name}={value}" for name, value in options.items()]
        # The signature covers the lock file, too, and with it all files of the feed.
        flags += [f"-oAPT::FTPArchive::Release::Patterns::={name}" for name in ("Packages", "Packages.gz", LOCK)]
        release_file = _ftparchive(work, *flags, "release", ".")
        (work / "Release").write_bytes(release_file)
        key.sign(work / "Release", work / "InRelease")
        (work / "feed.asc").write_bytes(key.public())
        for name in ("feed.asc", "Packages", "Packages.gz", "Release", LOCK, "InRelease"):
            (work / name).chmod(0o644)
            (work / name).replace(directory / name)

    listed = {package.file_name for package in packages}
    for path in (*directory.glob("*.deb"), *directory.glob("*/*.whl"), *directory.glob("interpreters/*")):
        if str(path.relative_to(directory)) not in listed:
            path.unlink()
    return lock


def _entry(directory: Path, package: Package) -> dict:
    path = directory / package.file_name
    return {
        "name": package.name,
        "version": package.version,
        "architecture": package.architecture,
        "file": package.file_name,
        "size": path.stat().st_size,
        "sha256": sha256(path),
        "origin": package.origin,
        "source": package.source,
    }


def _ftparchive(directory: Path, *arguments: str) -> bytes:
    result = subprocess.run(["apt-ftparchive", *arguments], cwd=directory, capture_output=True, check=False)
    if result.returncode:
        raise FeedError(f"apt-ftparchive failed: {result.stderr.decode(errors='replace').strip()}")
    return result.stdout
