"""Fixtures of all scenarios: the virtual Pis, their published ports and their power.

Commands on a Pi are run with testinfra's own fixture `host` (SSH, as root). What a client in the network sees is
tested from outside, at `pi.address` and `pi.port(...)`.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Iterable

import pytest
import yaml

PROJECT = pathlib.Path(__file__).resolve().parent.parent
EPHEMERAL = pathlib.Path(os.environ.get("MOLECULE_EPHEMERAL_DIRECTORY", "."))
sys.path.insert(0, str(PROJECT / "tests"))
import virtual_site  # noqa: E402


@dataclasses.dataclass(frozen=True)
class Pi:
    """A virtual Pi, seen from outside."""

    name: str
    hostname: str
    address: str
    ports: dict[str, int]
    release: str

    def port(self, guest: int | str) -> int:
        """The port of `address` under which a port of the Pi is published: `pi.port(1883)`, `pi.port("123/udp")`."""
        if str(guest) not in self.ports:
            raise KeyError(f"port {guest} of {self.name} is not published; add it to `publish` in molecule.yml")
        return self.ports[str(guest)]

    def reboot(self) -> None:
        """Shut down cleanly, start again, and wait until systemd reports that it has booted."""
        self._command("reboot")

    def power_cut(self) -> None:
        """Kill all processes at once, start again, and wait until systemd reports that it has booted."""
        self._command("power-cut")

    def _command(self, verb: str) -> None:
        subprocess.run([PROJECT / "virtual/pi/pi.py", verb, self.name], check=True)


@pytest.fixture(scope="session")
def probe() -> str:
    """The name under which `make verify` publishes."""
    return yaml.safe_load((PROJECT / "contract.yml").read_text(encoding="utf-8"))["probe"]


@pytest.fixture(scope="session")
def pis() -> dict[str, Pi]:
    """All Pis of the scenario by platform name."""
    keys = [field.name for field in dataclasses.fields(Pi)]
    described = (json.loads(path.read_text()) for path in (EPHEMERAL / "pis").glob("*.json"))
    return {pi["alias"]: Pi(**{key: pi[key] for key in keys}) for pi in described}


@pytest.fixture
def pi(request: pytest.FixtureRequest, pis: dict[str, Pi]) -> Pi:
    """The Pi that `host` is connected to, or the only one of the scenario."""
    if len(pis) == 1:
        return next(iter(pis.values()))
    return pis[request.getfixturevalue("host").backend.host]


class Converge:
    """Runs the scenario's playbook again: `converge("--tags=telegraf", mosquitto_listeners=[...])`."""

    def __call__(self, *arguments: str, **variables: object) -> subprocess.CompletedProcess[str]:
        """Return the result, whether or not it failed. Its output has no colours."""
        extra = [f"--extra-vars={json.dumps(variables)}"] if variables else []
        playbook = pathlib.Path(os.environ["MOLECULE_SCENARIO_DIRECTORY"]) / "converge.yml"
        return subprocess.run(
            ["ansible-playbook", f"--inventory={EPHEMERAL / 'inventory'}", playbook, *extra, *arguments],
            env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0"},
            cwd=PROJECT,
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture(scope="session")
def converge() -> Converge:
    """For tests that need another run: a changed secret, an invalid variable, `--check`."""
    return Converge()


@pytest.fixture
def tags_work_alone(host, converge: Converge):
    """Run each of a role's tags alone: `configure` writes changed values to a file, `install` and `run` change nothing.

    `tags_work_alone("mosquitto", "mosquitto_sys_interval", (11, 10), CONFIGURATION, "sys_interval {}")`; the last value is
    that of the scenario.
    """

    def check(role: str, variable: str, values: tuple, path: str, line: str) -> None:
        for value in values:
            run = converge(f"--tags={role}_configure", **{variable: value})
            assert run.returncode == 0, run.stdout
            assert line.format(value) in host.file(path).content_string
        for part in ("install", "run"):
            run = converge(f"--tags={role}_{part}", "--check")
            assert run.returncode == 0, run.stdout
            assert " changed=0 " in run.stdout

    return check


# How a unit can fail: it cannot start, or its program exits, with or without an error. Each is a drop-in of the unit.
EXITS = "[Service]\nType=simple\nExecStart=\nExecStart=/bin/sh -c 'sleep 5; echo Giving up; exit {}'\n"
FAILURES = {
    "cannot start": "[Service]\nExecStartPre=/bin/false\n",
    "exits without an error": EXITS.format(0),
    "exits with an error": EXITS.format(3),
}
LISTENING = "ss --no-header --listening --numeric --tcp | awk '{print $4}'"


@pytest.fixture
def broken(host):
    """Make units fail until the end of the test: `broken("cannot start", "telegraf", "node-red")`."""
    files = {}
    listening = set(host.check_output(LISTENING).split())

    def are_up(units: Iterable[str]) -> bool:
        up = all(host.run(f"systemctl is-active --quiet {unit}").rc == 0 for unit in units)
        return up and listening <= set(host.check_output(LISTENING).split())

    def restart(*units: str) -> None:
        host.run_expect([0], f"systemctl daemon-reload && systemctl restart --no-block {' '.join(units)}")

    def run(how: str, *units: str) -> None:
        files.update({unit: f"/run/systemd/system/{unit}.service.d/zz-broken.conf" for unit in units})
        for path in files.values():
            host.run_expect([0], "mkdir -p %s && printf %%b %s >%s", os.path.dirname(path), FAILURES[how], path)
        restart(*units)

    yield run
    if files:
        host.run_expect([0], f"rm {' '.join(files.values())}")
        restart(*files)
        deadline = time.monotonic() + 120
        while not are_up(files):
            assert time.monotonic() < deadline, f"{', '.join(files)}: not all of them are up again"
            time.sleep(0.5)


@pytest.fixture
def fails_to_start(broken, converge: Converge):
    """Check that the role fails with an error that names the unit, whichever way the unit fails."""

    def check(unit: str) -> None:
        for how in ("exits without an error", "cannot start"):
            broken(how, unit)
            run = converge()
            assert run.returncode != 0, run.stdout
            assert f"{unit}.service does not stay up" in run.stdout
            assert f"sudo journalctl --unit={unit}.service" in run.stdout

    return check


@pytest.fixture(scope="session")
def inventory() -> pathlib.Path:
    """The directory of the scenario's inventory; generated secrets are in `secrets/` below it."""
    return EPHEMERAL / "inventory"


@pytest.fixture(scope="session")
def playbook(inventory: pathlib.Path):
    """Run a playbook of the project on the scenario's inventory: `playbook("site.yml", "--check")`."""

    def run(name: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["ansible-playbook", f"--inventory={inventory}", f"playbooks/{name}", *arguments],
            env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0", **environment},
            cwd=PROJECT,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def boot_with():
    """The Pi boots with a card of the scenario: `boot_with(pi, "card.img", secret_files, script)`."""
    return lambda pi, card, *more: virtual_site.boot_with(EPHEMERAL / "pis", pi.name, EPHEMERAL / card, *more)


@pytest.fixture(scope="session")
def verify(playbook):
    """Run `make verify` for the scenario: one line for each link of the chain."""
    return lambda: playbook("verify.yml", ANSIBLE_STDOUT_CALLBACK="tig_pi.stack.lines")


@pytest.fixture
def refuses_all_but_the_key(tmp_path):
    """Account pi lets the declared key in, and neither another one nor a password."""

    def check(pi) -> None:
        accepted = ["ssh", "-F", EPHEMERAL / "pis/ssh_config", "-o", "ControlPath=none", pi.name, "id -un"]
        quiet = {"capture_output": True, "text": True, "stdin": subprocess.DEVNULL}
        assert subprocess.run(accepted, **quiet, check=True).stdout == "pi\n"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "other"], check=True)
        common = ["ssh", "-F", "/dev/null", "-p", str(pi.port(22)), "-o", "BatchMode=yes"]
        common += ["-o", "StrictHostKeyChecking=no", "-o", f"UserKnownHostsFile={tmp_path}/known"]
        for options in (["-i", str(tmp_path / "other"), "-o", "IdentitiesOnly=yes"], ["-o", "PubkeyAuthentication=no"]):
            refused = subprocess.run([*common, *options, f"pi@{pi.address}", "true"], **quiet, check=False)
            assert refused.returncode == 255
            assert "Permission denied (publickey)." in refused.stderr

    return check


