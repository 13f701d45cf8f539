"""Download packages from signed apt repositories with a private apt configuration: its own sources, keys and lists.

apt verifies everything: the signature of InRelease with the one key of the source, its date, and the hashes of the
index and of each package. It uses this machine's proxy settings.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request
from fnmatch import fnmatchcase
from pathlib import Path
from urllib.parse import unquote, urlsplit

from deb import FeedError, Package, sha256

# apt's messages when it reached a repository but cannot trust it.
DISTRUST = re.compile(
    r"GPG error|is not signed|no longer signed|is expired|not valid yet|Hash Sum mismatch|unexpected size"
    r"|signatures? (?:couldn't|could not) be verified|weak security|invalid signature|Clearsigned",
    re.IGNORECASE,
)
# apt's messages when the answer is not a repository, but the page of a captive portal or a proxy.
NO_REPOSITORY = re.compile(r"NOSPLIT|NODATA")


# apt's messages when packages are missing.
MISSING = re.compile(r"Unable to locate package|has no installation candidate|unmet dependencies")


class OutOfReach(FeedError):
    """A repository cannot be reached. This does not mean that it cannot be trusted."""


class Apt:
    """apt with a private configuration for one source. `root` holds its files and may be deleted at any time."""

    def __init__(self, root: Path, architecture: str, **options: str) -> None:
        self.root = root
        self.options = options
        self.architecture = architecture
        for folder in ("lists/partial", "archives/partial", "empty"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        (root / "status").touch()
        # Do not run this machine's own hooks.
        (root / "no-hooks.conf").write_text(
            "#clear APT::Update::Post-Invoke;\n#clear APT::Update::Post-Invoke-Success;\n"
        )

    def _run(self, *arguments: str, cwd: Path | None = None) -> str:
        options = {
            "Dir::Etc::SourceList": self.root / "source.sources",
            "Dir::Etc::SourceParts": self.root / "empty",
            "Dir::Etc::Preferences": "/dev/null",
            "Dir::Etc::PreferencesParts": self.root / "empty",
            "Dir::Etc::Trusted": "/dev/null",
            "Dir::Etc::TrustedParts": self.root / "empty",
            "Dir::State::Lists": self.root / "lists",
            "Dir::State::Status": self.root / "status",
            "Dir::Cache": self.root,
            "Dir::Cache::Archives": self.root / "archives",
            "APT::Architecture": self.architecture,
            "APT::Architectures": self.architecture,
            "APT::Sandbox::User": "root",
            "APT::Get::AllowUnauthenticated": "false",
            "APT::Update::Error-Mode": "any",
            "Acquire::AllowInsecureRepositories": "false",
            "Acquire::AllowWeakRepositories": "false",
            "Acquire::AllowDowngradeToInsecureRepositories": "false",
            "Acquire::Languages": "none",
            "Acquire::Retries": "1",
            "Acquire::http::Timeout": "15",
            "Acquire::https::Timeout": "15",
        }
        command = [arguments[0], "-q", "-c", str(self.root / "no-hooks.conf")]
        command += [f"-o{name}={value}" for name, value in (options | self.options).items()]
        result = subprocess.run(
            [*command, *arguments[1:]],
            capture_output=True,
            text=True,
            cwd=cwd,
            env=os.environ | {"LC_ALL": "C"},
            check=False,
        )
        if result.returncode:
            self._explain(result.stderr + result.stdout)
        return result.stdout

    def _explain(self, text: str) -> None:
        lines = [line for line in text.splitlines() if re.match(r"[WE]: |Err:", line)]
        reason = " ".join(lines) or text.strip()
        if DISTRUST.search(text) and not NO_REPOSITORY.search(text):
            raise FeedError(f"apt refuses {self.uri}: {reason}")
        if MISSING.search(text):
            broken = [line.strip() for line in text.splitlines() if re.search(r" : \w+: ", line)]
            raise FeedError(f"{self.uri} lacks packages for {self.architecture}: {' '.join(broken) or reason}")
        raise OutOfReach(f"{self.uri} is out of reach: {reason}")

    def update(
        self, uri: str, suites: str, components: str, signed_by: Path, more: tuple[tuple[str, str], ...] = ()
    ) -> None:
        """Read the index of a repository, and of others (URI, suites) with the same components and key."""
        self.uri = uri
        stanzas = []
        for one, its_suites in ((uri, suites), *more):
            fields = {
                "Types": "deb",
                "URIs": one,
                "Suites": its_suites,
                "Components": components,
                "Signed-By": signed_by,
            }
            stanzas.append("".join(f"{key}: {value}\n" for key, value in fields.items() if value))
        (self.root / "source.sources").write_text("\n".join(stanzas))
        self._run("apt-get", "update")

    def install(self, names: list[str], keep: Path, status: Path) -> list[Path]:
        """Download packages, names or paths, with all that they depend on and that `status` does not have, and verify them.

        `keep` keeps them. Nothing is installed.
        """
        command = ["apt-get", "install", "--yes", "--no-install-recommends", f"-oDir::State::Status={status}"]
        listed = self._run(*command, "--print-uris", *names)
        found = re.findall(r"^'(\S+)' (\S+\.deb) \d+ ", listed, re.MULTILINE)
        (keep / "partial").mkdir(parents=True, exist_ok=True)
        self._run(*command, "--download-only", f"-oDir::Cache::Archives={keep}", *names)
        # apt does not copy what is in a directory of this machine.
        paths = [Path(unquote(urlsplit(uri).path)) if uri.startswith("file:") else keep / name for uri, name in found]
        return [path for path in paths if str(path) not in names]

    def candidate(self, name: str, version: str = "") -> dict[str, str]:
        """The package's entry in the index: the newest version that matches `version`, a pattern with * such as 1.*."""
        found = [
            dict(re.findall(r"^([\w-]+): (.*)$", stanza, re.MULTILINE))
            for stanza in self._run("apt-cache", "show", "--all-versions", f"{name}:{self.architecture}").split("\n\n")
            if stanza.strip()
        ]
        found = [fields for fields in found if fnmatchcase(fields["Version"], version or "*")]
        if not found:
            raise FeedError(f"{self.uri} has no {name} {version} for {self.architecture}.")
        return found[0]

    def download(self, name: str, version: str, directory: Path) -> Path:
        """Download and verify a package; `directory`/<sha256>/ keeps it for later runs."""
        try:
            fields = self.candidate(name, version)
        except OutOfReach as error:  # apt-cache fails if the name is not in the index
            raise FeedError(f"{self.uri} has no package {name} for {self.architecture}.") from error
        keep = directory / fields["SHA256"]
        known = list(keep.glob("*.deb"))
        if known and sha256(known[0]) == fields["SHA256"]:
            return known[0]
        with tempfile.TemporaryDirectory(prefix=".get-", dir=self.root) as temporary:
            self._run("apt-get", "download", f"{name}:{self.architecture}={fields['Version']}", cwd=Path(temporary))
            (got,) = Path(temporary).glob("*.deb")
            if sha256(got) != fields["SHA256"]:
                raise FeedError(f"{got.name} from {self.uri} does not have the hash in the signed index.")
            keep.mkdir(parents=True, exist_ok=True)
            return Path(shutil.move(got, keep / got.name))


