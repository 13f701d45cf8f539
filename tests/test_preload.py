"""The collection's filters and lookups are loaded once for a run, and not by the process of each task."""

from __future__ import annotations

import re

from project import REPOSITORY

PLAYBOOK = "[{hosts: localhost, gather_facts: false, tasks: [{ansible.builtin.debug: {msg: one}}]}]"


def test_the_first_process_loads_them(ansible_playbook):
    """Only what this process has loaded is printed, at its end: those of the tasks have no standard error."""
    result = ansible_playbook(PLAYBOOK, environment={"PYTHONVERBOSE": "1"})
    loaded = re.findall(
        r"removing ansible_collections\.tig_pi\.stack\.plugins\.(\w+)\.(\w+)$", result.stderr, re.MULTILINE
    )
    for kind in ("filter", "lookup"):
        present = {path.stem for path in REPOSITORY.glob(f"plugins/{kind}/*.py")}
        assert present == {name for found, name in loaded if found == kind}
