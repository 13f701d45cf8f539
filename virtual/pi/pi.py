#!/usr/bin/env python3
"""Virtual Raspberry Pis: podman containers in which systemd is PID 1 and Ansible comes in over SSH, as it does on a Pi.

Usage:

    pi.py up NAME... [--release trixie] [--publish [HOST:]GUEST[/udp]]... [--state DIR] [--owner-pid PID]
    pi.py down NAME...          remove them (their new .deb files go to the cache first)
    pi.py reboot NAME...        shut down cleanly and start again
    pi.py power-cut NAME...     kill everything in them at once and start again; the file system stays
    pi.py harvest NAME...       copy their downloaded .deb files to the cache now
    pi.py image                 build the image and stop there
    pi.py list [--format json]  what is there
    pi.py gc                    remove what dead owners left behind

`up` writes into the state directory what others need to reach the Pi:

    ssh_config     use as `ssh -F DIR/ssh_config NAME` or `ansible_ssh_common_args: -F DIR/ssh_config`
    <alias>.json   {"name", "alias", "hostname", "address", "ports": {"22": 40022, "123/udp": 40123}, "release",
                   "architecture", "image", "ssh_config"}; ports maps the port inside to the one published here
    feed.asc       the public key of the feed that is mounted in the Pi, where there is a feed
    feed.lock      its feed.lock.json: what it holds

The Pis of one state directory share a network of their own and reach each other by hostname.

Cache (`$TIG_PI_CACHE`, else `$XDG_CACHE_HOME/tig-pi`, else `~/.cache/tig-pi`):

    images/                        one image per release and architecture, named by a hash of its inputs
    apt/<release>-<architecture>/  downloaded .deb files, seen by every Pi in /var/cache/apt/archives
    feed/<release>-<architecture>/ the package feed, mounted read-only at /srv/tig-pi-feed
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import io
import json
import os
import pathlib
import platform
import re
import resource
import select
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any

HERE = pathlib.Path(__file__).resolve().parent
LABEL = "tig-pi"  # prefix of our labels, networks and images
RELEASES = ("trixie", "bookworm")  # what Raspberry Pi OS is built on
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "armhf"}  # uname -m: dpkg's name
KEYS = tuple(key + end for key in ("id_ed25519", "host_ed25519") for end in ("", ".pub"))  # of a state directory
FEED_FILES = {"feed.asc": "feed.asc", "feed.lock": "feed.lock.json"}  # of a state directory: of its feed
CAP_SYS_RESOURCE = 24  # linux/capability.h
CGROUP2_SUPER_MAGIC = 0x63677270  # linux/magic.h

# What systemd needs inside to make its sandboxes (ProtectSystem=, PrivateTmp=, ...), so that hardened units behave as
# on a Pi, and what one expects of root there: firewall, ping, audit, reading another process's memory map.
# Not SYS_TIME: containers share the host's clock.
CAPABILITIES = "SYS_ADMIN,NET_ADMIN,NET_RAW,SYS_PTRACE,SYS_NICE,IPC_LOCK,AUDIT_WRITE"


class Failure(Exception):
    """Something that the user can understand and act on; its text is the whole message."""


def say(text: str) -> None:
    print(f"pi.py: {text}", file=sys.stderr, flush=True)


# --- the host: what it is and what it lacks -------------------------------------------------------------------------


def cache_directory() -> pathlib.Path:
    """The user's cache directory, shared between runs and clones."""
    if explicit := os.environ.get("TIG_PI_CACHE"):
        return pathlib.Path(explicit)
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(base) / "tig-pi"