@pytest.fixture
def damage(host):
    """Damage a state file as a power cut does: kill the service, change the bytes of the file, and start the service.

    `damage("influxdb", path, "NULs")`; returns what the service has written to the journal since then.
    """
    ways = {
        "empty": "truncate --size=0 {0}",
        "NULs": "size=$(stat --format=%s {0}); head --bytes=$size /dev/zero >{0}",
    }
    ways["truncated"] = "truncate --size=$(($(stat --format=%s {0}) / 2)) {0}"
    ways["garbage"] = "size=$(stat --format=%s {0}); head --bytes=$size /dev/urandom >{0}"

    def do(unit: str, path: str, how: str) -> str:
        before = host.check_output("date +%s")
        # Killed first: a service that is stopped writes some of its files.
        host.run_expect([0], f"systemctl kill --signal=KILL {unit}; systemctl stop {unit}")
        host.run_expect([0], ways[how].format(path))
        host.run(f"systemctl start {unit}; journalctl --sync")
        return host.check_output(f"journalctl --unit={unit} --since=@{before} --output=cat --no-pager")

    return do


@pytest.fixture
def state_files(host):
    """The report about a service's state files: `state_files("influxdb")["set_aside"]`."""
    return lambda service: json.loads(host.check_output(f"/usr/local/libexec/{service}-state report"))
