"""Which packages are missing, and which are newer than wanted, by the package facts."""

from __future__ import annotations

import itertools
import shutil
import subprocess

import pytest
from ansible_collections.tig_pi.stack.plugins.filter import packages


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
}


@pytest.fixture
def applied():
    filters = packages.FilterModule().filters()
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