def host_architecture() -> str:
    """dpkg's name of this machine's architecture; a Failure on those that Raspberry Pi OS does not know."""
    machine = platform.machine()
    if machine not in ARCHITECTURES:
        raise Failure(f"no virtual Pi on {machine}: needs one of {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[machine]


def is_cgroup_v2(path: str = "/sys/fs/cgroup") -> bool:
    """Whether cgroups are v2 alone (neither v1 nor hybrid)."""
    result = subprocess.run(["stat", "-f", "-c", "%t", path], capture_output=True, text=True, check=False)
    return result.returncode == 0 and int(result.stdout, 16) == CGROUP2_SUPER_MAGIC


def can_raise_limits(status: str) -> bool:
    """Whether root here may raise resource limits: `status` is the text of /proc/self/status.

    The bounding set decides, since it also says what root has when we reach it through sudo.
    """
    bounding = re.search(r"^CapBnd:\s*([0-9a-f]+)$", status, re.MULTILINE)
    return bounding is None or bool(int(bounding[1], 16) >> CAP_SYS_RESOURCE & 1)


def containers_conf(cgroup_v2: bool, raise_limits: bool, open_files: int, processes: int) -> str:
    """The text of a containers.conf(5) for this host; empty where podman's own settings will do.

    - crun refuses hybrid cgroups, runc does not; and systemd 257 wants to be told that v1 is meant.
    - Without CAP_SYS_RESOURCE podman's default limits, higher than ours, cannot be set.
    """
    containers, engine = [], []
    if not raise_limits:
        limits = [f"nofile={open_files}:{open_files}", f"nproc={processes}:{processes}"]
        containers.append(f"default_ulimits = {json.dumps(limits)}")
    if not cgroup_v2:
        containers.append('env = ["SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1"]')
        engine.append('runtime = "runc"')
    sections = {"containers": containers, "engine": engine}
    return "".join(f"[{name}]\n" + "\n".join(lines) + "\n" for name, lines in sections.items() if lines)


def host_containers_conf() -> str:
    """containers_conf() for this machine."""
    processes = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    return containers_conf(
        cgroup_v2=is_cgroup_v2(),
        raise_limits=can_raise_limits(pathlib.Path("/proc/self/status").read_text()),
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        processes=min(processes, 32768) if processes != resource.RLIM_INFINITY else 32768,
    )


def apt_targets() -> str:
    """What the host's own apt takes packages from: lines of `URI|suite|origin`."""
    if not shutil.which("apt-get"):
        return ""
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI)|$(RELEASE)|$(ORIGIN)", "Created-By: Packages"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def mirrors(release: str, targets: str, explicit: str = "") -> list[str]:
    """sources.list lines for `release` on an explicitly named mirror, else on the one that the host's own apt uses.

    `targets` as apt_targets() gives them. Empty where no mirror of Debian is among them: mmdebstrap has a default.
    """
    if explicit:
        return [f"deb {explicit} {release} main"]
    lines = []
    for target in targets.splitlines():
        uri, suite, origin = target.split("|")
        # A host whose lists were never fetched knows the addresses, but not yet whose they are.
        debian = origin == "Debian" or (not origin and "debian" in uri)
        if debian and (match := re.fullmatch(r"[a-z]+(-updates|-security)?", suite)):
            lines.append(f"deb {uri} {release}{match[1] or ''} main")
    return sorted(set(lines), key=lambda line: (line.split()[2], line))


def apt_transport_options() -> list[str]:
    """How the host's apt reaches its mirrors: its own Acquire::http and Acquire::https settings (proxies, CAs)."""
    if not shutil.which("apt-config"):
        return []
    dump = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=False).stdout
    return re.findall(r"^(Acquire::https?::\S+ \"[^\"]+\";)$", dump, re.MULTILINE)


def private_certificates() -> list[str]:
    """The certificates (PEM) in the host's bundle that the distribution did not put there."""
    bundle = ssl.get_default_verify_paths().cafile or "/etc/ssl/certs/ca-certificates.crt"
    shipped = {c for path in pathlib.Path("/usr/share/ca-certificates").rglob("*.crt") for c in pem_blocks(path)}
    return sorted(pem_blocks(pathlib.Path(bundle)) - shipped) if shipped else []


