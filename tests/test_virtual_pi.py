"""virtual/pi without containers: what it detects about this machine, and what it does."""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tomllib
from types import SimpleNamespace

import feed
import pi
import pytest
from conftest import REPOSITORY
from virtual_pi import Failure, commands, host, image, mirrors, owners, podman, ports
from virtual_pi.boot import Boot
from virtual_pi.container import Pi
from virtual_pi.ssh import Ssh


class TestThisMachine:
    @pytest.mark.parametrize(
        ("bounding", "expected"),
        [("000001ffffffffff", True), ("000001fffeffffff", False), ("00000000a80425fb", False)],
    )
    def test_limits_can_be_raised_if_root_has_the_capability(self, bounding, expected):
        status = f"Name:\tbash\nCapEff:\t0000000000000000\nCapBnd:\t{bounding}\nCapAmb:\t0000000000000000\n"
        assert host.can_raise_limits(status) is expected

    def test_an_ordinary_machine_needs_no_settings(self):
        assert host.containers_conf(cgroup_v2=True, raise_limits=True, open_files=1048576, processes=32768) == ""

    def test_hybrid_cgroups_need_runc_and_a_setting_of_systemd(self):
        conf = tomllib.loads(host.containers_conf(False, True, 1024, 1024))
        assert conf["engine"]["runtime"] == "runc"
        assert conf["containers"] == {"env": ["SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1"]}

    def test_limits_that_cannot_be_raised_stay_at_their_values(self):
        conf = tomllib.loads(host.containers_conf(True, False, 20000, 32768))
        assert conf == {"containers": {"default_ulimits": ["nofile=20000:20000", "nproc=32768:32768"]}}

    @pytest.mark.parametrize(
        ("variables", "expected"),
        [
            ({}, "home/.cache/tig-pi"),
            ({"XDG_CACHE_HOME": "/xdg"}, "/xdg/tig-pi"),
            ({"XDG_CACHE_HOME": "/xdg", "TIG_PI_CACHE": "/mine"}, "/mine"),
            ({"TIG_PI_CACHE": "~/mine"}, "home/mine"),
            ({"TIG_PI_CACHE": "mine"}, "mine"),
        ],
    )
    def test_the_cache_is_that_of_the_feed(self, monkeypatch, tmp_path, variables, expected):
        """It is absolute, because podman takes a relative path for the name of a volume."""
        monkeypatch.chdir(tmp_path)
        for name in ("TIG_PI_CACHE", "XDG_CACHE_HOME"):
            monkeypatch.delenv(name, raising=False)
        for name, value in (variables | {"HOME": str(tmp_path / "home")}).items():
            monkeypatch.setenv(name, value)
        assert host.cache_directory() == feed.cache_directory() == tmp_path / expected

    def test_hybrid_cgroups_and_limits_that_cannot_be_raised(self):
        conf = tomllib.loads(host.containers_conf(False, False, 20000, 100))
        assert set(conf) == {"containers", "engine"}
        assert set(conf["containers"]) == {"default_ulimits", "env"}


class TestMirror:
    TARGETS = """\
http://mirror.example/debian/|bookworm|Debian
http://mirror.example/debian/|bookworm-updates|Debian
http://mirror.example/debian/|bookworm-backports|Debian
http://security.example/debian-security/|bookworm-security|Debian
http://vendor.example/apt/|bookworm|A Vendor
"""

    def test_the_image_uses_the_mirror_of_this_machine(self):
        assert mirrors.mirrors("trixie", self.TARGETS) == [
            "deb http://mirror.example/debian/ trixie main",
            "deb http://security.example/debian-security/ trixie-security main",
            "deb http://mirror.example/debian/ trixie-updates main",
        ]

    def test_the_mirror_is_found_by_its_address_before_the_first_apt_update(self):
        targets = "http://mirror.example/debian/|trixie|\nhttp://vendor.example/apt/|stable|\n"
        assert mirrors.mirrors("trixie", targets) == ["deb http://mirror.example/debian/ trixie main"]

    def test_another_distribution_has_no_debian_mirror(self):
        assert mirrors.mirrors("trixie", "http://archive.example/ubuntu/|noble|Ubuntu\n") == []

    def test_an_explicit_mirror_takes_precedence(self):
        assert mirrors.mirrors("trixie", self.TARGETS, "http://other.example/d") == [
            "deb http://other.example/d trixie main"
        ]


