"""virtual/pi without containers: what it finds out about the machine, and what it decides."""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tomllib
from types import SimpleNamespace

import pi
import pytest
from conftest import REPOSITORY
from virtual_pi import Failure, commands, host, image, mirrors, owners, podman, ports
from virtual_pi.boot import Boot
from virtual_pi.container import Pi
from virtual_pi.ssh import Ssh


class TestTheHost:
    @pytest.mark.parametrize(
        ("bounding", "expected"),
        [("000001ffffffffff", True), ("000001fffeffffff", False), ("00000000a80425fb", False)],
    )
    def test_limits_can_be_raised_where_root_has_the_capability(self, bounding, expected):
        status = f"Name:\tbash\nCapEff:\t0000000000000000\nCapBnd:\t{bounding}\nCapAmb:\t0000000000000000\n"
        assert host.can_raise_limits(status) is expected

    def test_an_ordinary_machine_needs_no_settings(self):
        assert host.containers_conf(cgroup_v2=True, raise_limits=True, open_files=1048576, processes=32768) == ""

    def test_hybrid_cgroups_get_runc_and_systemd_is_told(self):
        conf = tomllib.loads(host.containers_conf(False, True, 1024, 1024))
        assert conf["engine"]["runtime"] == "runc"
        assert conf["containers"] == {"env": ["SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1"]}

    def test_limits_that_cannot_be_raised_are_named(self):
        conf = tomllib.loads(host.containers_conf(True, False, 20000, 32768))
        assert conf == {"containers": {"default_ulimits": ["nofile=20000:20000", "nproc=32768:32768"]}}

    def test_both(self):
        conf = tomllib.loads(host.containers_conf(False, False, 20000, 100))
        assert set(conf) == {"containers", "engine"}
        assert set(conf["containers"]) == {"default_ulimits", "env"}


class TestTheMirror:
    TARGETS = """\
http://mirror.example/debian/|bookworm|Debian
http://mirror.example/debian/|bookworm-updates|Debian
http://mirror.example/debian/|bookworm-backports|Debian
http://security.example/debian-security/|bookworm-security|Debian
http://vendor.example/apt/|bookworm|A Vendor
"""

    def test_the_release_asked_for_comes_from_the_host_s_mirror(self):
        assert mirrors.mirrors("trixie", self.TARGETS) == [
            "deb http://mirror.example/debian/ trixie main",
            "deb http://security.example/debian-security/ trixie-security main",
            "deb http://mirror.example/debian/ trixie-updates main",
        ]

    def test_lists_that_were_never_fetched_will_do(self):
        targets = "http://mirror.example/debian/|trixie|\nhttp://vendor.example/apt/|stable|\n"
        assert mirrors.mirrors("trixie", targets) == ["deb http://mirror.example/debian/ trixie main"]

    def test_another_distribution_has_none_to_offer(self):
        assert mirrors.mirrors("trixie", "http://archive.example/ubuntu/|noble|Ubuntu\n") == []

    def test_one_can_be_named(self):
        assert mirrors.mirrors("trixie", self.TARGETS, "http://other.example/d") == [
            "deb http://other.example/d trixie main"
        ]


class TestPorts:
    def test_the_preferred_port_is_taken_where_it_is_free(self):
        assert ports.choose_ports([(11883, "1883")], set(), lambda port, protocol: True) == {"1883": 11883}

    def test_otherwise_any_free_one(self):
        with socket.socket() as squatter:
            squatter.bind(("127.0.0.1", 0))
            squatter.listen()
            taken = squatter.getsockname()[1]
            chosen = ports.choose_ports([(taken, "1883"), (None, "22")], set())
        assert chosen["1883"] not in (taken, chosen["22"])

    def test_a_pi_that_is_down_keeps_its_ports(self):
        assert ports.choose_ports([(11883, "1883")], {11883}, lambda port, protocol: True)["1883"] != 11883

    def test_two_wishes_for_one_port(self):
        chosen = ports.choose_ports([(11883, "1883"), (11883, "3000")], set(), lambda port, protocol: True)
        assert chosen["1883"] == 11883
        assert chosen["3000"] != 11883

    def test_tcp_and_udp_are_told_apart(self):
        assert ports.parse_publish("123/udp") == (None, "123/udp")
        assert ports.parse_publish("10123:123/udp") == (10123, "123/udp")
        assert ports.parse_publish("11883:1883/tcp") == (11883, "1883")

    @pytest.mark.parametrize("text", ["", "mqtt", "0", "70000", "1:2:3", "1883/sctp", "-1:22"])
    def test_what_is_no_port_is_refused(self, text):
        with pytest.raises(argparse.ArgumentTypeError, match="HOST"):
            ports.parse_publish(text)


class TestLeftOvers:
    def test_a_pi_without_an_owner_stays(self):
        assert not owners.is_left_over("")

    def test_a_pi_stays_while_its_owner_lives(self):
        assert not owners.is_left_over(owners.owner_mark(os.getpid()))

    def test_and_goes_with_it(self):
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

    def test_what_a_dead_owner_had_started_is_found(self):
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
    def test_systemd_s_word_is_waited_for(self, tmp_path):
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

    def test_a_container_that_ended_is_not_waited_for(self, tmp_path):
        read, write = os.pipe()
        with Boot(tmp_path) as boot, open(read) as death:
            os.close(write)
            assert not boot.wait(60, death)


