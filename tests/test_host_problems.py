"""What keeps the services from running on a host is reported, all of it at once."""

from __future__ import annotations

import pytest
from ansible_collections.tig_pi.stack.plugins.filter.host_problems import host_problems


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
    found = host_problems(PI | system, {}, **(WANTED | wanted))
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
    found = host_problems(PI, {"listeners": listeners}, **(WANTED | {"ports": [BROKER, TIME]}))
    assert len(found) == bool(problem)
    assert "".join(found).startswith(problem)


def test_all_problems_are_named_together():
    found = host_problems(
        PI | {"release": "buster", "architecture": "i386", "free_mb": 0},
        {"listeners": [listener(1883)]},
        **(WANTED | {"ports": [BROKER]}),
    )
    assert len(found) == 4
