"""bin/prerequisites and bin/venv: what they detect on a machine, and their messages."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import termios
import zipfile
from hashlib import sha256

import pytest
from conftest import REPOSITORY

# The part of sudo that matters here: it asks for a password on the terminal, and sets variables for the command.
ASKING_SUDO = """
{ printf 'password: ' && read -r password; } <>/dev/tty >&0 2>/dev/null || {
  echo 'sudo: a terminal is required to read the password' >&2
  exit 1
}
exec env "$@"
"""


class Machine:
    """A machine in a directory: its user is not root, and only sudo is not installed."""

    def __init__(self, root):
        self.root = root
        for name in ("bin", "path", "virtual/pi"):
            (root / name).mkdir(parents=True)
        shutil.copy(REPOSITORY / "bin/venv", root / "bin")
        text = (REPOSITORY / "bin/prerequisites").read_text()
        programs = re.findall(r"^[a-z0-9-]+ ([a-z0-9_-]+)\b", text, re.MULTILINE)
        files = re.findall(r"^[a-z0-9-]+ /([^\"\n]+)", text, re.MULTILINE)
        assert "podman" in programs
        assert "etc/ssl/certs/ca-certificates.crt" in files
        for name in (*programs, "ssh"):
            self.add(name)
        for name in files:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).touch()
        text = re.sub(r"^([a-z0-9-]+) /", rf"\1 {root}/", text, flags=re.MULTILINE)
        (root / "bin/prerequisites").write_text(text)
        for name in ("dirname", "env", "setsid", "sh"):
            (root / "path" / name).symlink_to(shutil.which(name))
        self.add("id", '[ "${1:-}" = -u ] && echo 1000 || echo mats')
        self.add("python3", f'exec {sys.executable} "$@"')
        self.add("../virtual/pi/pi.py", "exec sudo podman ps")  # what pi.py does if the user is not root

    def add(self, name: str, script: str = "") -> None:
        path = self.root / "path" / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def run(self, verb: str, terminal: int | None = None) -> subprocess.CompletedProcess:
        def take_terminal():
            if terminal is not None:
                fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)

        return subprocess.run(
            ["/bin/sh", self.root / "bin/prerequisites", verb],
            env={"PATH": str(self.root / "path")},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            start_new_session=True,
            preexec_fn=take_terminal,
            timeout=30,
            check=False,
        )


@pytest.fixture
def machine(tmp_path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture
def terminal():
    """A terminal on which somebody types a password."""
    ours, theirs = os.openpty()
    os.write(ours, b"password\n")
    yield theirs
    os.close(ours)
    os.close(theirs)


class TestSudo:
    @pytest.mark.parametrize("verb", ["demo", "test"])
    def test_is_needed_for_podman(self, machine, verb):
        result = machine.run(verb)
        assert result.returncode == 1
        assert result.stderr == "podman must run as root, and sudo is not installed: run this as root.\n"

    @pytest.mark.parametrize("verb", ["pi", "card", "feed"])
    def test_is_not_needed_if_nothing_is_to_be_installed(self, machine, verb):
        assert machine.run(verb).returncode == 0

    @pytest.mark.parametrize("verb", ["demo", "test"])
    def test_suffices_without_a_password(self, machine, verb):
        machine.add("sudo", 'exec env "$@"')
        result = machine.run(verb)
        assert (result.returncode, result.stderr) == (0, "")

    @pytest.mark.parametrize("verb", ["demo", "test"])
    def test_that_cannot_ask_for_a_password_is_an_error(self, machine, verb):
        machine.add("sudo", ASKING_SUDO)
        result = machine.run(verb)
        assert result.returncode == 1
        assert "sudo: a terminal is required" in result.stderr
        assert "mats ALL=(root) NOPASSWD:SETENV: /usr/bin/podman, /usr/bin/mmdebstrap\n" in result.stderr

    def test_may_ask_for_the_demo(self, machine, terminal):
        machine.add("sudo", ASKING_SUDO)
        result = machine.run("demo", terminal)
        assert (result.returncode, result.stderr) == (0, "")

    def test_may_not_ask_for_the_tests_whose_jobs_have_no_terminal(self, machine, terminal):
        machine.add("sudo", ASKING_SUDO)
        result = machine.run("test", terminal)
        assert result.returncode == 1
        assert "NOPASSWD" in result.stderr


def test_the_keys_of_debian_are_a_prerequisite_of_the_feed(machine):
    (machine.root / "usr/share/keyrings/debian-archive-keyring.gpg").unlink()
    assert "Not installed on this machine: debian-archive-keyring." in machine.run("feed").stderr
    assert machine.run("pi").returncode == 0


def venv(clone, *arguments):
    environment = {**os.environ, "PYTHON": sys.executable}
    subprocess.run([clone / "bin/venv", *arguments], env=environment, check=True, capture_output=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A clone in which bin/venv has created .venv."""
    clone = tmp_path_factory.mktemp("made") / "clone"
    (clone / "bin").mkdir(parents=True)
    shutil.copy(REPOSITORY / "bin/venv", clone / "bin")
    venv(clone)
    return clone


@pytest.fixture
def clone(made):
    """That clone, with make's stamp in .venv. It is restored after the test."""
    kept = made.with_name("kept")
    shutil.copytree(made, kept, symlinks=True)
    (made / ".venv/.test").touch()
    yield made
    shutil.rmtree(made)
    kept.rename(made)