def pem_blocks(path: pathlib.Path) -> set[str]:
    """The certificates in a PEM file; none where the file cannot be read."""
    with contextlib.suppress(OSError):
        return set(re.findall(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", path.read_text(), re.DOTALL))
    return set()


# --- who owns what --------------------------------------------------------------------------------------------------


def process_start(pid: int) -> str:
    """When a process started, in clock ticks since boot (proc(5), field 22 of stat); "" where there is none."""
    with contextlib.suppress(OSError):
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return ""


def owner_mark(pid: int | None) -> str:
    """What marks a container with its owner: pid, start and boot, so that no later process is mistaken for it."""
    if pid is None:
        return ""
    start = process_start(pid)
    if not start:
        raise Failure(f"--owner-pid {pid}: no such process")
    boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{pid}:{start}:{boot}"


def is_left_over(mark: str, current_mark: Callable[[int], str] = lambda pid: owner_mark(pid)) -> bool:
    """Whether the owner with this mark is dead. A container without an owner lives until somebody takes it down."""
    if not mark:
        return False
    try:
        return current_mark(int(mark.partition(":")[0])) != mark
    except Failure:
        return True


def orphans(processes: pathlib.Path = pathlib.Path("/proc")) -> list[int]:
    """What still runs on behalf of an owner that is dead: processes with its pid in $TIG_PI_OWNER_PID."""
    found = []
    for path in processes.glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            owner = re.search(rb"(?:^|\0)TIG_PI_OWNER_PID=(\d+)(?:\0|$)", path.read_bytes())
            if owner and not process_start(int(owner[1])):
                found.append(int(path.parent.name))
    return found


@contextlib.contextmanager
def lock(path: pathlib.Path, waiting_for: str) -> Iterator[None]:
    """Hold a file lock. The kernel drops it with its process, so that a killed run leaves none behind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for {waiting_for}")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def control_directory() -> pathlib.Path:
    """Where ssh shares its connections: a short path, since a socket's may have 107 characters, and ours alone."""
    path = pathlib.Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()) / f"{LABEL}-{os.getuid()}"
    path.mkdir(mode=0o700, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise Failure(f"{path} is not a directory of this user alone; remove it")
    return path


# --- ports ----------------------------------------------------------------------------------------------------------


def is_free(port: int, protocol: str) -> bool:
    """Whether a port of the loopback address can be bound now."""
    kind = socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def parse_publish(text: str) -> tuple[int | None, str]:
    """`[HOST:]GUEST[/udp]` as (preferred port here or None, "GUEST" or "GUEST/udp")."""
    match = re.fullmatch(r"(?:(\d+):)?(\d+)(?:/(tcp|udp))?", text)
    if not match or not 0 < int(match[2]) < 65536 or (match[1] and not 0 < int(match[1]) < 65536):
        raise argparse.ArgumentTypeError(f"{text!r} is not [HOST:]GUEST[/udp] with ports from 1 to 65535")
    return int(match[1]) if match[1] else None, match[2] + ("/udp" if match[3] == "udp" else "")


def choose_ports(
    wanted: Iterable[tuple[int | None, str]], taken: set[int], free: Callable[[int, str], bool] = is_free
) -> dict[str, int]:
    """A port here for each wanted guest port: the preferred one, else (or where none is preferred) any free one.

    `taken` are the ports of all virtual Pis, also of those which are down at this moment and will want them back.
    """
    chosen: dict[str, int] = {}
    for preferred, guest in wanted:
        protocol = "udp" if guest.endswith("/udp") else "tcp"
        unavailable = taken | set(chosen.values())
        if preferred and preferred not in unavailable and free(preferred, protocol):
            chosen[guest] = preferred
            continue
        while True:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM) as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
            if port not in unavailable:
                chosen[guest] = port
                break
    return chosen


# --- podman ---------------------------------------------------------------------------------------------------------


class Podman:
    """podman as root (through sudo where we are not), with the settings that this host needs."""

    def __init__(self, cache: pathlib.Path) -> None:
        if not shutil.which("podman"):
            raise Failure("podman is missing; bin/prerequisites installs it")
        self.prefix = ["env"] if os.geteuid() == 0 else ["sudo"]
        if not shutil.which(self.prefix[0]):
            raise Failure("podman has to run as root, and there is no sudo here: do this as root")
        if settings := host_containers_conf():
            path = cache / "containers.conf"
            if not path.is_file() or path.read_text() != settings:
                path.parent.mkdir(parents=True, exist_ok=True)
                replace_file(path, settings)
            self.prefix.append(f"CONTAINERS_CONF={path}")  # sudo sets it without env, for which it would need a rule

    def run(self, *arguments: str, data: bytes | None = None, check: bool = True) -> str:
        """podman's standard output; a Failure with what it said on standard error where it fails and `check` is on."""
        command = [*self.prefix, "podman", *arguments]
        result = subprocess.run(
            command, input=data, stdin=None if data else subprocess.DEVNULL, capture_output=True, check=False
        )
        if check and result.returncode != 0:
            said = (result.stderr or result.stdout).decode(errors="replace").strip()
            raise Failure(f"podman {arguments[0]} failed: {said or result.returncode}")
        return result.stdout.decode(errors="replace")

    def succeeds(self, *arguments: str) -> bool:
        return subprocess.run([*self.prefix, "podman", *arguments], capture_output=True, check=False).returncode == 0

    def pis(self) -> dict[str, dict[str, Any]]:
        """All virtual Pis of this machine: {name: {"state": "running"|..., "labels": {...}}}, labels without prefix."""
        listed = json.loads(self.run("ps", "--all", f"--filter=label={LABEL}.state", "--format=json") or "[]") or []
        return {
            entry["Names"][0]: {
                "state": entry["State"],
                "labels": {k.removeprefix(f"{LABEL}."): v for k, v in entry["Labels"].items() if k.startswith(LABEL)},
            }
            for entry in listed
        }


def replace_file(path: pathlib.Path, content: str | bytes, mode: int = 0o644) -> None:
    """Write a file in one step, so that nobody reads half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(content.encode() if isinstance(content, str) else content)
    temporary.chmod(mode)
    temporary.replace(path)


def archive(files: dict[str, tuple[str, int]]) -> bytes:
    """A tar archive of {path: (content, mode)} for `podman cp`, which gives everything to root."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, (content, mode) in files.items():
            data = content.encode()
            entry = tarfile.TarInfo(name)
            entry.mode, entry.size, entry.mtime = mode, len(data), int(time.time())
            tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


# --- the image ------------------------------------------------------------------------------------------------------


class Image:
    """The image of a blank Pi, built once per release, architecture and set of inputs."""

    def __init__(self, podman: Podman, cache: pathlib.Path, release: str) -> None:
        self.podman, self.release, self.architecture = podman, release, host_architecture()
        self.folder = cache / "images"
        self.packages = [
            line for line in (HERE / "packages.txt").read_text().splitlines() if line and not line.startswith("#")
        ]
        self.mirrors = mirrors(release, apt_targets(), os.environ.get("TIG_PI_DEBIAN_MIRROR", ""))
        self.apt_options = apt_transport_options()
        self.certificates = private_certificates()
        self.setup = (HERE / "setup.sh").read_text()
        inputs = [self.packages, self.mirrors, self.apt_options, self.certificates, self.setup]
        digest = hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:12]
        self.stem = f"{release}-{self.architecture}"
        self.tag = f"localhost/{LABEL}:{self.stem}-{digest}"
        self.saved = self.folder / f"{self.stem}-{digest}.tar"

    def ensure(self) -> str:
        """The image's tag, after having built it or loaded it from the cache where it was missing."""
        if self.podman.succeeds("image", "exists", self.tag):
            return self.tag
        with lock(self.folder / f"{self.stem}.lock", f"another run, which is building the {self.release} image"):
            if self.podman.succeeds("image", "exists", self.tag):
                return self.tag
            if self.saved.is_file():
                say(f"loading the {self.release} image from the cache")
                self.podman.run("load", "--quiet", "--input", str(self.saved))
            else:
                self.build()
        return self.tag

    def build(self) -> None:
        started = time.monotonic()
        say(f"building the {self.release} image, about a minute")
        builder = f"{LABEL}-build-{self.stem}"
        self.podman.run("rm", "--force", "--ignore", "--time=0", builder)
        base = self.base()
        try:
            command = ["sh", "/root/setup.sh", *self.packages]
            self.podman.run("create", f"--name={builder}", base, *command)
            files = {"root/setup.sh": (self.setup, 0o755)}
            if self.apt_options:
                files["etc/apt/apt.conf.d/90host"] = ("\n".join(self.apt_options) + "\n", 0o644)
            for number, certificate in enumerate(self.certificates):
                files[f"usr/local/share/ca-certificates/host-{number}.crt"] = (certificate + "\n", 0o644)
            self.podman.run("cp", "-", f"{builder}:/", data=archive(files))
            self.podman.run("start", "--attach", builder)
            self.podman.run("commit", "--quiet", '--change=CMD ["/sbin/init"]', builder, self.tag)
        finally:
            self.podman.run("rm", "--force", "--ignore", "--time=0", builder)
        self.save()
        say(f"the {self.release} image is built ({time.monotonic() - started:.0f} s)")

    def base(self) -> str:
        """A plain Debian: a registry's where one can be reached, else bootstrapped from the mirror of the host."""
        if self.podman.succeeds("pull", "--quiet", f"debian:{self.release}"):
            return f"debian:{self.release}"
        if not shutil.which("mmdebstrap"):
            raise Failure(
                f"no container registry gave debian:{self.release}, and mmdebstrap is missing; "
                "bin/prerequisites installs it"
            )
        base = f"localhost/{LABEL}-base:{self.stem}"
        with tempfile.TemporaryDirectory(prefix=f"{LABEL}-", dir="/var/tmp") as folder:
            tarball = pathlib.Path(folder) / "base.tar"
            command = [
                *([] if os.geteuid() == 0 else ["sudo"]),
                *["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(self.packages)}"],
                *[f"--aptopt={option}" for option in self.apt_options],
                *[self.release, str(tarball), *self.mirrors],
            ]
            result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
            if result.returncode != 0:
                raise Failure(
                    f"neither a container registry nor the mirror of this machine's apt gave Debian {self.release}; "
                    f"mmdebstrap said: {result.stderr.strip()[-800:]}"
                )
            self.podman.run("import", "--quiet", str(tarball), base)
        return base

    def save(self) -> None:
        """Keep the image in the cache, and drop the ones that it replaces."""
        partial = self.saved.with_suffix(".partial")
        partial.unlink(missing_ok=True)
        self.podman.run("save", "--quiet", f"--output={partial}", self.tag)
        partial.replace(self.saved)
        for old in self.folder.glob(f"{self.stem}-*.tar"):
            if old != self.saved:
                old.unlink(missing_ok=True)
        for tag in self.podman.run("images", "--format={{.Repository}}:{{.Tag}}").split():
            if tag.startswith(f"localhost/{LABEL}:{self.stem}-") and tag != self.tag:
                self.podman.run("rmi", tag, check=False)  # stays while a Pi made of it lives


