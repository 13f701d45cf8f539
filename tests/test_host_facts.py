"""What the roles make of the facts about packages and services."""

from __future__ import annotations

import pytest
from ansible.plugins.loader import filter_loader
from conftest import REPOSITORY


def package(version: str) -> list[dict]:
    return [{"name": "", "version": version, "arch": "arm64", "source": "apt"}]


FACTS = {
    "packages": {"telegraf": package("1.39.3-1"), "grafana": package("12.4.1"), "mosquitto": package("2.0.21-1")},
    "services": {
        "telegraf.service": {"state": "running", "status": "enabled"},
        "grafana-server.service": {"state": "running", "status": "disabled"},
        "mosquitto.service": {"state": "stopped", "status": "enabled"},
    },
}


@pytest.fixture
def applied():
    filter_loader.add_directory(str(REPOSITORY / "plugins/filter"))

    def apply(name, *arguments):
        return filter_loader.get(name).j2_function(*arguments)

    return apply


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
    ],
)
def test_a_package_is_absent_unmet_or_newer(applied, wanted, absent, unmet, newer):
    for name, expected in (("absent_packages", absent), ("unmet_packages", unmet), ("newer_packages", newer)):
        assert applied(name, [wanted], FACTS) == ([wanted] if expected else []), name


def test_a_version_that_cannot_be_compared_counts_as_newer(applied):
    facts = {"packages": {"telegraf": package("1.39.rc1")}}
    assert applied("newer_packages", ["telegraf=1.39.3"], facts) == ["telegraf=1.39.3"]


def test_a_service_is_up_when_it_runs_and_is_enabled(applied):
    assert applied("service_is_up", FACTS, "telegraf.service")
    for unit in ("grafana-server.service", "mosquitto.service", "influxdb.service"):
        assert not applied("service_is_up", FACTS, unit), unit
    assert not applied("service_is_up", {}, "telegraf.service")
