"""A feed on the controller: whether it is complete, unchanged, and for a host. packaging/ fills it."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import tempfile
from fnmatch import fnmatchcase
from pathlib import Path

from ansible.errors import AnsibleError
from ansible_collections.tig_pi.stack.plugins.filter.openpgp import dearmoured, openpgp_keys

LOCK = "feed.lock.json"
# The files beside the packages, the signed one last.
INDEX = ("feed.asc", "Packages", "Packages.gz", "Release", LOCK, "InRelease")
# The directories with what only the controller needs.
CONTROLLER = ("python/", "python-esptool/", "interpreters/")
# Programs that verify a signature, of which apt needs one. gpgv also accepts one of the future: the clock of a host without internet may be
# wrong in either direction.
VERIFIERS = {"gpgv": ["--ignore-time-conflict"], "sqv": ["--cleartext"]}
CLEAR_SIGNED = re.compile("-----BEGIN PGP SIGNED MESSAGE-----\n.*\n-----END PGP SIGNATURE-----\n", re.DOTALL)


class Feed:
    """The feed in a directory, or in its subdirectory <release>-<architecture>."""

    def __init__(self, directory: str, release: str, architecture: str) -> None:
        above = Path(directory).expanduser()
        below = above / f"{release}-{architecture}"
        self.directory = below if below.is_dir() else above
        self.release, self.architecture = release, architecture
        try:
            self.lock = json.loads((self.directory / LOCK).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise AnsibleError(
                f"There is no feed for {release} on {architecture} in {above}. Fill one with "
                f"`{self.command}`, and name its directory if it is elsewhere: FEED=/media/stick/feed."
            ) from None
        except (OSError, ValueError) as error:
            raise AnsibleError(f"{self.directory / LOCK} cannot be read: {error}.") from error

    @property
    def command(self) -> str:
        return f'make feed ARGS="-e feed_release={self.release} -e feed_architecture={self.architecture}"'

    @property
    def files(self) -> dict[str, dict]:
        """The packages, wheels and interpreters, by their paths in the feed."""
        parts = (self.lock.get(part, []) for part in ("packages", "python", "interpreters"))
        return {entry["file"]: entry for part in parts for entry in part}

    def verified(self, fingerprint: str) -> str:
        """The key of the feed, after everything was verified."""
        kind = (self.lock["release"], self.lock["architecture"])
        if kind != (self.release, self.architecture):
            raise AnsibleError(
                f"The feed {self.directory} is for {' on '.join(kind)}, and the host has {self.release} on "
                f"{self.architecture}. Fill one for it: {self.command}"
            )
        key = self._key(fingerprint)
        for name, (size, digest) in self._signed(key).items():
            self._verify(name, size, digest)
        for name, entry in self.files.items():
            self._verify(name, entry["size"], entry["sha256"])
        return key

    def require(self, packages: list[str]) -> None:
        """Fail if it lacks one of the packages, which are given as for apt: `name`, or `name=version` with * for the rest."""
        versions: dict[str, list[str]] = {}
        for entry in self.lock["packages"]:
            versions.setdefault(entry["name"], []).append(entry["version"])
        lacking = []
        for package in packages:
            name, _, pattern = package.partition("=")
            if not any(fnmatchcase(version, pattern or "*") for version in versions.get(name, [])):
                lacking.append(package + (f" (it has {', '.join(versions[name])})" if name in versions else ""))
        if lacking:
            raise AnsibleError(f"The feed {self.directory} lacks {', '.join(lacking)}. Fill it again: {self.command}")

    def _key(self, fingerprint: str) -> str:
        wanted = "".join(fingerprint.split()).upper()
        keys = openpgp_keys(self._read("feed.asc"))
        if wanted not in keys:
            raise AnsibleError(
                f"The feed {self.directory} is signed by the key {' and '.join(keys)}, and {wanted or 'none'} is expected. If you have "
                "filled it with another computer, and the fingerprint is the one that `make feed` printed there, write it to "
                "secrets/feed_fingerprint."
            )
        return keys[wanted]

    def _signed(self, key: str) -> dict[str, tuple[int, str]]:
        """Size and hash of the files that the signature covers."""
        _, _, hashes = self._signed_text(key).partition("\nSHA256:\n")
        lines = re.match(r"(?: .*\n)*", hashes)[0].splitlines()
        found = {name: (int(size), digest) for digest, size, name in (line.split() for line in lines)}
        if missing := {"Packages", LOCK} - set(found):
            raise AnsibleError(
                f"The signature of the feed {self.directory} does not cover {', '.join(sorted(missing))}. {self._again}"
            )
        return found

    def _signed_text(self, key: str) -> str:
        """The text of InRelease, if it has this key's signature, and nothing before or after it, which apt refuses."""
        clear = self._read("InRelease")
        program = next(filter(shutil.which, VERIFIERS), None)
        if not program:
            raise AnsibleError(
                f"The signature of the feed {self.directory} cannot be verified, since this computer has neither {' nor '.join(VERIFIERS)}. "
                "Install gpgv (or gnupg)."
            )
        with tempfile.TemporaryDirectory() as folder:
            keyring, text = Path(folder, "key.gpg"), Path(folder, "text")
            keyring.write_bytes(dearmoured(key))
            command = [
                program,
                *VERIFIERS[program],
                f"--keyring={keyring}",
                f"--output={text}",
                self.directory / "InRelease",
            ]
            done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
            if done.returncode == 0 and CLEAR_SIGNED.fullmatch(clear):
                return text.read_text(encoding="utf-8")
        raise AnsibleError(
            f"The signature of the feed {self.directory} (InRelease) is not valid. {self._again} ({program}: {done.stderr.strip()})"
        )

    @property
    def _again(self) -> str:
        return f"Copy the feed again, or fill it again: {self.command}"

    def _read(self, name: str) -> str:
        try:
            return (self.directory / name).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise AnsibleError(f"{name} of the feed {self.directory} cannot be read: {error}. {self._again}") from error

    def _verify(self, name: str, size: int, digest: str) -> None:
        path = self.directory / name
        try:
            with path.open("rb") as file:
                same = path.stat().st_size == size and hashlib.file_digest(file, "sha256").hexdigest() == digest
        except FileNotFoundError:
            raise AnsibleError(f"The feed {self.directory} lacks the file {name}. {self._again}") from None
        except OSError as error:
            raise AnsibleError(f"{path} cannot be read: {error.strerror}. {self._again}") from error
        if not same:
            raise AnsibleError(f"{name} in the feed {self.directory} was changed after it was signed. {self._again}")