class TestPorts:
    def test_the_preferred_port_is_used_if_it_is_free(self):
        assert ports.choose_ports([(11883, "1883")], set(), lambda port, protocol: True) == {"1883": 11883}

    def test_otherwise_any_free_port_is_used(self):
        with socket.socket() as squatter:
            squatter.bind(("127.0.0.1", 0))
            squatter.listen()
            taken = squatter.getsockname()[1]
            chosen = ports.choose_ports([(taken, "1883"), (None, "22")], set())
        assert chosen["1883"] not in (taken, chosen["22"])

    def test_a_stopped_pi_keeps_its_ports(self):
        assert ports.choose_ports([(11883, "1883")], {11883}, lambda port, protocol: True)["1883"] != 11883

    def test_a_port_is_published_only_once(self):
        chosen = ports.choose_ports([(11883, "1883"), (11883, "3000")], set(), lambda port, protocol: True)
        assert chosen["1883"] == 11883
        assert chosen["3000"] != 11883

    def test_tcp_and_udp_are_distinguished(self):
        assert ports.parse_publish("123/udp") == (None, "123/udp")
        assert ports.parse_publish("10123:123/udp") == (10123, "123/udp")
        assert ports.parse_publish("11883:1883/tcp") == (11883, "1883")

    @pytest.mark.parametrize("text", ["", "mqtt", "0", "70000", "1:2:3", "1883/sctp", "-1:22"])
    def test_an_invalid_port_is_refused(self, text):
        with pytest.raises(argparse.ArgumentTypeError, match="HOST"):
            ports.parse_publish(text)


class TestOwners:
    def test_a_pi_without_an_owner_is_kept(self):
        assert not owners.is_left_over("")

    def test_a_pi_is_kept_while_its_owner_runs(self):
        assert not owners.is_left_over(owners.owner_mark(os.getpid()))

    def test_a_pi_is_left_over_when_its_owner_has_ended(self):
        with subprocess.Popen(["sleep", "60"]) as owner:
            mark = owners.owner_mark(owner.pid)
            assert not owners.is_left_over(mark)
            owner.kill()
        assert owners.is_left_over(mark)

    def test_a_reused_pid_is_not_mistaken_for_the_owner(self):
        pid, start, boot = owners.owner_mark(os.getpid()).split(":")
        assert owners.is_left_over(f"{pid}:{int(start) - 1}:{boot}")
        assert owners.is_left_over(f"{pid}:{start}:another-boot")

    def test_an_owner_that_does_not_exist_is_an_error(self):
        with pytest.raises(Failure, match="no such process"):
            owners.owner_mark(2**22 + 1)

    def test_processes_of_an_owner_that_has_ended_are_found(self):
        with subprocess.Popen(["sleep", "60"]) as owner:
            environment = {**os.environ, "TIG_PI_OWNER_PID": str(owner.pid)}
            with subprocess.Popen(["sleep", "60"], env=environment) as orphan:
                assert orphan.pid not in owners.orphans()
                owner.kill()
                owner.wait()
                assert orphan.pid in owners.orphans()
                assert os.getpid() not in owners.orphans()
                orphan.kill()


class TestBoot:
    def test_waits_for_systemd_s_notification(self, tmp_path):
        deep = tmp_path / ("x" * 100)  # longer than the path of a socket may be
        read, write = os.pipe()
        with Boot(deep) as boot, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd, open(read) as death:
            os.chdir(deep)
            systemd.connect("notify")
            systemd.send(b"STATUS=Startup\nX_SYSTEMD_UNIT_ACTIVE=ssh.service")
            systemd.send(b"READY=1\nSTATUS=Ready.")
            assert boot.wait(5, death)
            assert not boot.wait(0.05, death)
        os.close(write)

    def test_does_not_wait_for_a_container_that_has_ended(self, tmp_path):
        read, write = os.pipe()
        with Boot(tmp_path) as boot, open(read) as death:
            os.close(write)
            assert not boot.wait(60, death)