def trusted_keyring(name: str, key: str, fingerprint: str, target: Path) -> Path:
    """Write a keyring with only the key that has `fingerprint`. `key` is its armoured text, a path or a URL."""
    if not fingerprint:
        raise FeedError(
            f"The fingerprint of {name}'s signing key is not set. Show it with `gpg --show-keys` ({key.splitlines()[0]}), "
            f"compare it with the one that {name} publishes, and set it as the vendor's `fingerprint`."
        )
    wanted = fingerprint.replace(" ", "").upper()
    if key.lstrip().startswith("-----BEGIN"):
        material = key.encode()
    elif "://" in key:
        try:
            with urllib.request.urlopen(key, timeout=15) as response:
                material = response.read(1 << 20)
        except (urllib.error.URLError, OSError) as error:
            raise OutOfReach(f"{name}'s key {key} is out of reach: {error}") from error
    else:
        try:
            material = Path(key).expanduser().read_bytes()
        except OSError as error:
            raise FeedError(f"{name}'s key {key} cannot be read: {error.strerror}.") from error

    with tempfile.TemporaryDirectory(prefix="tig-pi-", dir="/tmp") as home:

        def gpg(*arguments: str, data: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
            command = ["gpg", "--homedir", home, "--batch", "--no-tty", "--no-autostart", *arguments]
            return subprocess.run(command, input=data, capture_output=True, check=False)

        gpg("--import", data=material)
        listing = gpg("--list-keys", "--with-colons").stdout.decode()
        primaries = re.findall(r"^pub:.*?^fpr:+([0-9A-F]+):", listing, re.MULTILINE | re.DOTALL)
        if wanted not in primaries:
            raise FeedError(
                f"{name}'s key does not have the fingerprint {wanted}; it has {', '.join(primaries) or 'none'}. "
                f"Either {name} has a new key (compare the fingerprint with the one that it publishes), or somebody "
                f"replaced the key."
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(gpg("--export", wanted).stdout)
    return target


def from_vendor(
    label: str, vendor: dict, name: str, version: str, architecture: str, keep: Path, work: Path
) -> Package:
    """Download a package from a vendor's signed repository: the newest version, or the newest that matches `version`.

    vendor: {uri, suites, components, key, fingerprint}. Raises OutOfReach if the vendor does not answer, and FeedError if
    its answer cannot be trusted.
    """
    keyring = trusted_keyring(label, vendor["key"], vendor["fingerprint"], work / "key.gpg")
    # This machine may ignore dates for its own mirror. An expired index of a vendor is always refused.
    dates = {"Acquire::Check-Date": "true", "Acquire::Check-Valid-Until": "true"}
    apt = Apt(work, architecture, **dates)
    apt.update(vendor["uri"], vendor["suites"], vendor["components"], keyring)
    return Package.read(apt.download(name, version, keep), "vendor", f"{label}, {vendor['uri']}")


DEBIAN_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


def debian_mirror() -> str:
    """The mirror of Debian: TIG_PI_DEBIAN_MIRROR, else the one that this machine's apt uses, else (on Ubuntu, for example)
    mmdebstrap's default, which the virtual Pi's image comes from, too.
    """
    if mirror := os.environ.get("TIG_PI_DEBIAN_MIRROR"):
        return mirror
    output = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI) $(ORIGIN) $(LABEL)", "Created-By: Packages"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    found = [line.split() for line in output.splitlines()]
    # Before its first `apt-get update`, a machine knows only the addresses.
    for fields in found:
        if fields[1:] == ["Debian", "Debian"] or (len(fields) == 1 and fields[0].rstrip("/").endswith("/debian")):
            return fields[0]
    with contextlib.suppress(OSError):
        program = Path(shutil.which("mmdebstrap") or "").read_text(encoding="utf-8")
        if default := re.search(r"my \$mirror\s*= '([^']+)'", program):
            return default[1]
    raise OutOfReach("apt on this machine has no mirror of Debian: set TIG_PI_DEBIAN_MIRROR to one.")


def require_keyring() -> None:
    if not DEBIAN_KEYRING.exists():
        raise FeedError("Debian's keys are not installed on this machine: install debian-archive-keyring.")


def from_debian(names: list[str], release: str, architecture: str, keep: Path, work: Path) -> list[Package]:
    require_keyring()
    apt = Apt(work, architecture)
    apt.update(debian_mirror(), release, "main", DEBIAN_KEYRING)
    return [Package.read(apt.download(name, "", keep), "debian", f"Debian {release}") for name in names]


def with_dependencies(
    names: list[str], own: list[Package], release: str, architecture: str, keep: Path, work: Path, status: Path | None
) -> list[Package]:
    """Debian's packages `names`, and those that they and the packages `own` depend on: all of them, and what an image with the
    packages in `status` needs in addition, such as newer versions of packages that it has.
    """
    require_keyring()
    apt = Apt(work, architecture)
    mirror = debian_mirror()
    security = re.sub(r"/debian/?$", "/debian-security", mirror)
    more = ((security, f"{release}-security"),) if security != mirror else ()
    apt.update(mirror, f"{release} {release}-updates", "main", DEBIAN_KEYRING, more)
    wanted = [*names, *(str(package.path) for package in own)]
    found = {path for state in (work / "status", status) if state for path in apt.install(wanted, keep, state)}
    for path in keep.glob("*.deb"):
        if path not in found:
            path.unlink()
    return [Package.read(path, "debian", f"Debian {release}") for path in sorted(found)]
