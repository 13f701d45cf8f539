"""Grafana's database after a power cut, as SQLite has it."""

from __future__ import annotations

import json

import pytest
from state_services import DAMAGE, Dashboards, copied


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Dashboards:
    made = Dashboards(tmp_path_factory.mktemp("sound"))
    made.make()
    return made


@pytest.fixture
def grafana(sound, tmp_path) -> Dashboards:
    return copied(sound, tmp_path / "root")


def test_an_intact_database_is_not_changed(grafana):
    before = grafana.path(grafana.database).read_bytes()
    result = grafana.run("start")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert grafana.path(grafana.database).read_bytes() == before


@pytest.mark.parametrize("how", DAMAGE)
def test_every_readable_row_is_kept(grafana, how):
    damaged = grafana.damage(grafana.path(grafana.database), how)
    result = grafana.run("start")
    assert result.returncode == 0, result.stdout + result.stderr
    assert grafana.report()["damaged"] == []
    (aside,) = grafana.report()["set_aside"]
    assert grafana.path(aside["copy"]).read_bytes() == damaged
    assert "Lost: " in result.stdout
    there = grafana.there()
    if how in ("empty", "NULs", "garbage"):
        assert there["dashboards"] == 0
    else:
        assert there["migrations"] == 300
        assert there["dashboards"] > {"garbage in the middle": 1900}.get(how, 800)
    assert grafana.run("start").stdout == ""


def test_a_database_without_which_grafana_cannot_start_waits_for_repair(grafana):
    """Of what Grafana knows of its own tables a page is gone."""
    path = grafana.path(grafana.database)
    content = path.read_bytes()
    begin = content.index(b"m200") // 4096 * 4096
    path.write_bytes(content[:begin] + bytes(4096) + content[begin + 4096 :])
    result = grafana.run("start")
    assert result.returncode == 1
    (waits,) = grafana.report()["damaged"]
    assert waits["file"] == grafana.database
    assert json.loads(grafana.run("plan").stdout)["found"]
    assert json.loads(grafana.run("repair").stdout)["left"] == []
    assert grafana.report()["damaged"] == []
    assert grafana.run("start").returncode == 0