class Containers:
    """A stub of podman for `up`: it keeps a list of containers."""

    def __init__(self):
        self.containers = {}
        self.calls = []

    def pis(self):
        return {name: {"state": "running", "labels": labels} for name, labels in self.containers.items()}

    def succeeds(self, *arguments):
        return True

    def run(self, *arguments, **options):
        self.calls.append(arguments[0])
        match arguments[0]:
            case "create":
                name = next(a.removeprefix("--name=") for a in arguments if a.startswith("--name="))
                labels = [a.removeprefix("--label=tig-pi.") for a in arguments if a.startswith("--label=tig-pi.")]
                self.containers[name] = dict(label.split("=", 1) for label in labels)
            case "rm":
                (name,) = (argument for argument in arguments[1:] if not argument.startswith("-"))
                self.containers.pop(name, None)
        return ""


class TestUp:
    @pytest.fixture
    def up(self, monkeypatch, tmp_path):
        """Run `pi.py up` for these names; returns how it called podman: `create` and `rm`."""
        containers = Containers()
        blank = SimpleNamespace(ensure=str, stem="trixie-amd64", release="trixie", architecture="amd64", tag="image")
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
        monkeypatch.setattr(commands, "Image", lambda *arguments: blank)
        monkeypatch.setattr(commands, "collect_garbage", lambda *arguments: [])
        monkeypatch.setattr(commands, "start_or_remove", lambda pi, timeout: None)

        def run(*names):
            containers.calls.clear()
            options = pi.parser().parse_args(["up", *names, "--release=trixie", f"--state={tmp_path / 'state'}"])
            commands.up(containers, tmp_path / "cache", options)
            return [verb for verb in containers.calls if verb in ("create", "rm")]

        return run

    def test_an_existing_pi_is_kept(self, up):
        assert up("one", "two") == ["create", "create"]
        assert up("one", "two") == []

    def test_a_pi_without_its_state_directory_is_created_again(self, up, tmp_path):
        up("one", "two")
        shutil.rmtree(tmp_path / "state")
        assert sorted(up("one", "two")) == ["create", "create", "rm", "rm"]
        assert (tmp_path / "state/one.json").is_file()
        assert up("one", "two") == []

    @pytest.mark.parametrize("lost", ["one.json", "id_ed25519", "id_ed25519.pub", "host_ed25519.pub"])
    def test_a_pi_without_one_of_its_files_is_created_again(self, up, tmp_path, lost):
        up("one", "two")
        (tmp_path / "state" / lost).unlink()
        expected = ["rm", "create"] if lost == "one.json" else ["rm", "rm", "create", "create"]
        assert up("one", "two") == expected
        assert up("one", "two") == []

    @pytest.mark.parametrize("lost", ["ssh_config", "known_hosts"])
    def test_files_that_can_be_derived_are_written_again(self, up, tmp_path, lost):
        up("one")
        text = (tmp_path / "state" / lost).read_text()
        (tmp_path / "state" / lost).unlink()
        assert up("one") == []
        assert (tmp_path / "state" / lost).read_text() == text

    def test_an_interrupted_creation_starts_over(self, up, tmp_path, monkeypatch):
        def killed(*arguments):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(Ssh, "identity", killed)
            with pytest.raises(KeyboardInterrupt):
                up("one")
        assert up("one") == ["rm", "create"]


@pytest.mark.parametrize("reachable", [(), ("192.0.2.1",), ("2001:db8::1",)])
def test_a_pi_that_still_reaches_another_network_is_not_isolated(monkeypatch, tmp_path, reachable):
    podman = SimpleNamespace(run=lambda *_, **__: "", succeeds=lambda *arguments: arguments[-1] in reachable)
    pi = Pi(podman, tmp_path, "one", tmp_path)
    if not reachable:
        pi.isolate()
        return
    with pytest.raises(Failure, match="still has a route"):
        pi.isolate()