class Containers:
    """podman, as far as `up` asks it: which containers there are."""

    def __init__(self):
        self.containers = {}
        self.said = []

    def pis(self):
        return {name: {"state": "running", "labels": labels} for name, labels in self.containers.items()}

    def succeeds(self, *arguments):
        return True

    def run(self, *arguments, **options):
        self.said.append(arguments[0])
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
        """`pi.py up` with these arguments; what it made and removed."""
        containers = Containers()
        blank = SimpleNamespace(ensure=str, stem="trixie-amd64", release="trixie", architecture="amd64", tag="image")
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
        monkeypatch.setattr(commands, "Image", lambda *arguments: blank)
        monkeypatch.setattr(commands, "collect_garbage", lambda *arguments: [])
        monkeypatch.setattr(commands, "start_or_remove", lambda pi, timeout: None)

        def run(*names):
            containers.said.clear()
            options = pi.parser().parse_args(["up", *names, "--release=trixie", f"--state={tmp_path / 'state'}"])
            commands.up(containers, tmp_path / "cache", options)
            return [verb for verb in containers.said if verb in ("create", "rm")]

        return run

    def test_a_pi_that_is_there_stays(self, up):
        assert up("one", "two") == ["create", "create"]
        assert up("one", "two") == []

    def test_a_pi_whose_files_are_gone_is_recreated(self, up, tmp_path):
        up("one", "two")
        shutil.rmtree(tmp_path / "state")
        assert sorted(up("one", "two")) == ["create", "create", "rm", "rm"]
        assert (tmp_path / "state/one.json").is_file()
        assert up("one", "two") == []

    @pytest.mark.parametrize("lost", ["one.json", "id_ed25519", "id_ed25519.pub", "host_ed25519.pub"])
    def test_a_pi_that_lost_a_file_is_recreated(self, up, tmp_path, lost):
        up("one", "two")
        (tmp_path / "state" / lost).unlink()
        expected = ["rm", "create"] if lost == "one.json" else ["rm", "rm", "create", "create"]
        assert up("one", "two") == expected
        assert up("one", "two") == []

    @pytest.mark.parametrize("lost", ["ssh_config", "known_hosts"])
    def test_what_follows_from_the_other_files_is_written_again(self, up, tmp_path, lost):
        up("one")
        text = (tmp_path / "state" / lost).read_text()
        (tmp_path / "state" / lost).unlink()
        assert up("one") == []
        assert (tmp_path / "state" / lost).read_text() == text

    def test_a_pi_that_was_killed_in_the_making_is_recreated(self, up, tmp_path, monkeypatch):
        def killed(*arguments):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(Ssh, "identity", killed)
            with pytest.raises(KeyboardInterrupt):
                up("one")
        assert up("one") == ["rm", "create"]


class TestRoot:
    @pytest.fixture
    def prefix(self, monkeypatch, tmp_path):
        """How podman is called by this user."""

        def of(user, programs=("env", "podman", "sudo"), settings=""):
            monkeypatch.setattr(podman.os, "geteuid", lambda: user)
            monkeypatch.setattr(podman.shutil, "which", lambda name: name if name in programs else None)
            monkeypatch.setattr(podman, "host_containers_conf", lambda: settings)
            return " ".join(podman.Podman(tmp_path).prefix)

        return of

    def test_is_had_through_sudo(self, prefix):
        assert prefix(1000) == "sudo"

    def test_sudo_sets_what_podman_needs_itself(self, prefix, tmp_path):
        """So that a rule in sudoers for podman will do: env would need one that allows everything."""
        assert prefix(1000, settings="[engine]") == f"sudo CONTAINERS_CONF={tmp_path / 'containers.conf'}"
        assert prefix(0, settings="[engine]") == f"env CONTAINERS_CONF={tmp_path / 'containers.conf'}"

    def test_that_cannot_be_had_is_told(self, prefix):
        with pytest.raises(Failure, match="there is no sudo here"):
            prefix(1000, programs=("env", "podman"))


def test_the_image_follows_its_inputs(monkeypatch, tmp_path):
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


def test_what_is_known_of_the_feed_follows_it(tmp_path):
    """A further `up` of a Pi that is there: its feed may have been filled again."""
    feed, state = tmp_path / "feed/trixie-amd64", tmp_path / "state"
    feed.mkdir(parents=True)
    state.mkdir()
    there = Pi(None, tmp_path, "x", state, "x")
    there.describe_feed("trixie-amd64")
    assert list(state.iterdir()) == []
    for packages in ("[]", '[{"name": "grafana"}]'):
        (feed / "feed.lock.json").write_text(packages)
        there.describe_feed("trixie-amd64")
        assert (state / "feed.lock").read_text() == packages


def test_the_image_has_nothing_that_a_role_installs():
    packages = set((REPOSITORY / "virtual/pi/packages.txt").read_text().split())
    assert not packages & {"mosquitto", "chrony", "python3-debian", "influxdb", "telegraf", "grafana", "nodejs"}


def test_wrong_use_is_told_in_one_line(tmp_path):
    command = [sys.executable, REPOSITORY / "virtual/pi/pi.py", "up", "x", "--owner-pid", str(2**22 + 1)]
    environment = {**os.environ, "TIG_PI_CACHE": str(tmp_path)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert "Traceback" not in result.stderr