# --- a Pi -----------------------------------------------------------------------------------------------------------


class Boot:
    """Waits for a Pi to have booted, by the event that systemd itself announces (sd_notify(3)), without polling.

    PID 1 sends READY=1 to $NOTIFY_SOCKET when its first queue of jobs is empty, and sshd is one of them.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "notify"
        path.unlink(missing_ok=True)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        directory = os.open(
            folder, os.O_RDONLY
        )  # a socket's path may have 107 characters at most: go through the descriptor
        try:
            self.socket.bind(f"/proc/self/fd/{directory}/notify")
        finally:
            os.close(directory)
        path.chmod(0o666)

    def __enter__(self) -> Boot:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def wait(self, seconds: float, death: IO[bytes]) -> bool:
        """Whether READY=1 came within so many seconds. `death` becomes readable when the container ends before that."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            ready, _, _ = select.select([self.socket, death], [], [], left)
            if self.socket in ready:
                if b"READY=1" in self.socket.recv(4096).split(b"\n"):
                    return True
            elif ready:
                return False
        return False


class Pi:
    """One virtual Pi: a container and its entry in a state directory."""

    def __init__(self, podman: Podman, cache: pathlib.Path, name: str, state: pathlib.Path, alias: str = "") -> None:
        self.podman, self.cache, self.name, self.state, self.alias = podman, cache, name, state, alias or name

    @classmethod
    def existing(cls, podman: Podman, cache: pathlib.Path, name: str, pis: dict[str, dict[str, Any]]) -> Pi:
        if name not in pis:
            raise Failure(f"there is no virtual Pi {name!r}; `pi.py list` shows those that there are")
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
        """Make the container and write what is needed to reach it. Does not start it."""
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
        )
        self.podman.run("cp", "-", f"{self.name}:/", data=self.identity())
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
        # The last one, since it says that the Pi is complete (is_lost); ssh_config follows from it.
        replace_file(self.state / f"{self.alias}.json", json.dumps(description, indent=2) + "\n")
        self.write_ssh_config()

    def describe_feed(self, stem: str) -> None:
        """What those who provision the Pi have to know of its feed, which may have been filled anew meanwhile."""
        feed = self.cache / "feed" / stem
        for name, source in FEED_FILES.items():
            if (feed / source).is_file():
                replace_file(self.state / name, (feed / source).read_bytes())

    @property
    def is_lost(self) -> bool:
        """Whether nobody can reach it any more: its files were removed, or whoever made it was killed meanwhile."""
        return not all((self.state / name).is_file() for name in (f"{self.alias}.json", *KEYS))

    def identity(self) -> bytes:
        """What makes the blank image this Pi: its host key, and the key with which user pi lets us in."""
        user_key, host_key = self.state / "id_ed25519", self.state / "host_ed25519"
        for key in (user_key, host_key):
            if not key.is_file():
                command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", LABEL, "-f", str(key)]
                subprocess.run(command, stdin=subprocess.DEVNULL, check=True)
        return archive(
            {
                "etc/ssh/ssh_host_ed25519_key": (host_key.read_text(), 0o600),
                "etc/ssh/ssh_host_ed25519_key.pub": (host_key.with_suffix(".pub").read_text(), 0o644),
                "home/pi/.ssh/authorized_keys": (user_key.with_suffix(".pub").read_text(), 0o644),
            }
        )

    def write_ssh_config(self) -> None:
        """ssh_config and known_hosts for all Pis of this state directory."""
        blocks = []
        for path in sorted(self.state.glob("*.json")):
            pi = json.loads(path.read_text())
            names = dict.fromkeys([pi["name"], pi["alias"]])
            blocks.append(f"Host {' '.join(names)}\n  Port {pi['ports']['22']}\n")
        common = (
            "Host *\n  HostName 127.0.0.1\n  User pi\n"
            f'  IdentityFile "{self.state}/id_ed25519"\n  IdentitiesOnly yes\n'
            f'  HostKeyAlias virtual-pi\n  UserKnownHostsFile "{self.state}/known_hosts"\n'
            "  GlobalKnownHostsFile /dev/null\n  StrictHostKeyChecking yes\n"
            "  ServerAliveInterval 5\n  ServerAliveCountMax 3\n"  # a Pi whose power was cut does not say goodbye
            f'  ControlMaster auto\n  ControlPersist 60\n  ControlPath "{control_directory()}/%C"\n'
        )
        public = (self.state / "host_ed25519.pub").read_text()
        replace_file(self.state / "known_hosts", f"virtual-pi {public}")
        replace_file(self.state / "ssh_config", "\n".join([*blocks, common]))

    def start(self, timeout: float) -> None:
        """Start the container and wait until its systemd says that it has booted."""
        with Boot(self.boot_folder) as boot:
            self.podman.run("start", self.name)
            watch = [*self.podman.prefix, "podman", "wait", self.name]
            with subprocess.Popen(watch, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as watcher:
                booted = boot.wait(timeout, watcher.stdout)
                watcher.terminate()
        if booted:
            return
        jobs = self.podman.run("exec", self.name, "systemctl", "list-jobs", "--no-legend", check=False).strip()
        logs = self.podman.run("logs", "--tail=20", self.name, check=False).strip()
        why = f"still waiting: {jobs}" if jobs else "it has ended"
        raise Failure(f"{self.name} has not booted within {timeout:.0f} s; {why}\n{logs}".rstrip())

    def hang_up(self) -> None:
        """Close the shared SSH connection, so that nobody waits on one that is about to die."""
        command = ["ssh", "-F", str(self.state / "ssh_config"), "-O", "exit", self.name]
        subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)

    def reboot(self, timeout: float) -> None:
        self.hang_up()
        self.podman.run("stop", f"--time={timeout:.0f}", self.name)
        self.start(timeout)

    def power_cut(self, timeout: float) -> None:
        """SIGKILL to PID 1: the kernel kills every other process of the container in the same moment."""
        self.hang_up()
        self.podman.run("kill", "--signal=KILL", self.name)
        self.podman.run("wait", self.name)
        self.start(timeout)

    def harvest(self) -> int:
        """Copy .deb files that this Pi downloaded into the cache; how many."""
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
        """Remove the container and its entry; the last one of a state directory takes network and keys along."""
        if harvest:
            with contextlib.suppress(Failure, subprocess.CalledProcessError, KeyError):
                self.harvest()
        self.hang_up()
        self.podman.run("rm", "--force", "--ignore", "--volumes", "--time=0", self.name)
        (self.state / f"{self.alias}.json").unlink(missing_ok=True)
        shutil.rmtree(self.boot_folder, ignore_errors=True)
        if list(self.state.glob("*.json")):
            with contextlib.suppress(FileNotFoundError):  # the keys may be lost
                self.write_ssh_config()
            return
        self.podman.run("network", "rm", self.network, check=False)
        for name in ("ssh_config", "known_hosts", *FEED_FILES, *KEYS):
            (self.state / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            (self.state / ".lock").unlink(missing_ok=True)
            self.state.rmdir()


# --- commands -------------------------------------------------------------------------------------------------------


def collect_garbage(podman: Podman, cache: pathlib.Path, leaving: int | None = None) -> list[str]:
    """Remove the Pis whose owner is dead, or is about to leave (its pid), and what still works on them; their names."""
    dead, leaver = [], owner_mark(leaving)
    for pid in orphans():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    with lock(cache / "pis.lock", "another run, which is cleaning up"):
        for name, pi in (pis := podman.pis()).items():
            mark = pi["labels"].get("owner", "")
            if is_left_over(mark) or (leaver and mark == leaver):
                Pi.existing(podman, cache, name, pis).remove(harvest=False)
                dead.append(name)
    if dead:
        say(f"removed what a run left behind: {', '.join(dead)}")
    return dead


def up(podman: Podman, cache: pathlib.Path, options: argparse.Namespace) -> None:
    owner = owner_mark(options.owner_pid)
    collect_garbage(podman, cache)
    image = Image(podman, cache, options.release)
    state = pathlib.Path(options.state or cache / "pis").resolve()
    if len(options.names) > 1 and (options.alias or options.hostname):
        raise Failure("--alias and --hostname are for one Pi, several were named")
    state.mkdir(parents=True, exist_ok=True)
    image.ensure()

    starting = []
    with lock(cache / "pis.lock", "another run, which is making a Pi"):
        pis = podman.pis()
        known = [Pi.existing(podman, cache, name, pis) for name in options.names if name in pis]
        for pi in [pi for pi in known if pi.is_lost]:
            say(f"{pi.name} has lost its files in {pi.state}: making it anew")
            pi.remove(harvest=False)
            del pis[pi.name]
        for name in options.names:
            if name in pis:
                pi = Pi.existing(podman, cache, name, pis)
                labels, here = pis[name]["labels"], json.loads(pis[name]["labels"]["ports"])
                if labels["release"] != options.release or pi.state != state:
                    raise Failure(
                        f"{name} is there already, with {labels['release']} and state directory {pi.state}; "
                        f"`pi.py down {name}` first"
                    )
                if missing := {guest for _, guest in options.publish} - set(here):
                    raise Failure(
                        f"{name} is there already, without port {', '.join(missing)}; `pi.py down {name}` first"
                    )
                pi.write_ssh_config()
                pi.describe_feed(image.stem)
                if pis[name]["state"] != "running":
                    starting.append(pi)
                continue
            pi = Pi(podman, cache, name, state, options.alias)
            taken = {port for other in podman.pis().values() for port in json.loads(other["labels"]["ports"]).values()}
            if not podman.succeeds("network", "exists", pi.network):
                podman.run("network", "create", f"--label={LABEL}=network", pi.network)
            pi.create(image, options.hostname or name, options.publish, taken, owner, options.memory)
            starting.append(pi)
    with ThreadPoolExecutor() as pool:
        for failure in list(pool.map(lambda pi: start_or_remove(pi, options.timeout), starting)):
            if failure:
                raise failure


def start_or_remove(pi: Pi, timeout: float) -> Failure | None:
    """Start a Pi; where that fails, take it away again and return why."""
    try:
        pi.start(timeout)
    except Failure as failure:
        pi.remove(harvest=False)
        return failure
    return None


def show(podman: Podman, as_json: bool) -> None:
    rows = [
        {
            "name": name,
            "state": pi["state"],
            "release": pi["labels"]["release"],
            "ports": json.loads(pi["labels"]["ports"]),
            "state_directory": pi["labels"]["state"],
            "left_over": is_left_over(pi["labels"].get("owner", "")),
        }
        for name, pi in sorted(podman.pis().items())
    ]
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    for row in rows:
        ports = " ".join(f"{here}->{guest}" for guest, here in row["ports"].items())
        state = "left over" if row["left_over"] else row["state"]
        print(f"{row['name']:32} {state:10} {row['release']:10} {ports}")


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(
        prog="pi.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    commands = result.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str, names: bool = True) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        if names:
            sub.add_argument("names", nargs="+", metavar="NAME")
        return sub

    default_release = os.environ.get("RELEASE", RELEASES[0])
    sub = command("up", "start virtual Pis, made anew where they are missing, and wait until they have booted")
    sub.add_argument("--release", default=default_release, choices=RELEASES, help=f"default: $RELEASE or {RELEASES[0]}")
    sub.add_argument(
        "--publish",
        action="append",
        default=[],
        type=parse_publish,
        metavar="[HOST:]GUEST[/udp]",
        help="publish a port on 127.0.0.1: HOST where it is free, else (or without HOST) any free one",
    )
    sub.add_argument("--state", metavar="DIR", help="state directory; default: pis/ in the cache")
    sub.add_argument("--alias", default="", help="second name in ssh_config and name of the .json file; default: NAME")
    sub.add_argument("--hostname", default="", help="default: NAME")
    sub.add_argument("--memory", default="", metavar="SIZE", help="limit of memory, e.g. 1g for a Pi 3")
    sub.add_argument(
        "--owner-pid",
        type=int,
        default=os.environ.get("TIG_PI_OWNER_PID") or None,
        metavar="PID",
        help="process after whose death the Pi is left over (see gc); default: $TIG_PI_OWNER_PID, or nobody",
    )
    sub.add_argument("--timeout", type=float, default=120, metavar="SECONDS", help="for booting; default: 120")
    command("down", "remove virtual Pis")
    for name, text in (
        ("reboot", "shut down cleanly and start again"),
        ("power-cut", "kill everything at once and start again; the file system stays"),
    ):
        command(name, text).add_argument("--timeout", type=float, default=120, metavar="SECONDS")
    command("harvest", "copy downloaded .deb files to the cache")
    sub = command("image", "build the image where it is missing", names=False)
    sub.add_argument("--release", default=default_release, choices=RELEASES)
    sub = command("list", "show the virtual Pis of this machine", names=False)
    sub.add_argument("--format", default="text", choices=("text", "json"))
    sub = command("gc", "remove what dead owners left behind", names=False)
    sub.add_argument("--owned-by", type=int, metavar="PID", help="and what this process owns")
    return result


def main() -> None:
    options = parser().parse_args()
    cache = cache_directory()
    podman = Podman(cache)
    match options.command:
        case "up":
            up(podman, cache, options)
        case "image":
            print(Image(podman, cache, options.release).ensure())
        case "list":
            show(podman, options.format == "json")
        case "gc":
            collect_garbage(podman, cache, options.owned_by)
        case _:
            pis = podman.pis()
            for name in options.names:
                if options.command == "down" and name not in pis:
                    continue  # gone is what was asked for
                pi = Pi.existing(podman, cache, name, pis)
                match options.command:
                    case "down":
                        with lock(cache / "pis.lock", "another run, which is making a Pi"):
                            pi.remove()
                    case "reboot":
                        pi.reboot(options.timeout)
                    case "power-cut":
                        pi.power_cut(options.timeout)
                    case "harvest":
                        say(f"{name}: {pi.harvest()} new .deb files in the cache")


if __name__ == "__main__":
    try:
        main()
    except Failure as failure:
        sys.exit(f"pi.py: {failure}")
    except KeyboardInterrupt:
        sys.exit(130)