def test_the_network_is_removed_with_the_last_pi_of_a_state_directory(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    calls = []
    containers = SimpleNamespace(run=lambda *arguments, **options: calls.append(arguments[:2]))
    state = tmp_path / "state"
    state.mkdir()
    for name in ("one", "two"):
        (state / f"{name}.json").write_text(f'{{"name": "{name}", "alias": "{name}", "ports": {{"22": 1}}}}')
    Pi(containers, tmp_path, "one", state).remove(harvest=False)
    assert ("network", "rm") not in calls
    assert state.exists()
    Pi(containers, tmp_path, "two", state).remove(harvest=False)
    assert ("network", "rm") in calls
    assert not state.exists()


class TestRoot:
    @pytest.fixture
    def prefix(self, monkeypatch, tmp_path):
        """The beginning of the command that runs podman for this user."""

        def of(user, programs=("env", "podman", "sudo"), settings=""):
            monkeypatch.setattr(podman.os, "geteuid", lambda: user)
            monkeypatch.setattr(podman.shutil, "which", lambda name: name if name in programs else None)
            monkeypatch.setattr(podman, "host_containers_conf", lambda: settings)
            return " ".join(podman.Podman(tmp_path).prefix)

        return of

    def test_other_users_use_sudo(self, prefix):
        assert prefix(1000) == "sudo"

    def test_sudo_sets_the_variable_itself(self, prefix, tmp_path):
        """So a rule in sudoers for podman is enough; one for env would allow everything."""
        assert prefix(1000, settings="[engine]") == f"sudo CONTAINERS_CONF={tmp_path / 'containers.conf'}"
        assert prefix(0, settings="[engine]") == f"env CONTAINERS_CONF={tmp_path / 'containers.conf'}"

    def test_without_sudo_the_error_says_so(self, prefix):
        with pytest.raises(Failure, match="sudo is not installed: run this as root"):
            prefix(1000, programs=("env", "podman"))


def test_new_inputs_give_a_new_image(monkeypatch, tmp_path):
    def tag(release="trixie"):
        return image.Image(None, tmp_path, release).tag

    monkeypatch.setattr(image, "apt_targets", lambda: "")
    monkeypatch.setattr(image, "apt_transport_options", list)
    monkeypatch.setattr(image, "private_certificates", list)
    first = tag()
    assert tag() == first
    assert tag("bookworm") != first
    monkeypatch.setattr(image, "private_certificates", lambda: ["a new CA"])
    assert tag() != first


def test_a_second_up_copies_the_list_of_the_feed_again(tmp_path):
    """The feed may have been filled again since the first one."""
    feed, state = tmp_path / "feed/trixie-amd64", tmp_path / "state"
    feed.mkdir(parents=True)
    state.mkdir()
    existing = Pi(None, tmp_path, "x", state, "x")
    existing.describe_feed("trixie-amd64")
    assert list(state.iterdir()) == []
    for packages in ("[]", '[{"name": "grafana"}]'):
        (feed / "feed.lock.json").write_text(packages)
        existing.describe_feed("trixie-amd64")
        assert (state / "feed.lock").read_text() == packages


def test_the_image_has_no_package_that_a_role_installs():
    packages = set((REPOSITORY / "virtual/pi/packages.txt").read_text().split())
    assert not packages & {"mosquitto", "chrony", "python3-debian", "influxdb", "telegraf", "grafana", "nodejs"}


def test_an_error_is_a_single_line(tmp_path):
    command = [sys.executable, REPOSITORY / "virtual/pi/pi.py", "up", "x", "--owner-pid", str(2**22 + 1)]
    environment = {**os.environ, "TIG_PI_CACHE": str(tmp_path)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert "Traceback" not in result.stderr