class TestVenv:
    def test_that_is_usable_is_kept(self, clone):
        venv(clone, "--check")
        venv(clone)
        assert (clone / ".venv/.test").exists()

    def test_that_does_not_exist_is_no_error(self, clone):
        shutil.rmtree(clone / ".venv")
        venv(clone, "--check")

    def spoil(self, clone, how):
        (packages,) = clone.glob(".venv/lib/python3.*/site-packages")
        match how:
            case "interrupted":  # while pip was being installed
                shutil.rmtree(packages / "pip")
            case "interrupted at the end":
                (clone / ".venv/bin/pip").unlink()
            case "upgraded":  # Python finds the packages of its own version only
                packages.parent.rename(packages.parent.with_name("python3.0"))
            case "without Python":
                (clone / ".venv/bin/python").unlink()
                (clone / ".venv/bin/python").symlink_to("/nonexistent")
            case "moved":
                pip = clone / ".venv/bin/pip"
                pip.write_text(pip.read_text().replace(str(clone), "/elsewhere"))

    @pytest.mark.parametrize("how", ["interrupted", "interrupted at the end", "upgraded", "without Python", "moved"])
    def test_that_is_not_usable_is_removed_with_its_stamps(self, clone, how):
        self.spoil(clone, how)
        venv(clone, "--check")
        assert not (clone / ".venv").exists()

    def test_that_is_not_usable_is_created_again(self, clone):
        self.spoil(clone, "interrupted")
        venv(clone)
        assert not (clone / ".venv/.test").exists()
        subprocess.run([clone / ".venv/bin/pip", "--version"], check=True, capture_output=True)

    @pytest.mark.parametrize(("version", "is_accepted"), [("3, 10", False), ("3, 11", True)])
    def test_needs_python_3_11(self, tmp_path, version, is_accepted):
        """With a Python that reports another version."""
        python = tmp_path / "python"
        real = f'exec {sys.executable} -c "import sys; sys.version_info = ({version}, 0); exec(sys.argv[1])" "$2"'
        python.write_text(f"#!/bin/sh\n{real}\n")
        python.chmod(0o755)
        environment = {**os.environ, "PYTHON": str(python)}
        command = [REPOSITORY / "bin/venv", "--which"]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert (result.returncode == 0) is is_accepted
        assert ("Python 3.11 or newer is needed" in result.stderr) is not is_accepted


def test_cloud_init_never_runs_on_this_machine(machine):
    """It is installed for its checks, and would otherwise set up the machine at its next start."""
    (machine.root / "path/cloud-init").unlink()
    log = machine.root / "log"
    machine.add("sudo", f'echo "$*" >>{log}')
    for name in ("apt-get", "chmod", "rm", "tail"):
        machine.add(name)
    machine.add("mktemp", f"echo {machine.root}/new")
    assert machine.run("card").returncode == 1  # as nothing is really installed
    calls = log.read_text().splitlines()
    disabled = calls.index("touch /etc/cloud/cloud-init.disabled")
    assert disabled < next(place for place, call in enumerate(calls) if "apt-get" in call and "install" in call)


def sample_wheel(directory) -> str:
    """Write a wheel of package sample, and return its hash."""
    metadata = {"METADATA": "Metadata-Version: 2.1\nName: sample\nVersion: 1\n", "RECORD": ""}
    metadata["WHEEL"] = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    wheel = directory / "sample-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in metadata.items():
            archive.writestr(f"sample-1.dist-info/{name}", text)
    return sha256(wheel.read_bytes()).hexdigest()


@pytest.fixture
def install(tmp_path):
    """Install the packages of a lock file into a new .venv."""

    def run(lock: str, **variables: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "bin").mkdir(exist_ok=True)
        shutil.copy(REPOSITORY / "bin/venv", tmp_path / "bin")
        (tmp_path / "lock.txt").write_text(f"{lock}\n")
        environment = {**os.environ, "PYTHON": sys.executable, **variables}
        command = [tmp_path / "bin/venv", "lock.txt"]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    return run


def test_packages_without_a_pinned_hash_are_not_installed(install, tmp_path):
    digest = sample_wheel(tmp_path)
    sample = f"sample @ file://{tmp_path}/sample-1-py3-none-any.whl"
    assert "Hashes are required" in install(sample).stderr
    assert "DO NOT MATCH" in install(f"{sample} --hash=sha256:{'0' * 64}").stderr
    assert install(f"{sample} --hash=sha256:{digest}").returncode == 0


@pytest.mark.parametrize("place", ["my feed/python", "feeds/trixie-arm64/python"])
def test_packages_come_from_a_feed_without_internet(install, tmp_path, place):
    (tmp_path / place).mkdir(parents=True)
    lock = f"sample==1 --hash=sha256:{sample_wheel(tmp_path / place)}"
    feed = {"TIG_PI_FEED": str(tmp_path / place.split("/")[0])}
    assert install(lock, **feed).returncode == 0
    # No index is asked.
    missing = install(f"pip==1.0 --hash=sha256:{'0' * 64}", PIP_INDEX_URL="http://127.0.0.1:9/", **feed)
    assert missing.returncode
    assert "127.0.0.1" not in missing.stderr


def test_a_feed_without_python_packages_is_named(install, tmp_path):
    result = install("sample==1", TIG_PI_FEED=str(tmp_path / "none"))
    assert result.returncode == 1
    assert f"There is no feed with Python packages in {tmp_path}/none. Fill one with `make feed`" in result.stderr
