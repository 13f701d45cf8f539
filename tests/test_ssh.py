"""How `make rebuild` reaches a host, and the keys that it accepts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ansible_collections.tig_pi.stack.plugins.filter import ssh
from ansible_collections.tig_pi.stack.plugins.lookup.ssh_endpoint import read_configuration
from chain import free_port
from project import REPOSITORY


def configuration(*options: str) -> list[str]:
    command = ["ssh", "-G", "-F", "none", *options]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def test_the_endpoint_is_what_ssh_itself_would_use():
    endpoint = read_configuration(configuration("-o", "UserKnownHostsFile=/a/known /b", "Pi.local"))
    assert endpoint == {
        "host": "pi.local",
        "port": 22,
        "is_direct": True,
        "name": "pi.local",
        "known_hosts": "/a/known",
    }
    assert read_configuration(configuration("-p", "2222", "pi"))["name"] == "[pi]:2222"
    assert read_configuration(configuration("-o", "HostKeyAlias=virtual", "-p", "2222", "pi"))["name"] == "virtual"
    assert not read_configuration(configuration("-J", "jump", "pi"))["is_direct"]
    assert not read_configuration(configuration("-o", "ProxyCommand=nc %h %p", "pi"))["is_direct"]


@pytest.fixture
def key(tmp_path):
    """Makes a key: its public part, and its fingerprint as ssh-keygen prints it."""

    def make(name: str) -> tuple[str, str]:
        path = tmp_path / name
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", path], check=True)
        printed = subprocess.run(["ssh-keygen", "-lf", path], capture_output=True, text=True, check=True).stdout
        return " ".join(path.with_suffix(".pub").read_text().split()[:2]), printed.split()[1]

    return make


def test_keys_and_fingerprints(key):
    public, printed = key("one")
    lines = ["# comment", f"pi,10.0.0.1 {public} a comment", f"|1|abc=|def= {public}", "@revoked pi ssh-rsa AAAA", ""]
    assert ssh.host_keys(lines) == [public]
    assert ssh.fingerprints([public]) == [printed]


class Network:
    """A playbook run that reaches a host with a key: `ssh-keyscan` is replaced, and something listens on a port."""

    def __init__(self, folder: Path, port: int):
        self.folder, self.port = folder, port
        self.known_hosts = folder / "known_hosts"
        self.programs = folder / "bin"
        self.programs.mkdir()
        pi = {
            "ansible_host": "127.0.0.1",
            "ansible_port": port,
            "ansible_ssh_common_args": f"-o UserKnownHostsFile={self.known_hosts}",
        }
        groups = {
            name: {"hosts": {"pi": None}} for name in ("brokers", "databases", "collectors", "dashboards", "flows")
        }
        (folder / "hosts.yml").write_text(yaml.safe_dump({"site": {"hosts": {"pi": pi}, "children": groups}}))

    def has(self, public: str) -> None:
        script = self.programs / "ssh-keyscan"
        script.write_text(f"#!/bin/sh\necho '[127.0.0.1]:{self.port} {public}'\n")
        script.chmod(0o755)

    def reach(self, *variables: str) -> tuple[int, str]:
        command = [REPOSITORY / "bin/play", f"--inventory={self.folder / 'hosts.yml'}", "playbooks/reach.yml"]
        command += ["--skip-tags=restore", *(f"--extra-vars={variable}" for variable in variables)]
        environment = {**os.environ, "PATH": f"{self.programs}:{os.environ['PATH']}"}
        done = subprocess.run(
            command,
            cwd=REPOSITORY,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, " ".join((done.stdout + done.stderr).split())


@pytest.fixture
def network(tmp_path):
    port = free_port()
    code = (
        "import socket\n"
        f"server = socket.create_server(('127.0.0.1', {port}))\n"
        "while True:\n    connection, _ = server.accept()\n    connection.send(b'SSH-2.0-x\\r\\n')\n    connection.close()\n"
    )
    with subprocess.Popen([sys.executable, "-c", code]) as server:
        yield Network(tmp_path, port)
        server.terminate()


def test_a_new_key_is_accepted_only_if_it_is_known_or_confirmed(network, key):
    (old, _), (new, printed) = key("old"), key("new")
    name = f"[127.0.0.1]:{network.port}"
    network.known_hosts.write_text(f"{name} {old}\n{name} ssh-rsa AAAAB3NzaC1yc2E=\nother {old}\n")
    network.has(old)
    code, said = network.reach()
    assert code == 0, said
    network.has(new)
    before = network.known_hosts.read_text()
    code, said = network.reach()
    assert code != 0
    assert f"not known: {printed}" in said
    code, said = network.reach("reach_host_key=SHA256:somethingelse")
    assert code != 0
    assert network.known_hosts.read_text() == before
    code, said = network.reach(f"reach_host_key={printed}")
    assert code == 0, said
    assert sorted(network.known_hosts.read_text().splitlines()) == sorted([f"{name} {new}", f"other {old}"])
    assert network.reach()[0] == 0


def test_an_unknown_host_needs_a_confirmation_too(network, key):
    network.has(key("one")[0])
    code, said = network.reach()
    assert code != 0
    assert "is not known" in said


def test_a_host_that_does_not_answer_is_waited_for(network, key):
    network.has(key("one")[0])
    inventory = network.folder / "hosts.yml"
    inventory.write_text(inventory.read_text().replace(str(network.port), str(free_port())))
    code, said = network.reach("reach_timeout=2")
    assert code != 0
    assert "Timeout when waiting for" in said


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, ["pi", "sudo", "--non-interactive"]),
        ({"ansible_host": "pi.local", "ansible_user": "root"}, ["-l", "root", "pi.local"]),
        (
            {"ansible_port": 2222, "ansible_ssh_private_key_file": "/k", "ansible_ssh_common_args": "-F '/a b'"},
            ["-p", "2222", "-i", "/k", "-F", "/a b", "pi", "sudo", "--non-interactive"],
        ),
    ],
)
def test_a_stream_reaches_a_host_with_its_connection_variables(variables, expected):
    command = ssh.ssh_command(variables, "pi")
    assert command[:3] == ["ssh", "-o", "BatchMode=yes"]
    assert command[5:] == expected
