"""What `make verify` says of a link that is broken."""

from __future__ import annotations

import pytest
import yaml
from ansible_collections.tig_pi.stack.plugins.filter import verify
from conftest import REPOSITORY

LINK = {"unit": "telegraf.service", "group": "collectors", "expected": "a point"}
PLAYBOOK = yaml.safe_load((REPOSITORY / "playbooks/verify.yml").read_text())


@pytest.mark.parametrize(
    ("result", "said"),
    [
        ({"status": 200, "msg": "OK (unknown bytes)", "json": {"results": []}}, 'HTTP 200: {"results": []}'),
        ({"status": 401, "msg": "Status code was 401 and not [200]", "content": "locked"}, "HTTP 401: locked"),
        ({"status": 204, "msg": "OK (0 bytes)"}, "HTTP 204"),
        ({"status": -1, "msg": "Status code was -1 and not [401]: Connection refused"}, "Connection refused"),
        ({"msg": "nothing came"}, "nothing came"),
    ],
)
def test_what_came_is_said_and_not_that_it_was_ok(result, said):
    lines = verify.link_problem(result, LINK, "pi", ["no space left", "again"]).splitlines()
    assert lines == [
        "Expected: a point",
        f"Found: {said}",
        "telegraf.service on pi said last:",
        "  no space left",
        "  again",
        "Look there: sudo journalctl --unit=telegraf.service, on pi",
    ]


def test_a_long_answer_is_cut_short():
    assert len(verify.http_answer({"status": 200, "content": "x" * 10_000})) < 500


def test_every_link_says_what_is_expected_and_of_which_service():
    (block,) = [task for play in PLAYBOOK for task in play.get("tasks", []) if "block" in task]
    links = [task for task in block["block"] if task.get("tags") != ["quiet"]]
    assert len(links) >= 12
    for link in links:
        assert {"unit", "group", "expected"} <= set(link["vars"]), link["name"]
