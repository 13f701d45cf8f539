"""What `make verify` reports on a check that failed."""

from __future__ import annotations

import pytest
import yaml
from ansible_collections.tig_pi.stack.plugins.filter import verify
from project import REPOSITORY

PLAYBOOK = yaml.safe_load((REPOSITORY / "playbooks/verify.yml").read_text())
SERVICES = yaml.safe_load((REPOSITORY / "playbooks/group_vars/all/20_derived.yml").read_text())[
    "site_services_by_group"
]


@pytest.mark.parametrize(
    ("result", "found"),
    [
        ({"status": 200, "msg": "OK (unknown bytes)", "json": {"results": []}}, 'HTTP 200: {"results": []}'),
        ({"status": 401, "msg": "Status code was 401 and not [200]", "content": "locked"}, "HTTP 401: locked"),
        ({"status": 204, "msg": "OK (0 bytes)"}, "HTTP 204"),
        ({"status": -1, "msg": "Status code was -1 and not [401]: Connection refused"}, "Connection refused"),
        ({"msg": "no such point"}, "no such point"),
    ],
)
def test_the_report_has_the_response_and_the_messages_of_the_service(result, found):
    report = verify.failed_check(result, "a point", "telegraf.service", "pi", ["no space left", "again"])
    assert report.splitlines() == [
        "Expected: a point",
        f"Found: {found}",
        "Last messages of telegraf.service on pi:",
        "  no space left",
        "  again",
        "Its log: sudo journalctl --unit=telegraf.service, on pi",
    ]


def test_a_failure_without_a_service_has_its_reason():
    assert verify.failed_check({"msg": "an undefined variable"}, "", "", "pi", []) == "Found: an undefined variable"


def test_a_long_response_is_truncated():
    assert len(verify.http_answer({"status": 200, "content": "x" * 10_000})) < 500


def test_every_check_names_its_service_and_what_is_expected():
    (block,) = [task for play in PLAYBOOK for task in play.get("tasks", []) if "block" in task]
    checks = [task for task in block["block"] if task.get("tags") != ["quiet"]]
    assert len(checks) >= 12
    for check in checks:
        assert check["vars"]["service"] in SERVICES, check["name"]
        assert check["vars"]["expected"], check["name"]
