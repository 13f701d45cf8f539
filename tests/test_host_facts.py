"""What the roles make of the facts about a host."""

from __future__ import annotations

import itertools
import shutil
import subprocess

import pytest
from ansible_collections.tig_pi.stack.plugins.filter import host_facts


def package(version: str) -> list[dict]:
    return [{"name": "", "version": version, "arch": "arm64", "source": "apt"}]


FACTS = {
    "packages": {
        "telegraf": package("1.39.3-1"),
        "grafana": package("12.4.1"),
        "mosquitto": package("2.0.21-1"),
        "stand-in": package("12.2.0~standin1"),
        "built": package("1.39.3-1~tigpi2"),
        "debian": package("1.6.7~rc0-2+b12"),
    },
    "services": {
        "telegraf.service": {"state": "running", "status": "enabled"},
        "grafana-server.service": {"state": "running", "status": "disabled"},
        "mosquitto.service": {"state": "stopped", "status": "enabled"},
    },
}


@pytest.fixture
def applied():
    filters = host_facts.FilterModule().filters()
    return lambda name, *arguments: filters[name](*arguments)


@pytest.mark.parametrize(
    ("wanted", "absent", "unmet", "newer"),
    [
        ("mosquitto", False, False, False),
        ("telegraf=*", False, False, False),
        ("telegraf=1.39.3*", False, False, False),
        ("telegraf=1.39.3-1", False, False, False),
        ("telegraf=1.39.3", False, True, False),  # 1.39.3-1 is that version, though apt takes it for another
        ("telegraf=1.39.3-0", False, True, True),
        ("telegraf=1.40.0*", False, True, False),
        ("telegraf=1.5*", False, True, True),  # a number, not its digits
        ("grafana=12.*", False, False, False),
        ("grafana=12.1*", False, True, True),
        ("grafana=13.*", False, True, False),
        ("influxdb=1.*", True, True, False),
        ("node-red", True, True, False),
        # A package that was made in place of the vendor's gives way to it, and is older.
        ("stand-in", False, True, False),
        ("stand-in=*", False, True, False),
        ("stand-in=12.*", False, True, False),
        ("stand-in=12.2.0", False, True, False),
        ("stand-in=12.2.0*", False, True, False),
        ("stand-in=12.2.0~standin1", False, False, False),
        ("stand-in=12.1.9", False, True, True),
        ("built=1.39.3*", False, True, False),
        ("built=1.39.3-1~tigpi2", False, False, False),
        ("built=1.39.3-1", False, True, False),
        # Debian's own, which has a tilde, too.
        ("debian=1.*", False, False, False),
        ("debian=1.6.7*", False, False, False),
        ("debian=1.13.2~tigpi1", False, True, False),
    ],
)
def test_a_package_is_absent_unmet_or_newer(applied, wanted, absent, unmet, newer):
    for name, expected in (("absent_packages", absent), ("unmet_packages", unmet), ("newer_packages", newer)):
        assert applied(name, [wanted], FACTS) == ([wanted] if expected else []), name


@pytest.mark.skipif(shutil.which("dpkg") is None, reason="there is no dpkg to compare with")
def test_versions_compare_as_in_dpkg(applied):
    """Each of these with each: as a version that is installed and as the exact one that is wanted."""
    versions = [
        *(
            "12.2.0~standin1-0",
            "12.2.0-0",
            "12.2.0-1",
            "12.2.0-1~tigpi1",
            "12.2.0+b1-0",
            "12.2-0",
            "12.10.0-0",
            "12.2.a-0",
        ),
        *(
            "1.6.7~rc0-2+b12",
            "1.6.7-2",
            "1.6.7~-1",
            "1.6.7~~-1",
            "1.6.7~rc0-2",
            "1.13.2~tigpi1-0",
            "1.13.2-1",
            "1.06.7-2",
        ),
        *("2:0-1", "0:12.2.0-0", "1.0-rc1-1", "1.0+-1", "1.0.-1", "1.0a-1", "1.0~a-1", "01.00-01", "1-0", "1.39.rc1-1"),
    ]
    for installed, wanted in itertools.product(versions, versions):
        facts = {"packages": {"x": package(installed)}}
        newer = subprocess.run(["dpkg", "--compare-versions", installed, "gt", wanted], check=False).returncode == 0
        assert bool(applied("newer_packages", [f"x={wanted}"], facts)) == newer, (installed, wanted)


def test_the_version_of_a_package_is_known_if_it_is_installed(applied):
    assert applied("installed_version", FACTS, "grafana") == "12.4.1"
    assert applied("installed_version", FACTS, "influxdb") == ""
    assert applied("installed_version", {}, "grafana") == ""


