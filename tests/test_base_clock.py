"""The clock of a host that reaches no time server is set forward to the controller's, and never back."""

from __future__ import annotations

import time

import pytest
import yaml
from project import REPOSITORY

ROLE = REPOSITORY / "roles/base"
HOUR = 3600


@pytest.mark.parametrize(
    ("behind", "variables", "is_set"),
    [
        (300 * 24 * HOUR, {}, True),
        (10, {}, False),
        (-5 * 365 * 24 * HOUR, {}, False),
        (HOUR, {"base_set_clock": False}, False),
        (HOUR, {"base_ntp_adjust_clock": False}, False),  # a container has the clock of its host
    ],
)
def test_the_clock_is_only_set_forward(ansible_playbook, tmp_path, behind, variables, is_set):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/date").write_text(f'#!/bin/sh\necho "$@" >{tmp_path}/called\n')
    (tmp_path / "bin/date").chmod(0o755)
    play = {
        "hosts": "localhost",
        "gather_facts": False,
        "vars_files": [str(ROLE / "vars/main.yml")],
        "vars": {
            "base_set_clock": True,
            "base_ntp_adjust_clock": True,
            "__base_host": {"system": {"clock": int(time.time()) - behind}},
            **variables,
        },
        "environment": {"PATH": f"{tmp_path}/bin:/usr/bin:/bin"},
        "tasks": [{"name": "Set the clock", "ansible.builtin.import_tasks": str(ROLE / "tasks/clock.yml")}],
    }
    result = ansible_playbook(yaml.safe_dump([play]))
    assert result.returncode == 0, result.stdout
    assert (tmp_path / "called").exists() == is_set
    if is_set:
        option, moment = (tmp_path / "called").read_text().split("=@")
        assert option == "--utc --set"
        assert abs(int(moment) - time.time()) < HOUR / 2
