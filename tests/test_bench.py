"""The programs in bench/ fit the project as it is: they are run by hand, and seldom."""

from __future__ import annotations

import ast
import re

import pytest
from project import REPOSITORY, load

PROGRAMS = sorted(path.name for path in (REPOSITORY / "bench").iterdir() if path.is_file() and not path.suffix)


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_can_be_imported(name):
    assert callable(load(f"bench/{name}").main)


def test_a_rebuild_is_killed_in_each_of_its_steps():
    test = (REPOSITORY / "molecule/rebuild/tests/test_rebuild.py").read_text()
    moments = ast.literal_eval(re.search(r"^KILL = (.*)$", test, re.MULTILINE)[1])
    assert [*moments] == [*range(1, len(load("bench/rebuild").steps()) + 1)]