def test_a_service_is_up_when_it_runs_and_is_enabled(applied):
    assert applied("service_is_up", FACTS, {"unit": "telegraf.service"})
    for unit in ("grafana-server.service", "mosquitto.service", "influxdb.service"):
        assert not applied("service_is_up", FACTS, {"unit": unit}), unit
    assert not applied("service_is_up", {}, {"unit": "telegraf.service"})


@pytest.mark.parametrize(
    ("ports", "expected"),
    [
        ([], True),
        ([{"port": 1883}], True),
        ([{"port": "1883", "protocol": "tcp"}], True),
        ([{"port": 1883, "protocol": "udp"}], False),
        ([{"port": 1883}, {"port": 8883}], False),
    ],
)
def test_a_service_is_up_when_it_listens_on_all_of_its_ports(applied, ports, expected):
    facts = FACTS | {"listeners": [listener(1883)]}
    assert applied("service_is_up", facts, {"unit": "telegraf.service", "ports": ports}) is expected


def test_a_service_with_ports_is_not_known_to_be_up_when_nobody_has_looked_at_them(applied):
    assert not applied("service_is_up", FACTS, {"unit": "telegraf.service", "ports": [{"port": 1883}]})


def listener(port: int, protocol: str = "tcp", **more) -> dict:
    return {"port": port, "protocol": protocol, "pid": 17, "program": "python3", "units": ["squatter.service"]} | more


PI = {
    "distribution": "debian",
    "release": "trixie",
    "name": "Debian GNU/Linux 13 (trixie)",
    "machine": "aarch64",
    "architecture": "arm64",
    "free_mb": 5000,
}
WANTED = {
    "releases": ["bookworm", "trixie"],
    "architectures": ["amd64", "arm64", "armhf"],
    "free_mb": 1000,
    "ports": [],
}
BROKER = {"port": 1883, "unit": "mosquitto.service"}
TIME = {"port": 123, "protocol": "udp", "unit": "chrony.service"}


@pytest.mark.parametrize(
    ("system", "wanted", "problem"),
    [
        ({}, {}, ""),
        ({"machine": "armv7l", "architecture": "armhf"}, {}, ""),
        # A 32-bit Raspberry Pi OS has a 64-bit kernel on a Pi 4: the packages are those of the userland.
        ({"architecture": "armhf"}, {}, ""),
        (
            {"architecture": "armhf"},
            {"architectures": ["amd64", "arm64"]},
            "The architecture is armhf; the stack runs on amd64, arm64.",
        ),
        ({"architecture": "i386"}, {}, "The architecture is i386; the stack runs on amd64, arm64, armhf."),
        # Debian's armhf needs ARMv7, Raspberry Pi OS' does not.
        ({"machine": "armv6l", "architecture": "armhf"}, {}, "This Pi has an ARMv6 processor (Pi 1, Zero, Zero W)"),
        ({"distribution": "raspbian", "release": "bookworm"}, {}, ""),
        (
            {"release": "buster", "name": "Debian GNU/Linux 10 (buster)"},
            {},
            "This is Debian GNU/Linux 10 (buster); the stack runs on Raspberry Pi OS and Debian bookworm and trixie.",
        ),
        (
            {"distribution": "ubuntu", "release": "noble", "name": "Ubuntu 24.04"},
            {},
            "This is Ubuntu 24.04; the stack runs on",
        ),
        ({"free_mb": 999}, {}, "/var has 999 MB left, and the stack needs 1000 MB: make room"),
        ({"free_mb": 1000}, {}, ""),
    ],
)
def test_a_system_that_cannot_run_the_services_is_named(system, wanted, problem):
    found = host_facts.host_problems(PI | system, {}, **(WANTED | wanted))
    assert len(found) == bool(problem)
    assert "".join(found).startswith(problem)


@pytest.mark.parametrize(
    ("listeners", "problem"),
    [
        ([], ""),
        ([listener(1883, "udp"), listener(8883)], ""),
        ([listener(1883, units=["system.slice", "mosquitto.service"])], ""),
        (
            [listener(1883)],
            "Port 1883/tcp is needed by mosquitto.service, but used by python3 (process 17): stop that program, or",
        ),
        ([listener(1883), listener(1883, pid=18)], "Port 1883/tcp is needed by mosquitto.service"),
        (
            [listener(123, "udp", pid=0, program="", units=[])],
            "Port 123/udp is needed by chrony.service, but used by a program (process unknown)",
        ),
    ],
)
def test_a_port_that_another_program_uses_is_named_once(listeners, problem):
    found = host_facts.host_problems(PI, {"listeners": listeners}, **(WANTED | {"ports": [BROKER, TIME]}))
    assert len(found) == bool(problem)
    assert "".join(found).startswith(problem)


def test_all_problems_are_named_together():
    found = host_facts.host_problems(
        PI | {"release": "buster", "architecture": "i386", "free_mb": 0},
        {"listeners": [listener(1883)]},
        **(WANTED | {"ports": [BROKER]}),
    )
    assert len(found) == 4
