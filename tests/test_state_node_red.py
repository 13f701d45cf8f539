"""Node-RED's files after a power cut."""

from __future__ import annotations

import json

import pytest
from state_services import DAMAGE, Flows, copied


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Flows:
    made = Flows(tmp_path_factory.mktemp("sound"))
    made.make()
    return made


@pytest.fixture
def flows(sound, tmp_path) -> Flows:
    return copied(sound, tmp_path / "root")


def test_intact_files_are_not_changed(flows):
    before = {path: path.read_bytes() for path in flows.files().values()}
    result = flows.run("start")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize("how", DAMAGE)
def test_readable_content_is_kept(flows, how):
    for name, path in flows.files().items():
        damaged = flows.damage(path, how)
        result = flows.run("start")
        assert result.returncode == 0, result.stderr
        assert f"<4>/var/lib/node-red/{name} is " in result.stdout
        copies = [flows.path(note["copy"]).read_bytes() for note in flows.report()["set_aside"]]
        assert damaged in copies
        assert flows.run("start").stdout == ""
    assert flows.report()["damaged"] == []
    there = flows.there()
    assert there["nodes"] >= flows.nodes - 1  # the last one is not in the version before
    assert there["credentials"] == 1
    if how in ("truncated", "NULs at the end"):
        assert there["values"] > flows.values * 0.4


@pytest.mark.parametrize("name", ["flows.json", "flows_cred.json"])
def test_without_a_previous_version_the_site_s_flows_are_needed(flows, name):
    for path in flows.path(flows.directory).glob(".*.backup"):
        path.unlink()
    path = flows.files()[name]
    before = flows.damage(path, "NULs")
    result = flows.run("start")
    assert result.returncode == 0  # Node-RED runs without
    assert "run make repair" in result.stdout
    assert path.read_bytes() == before
    (waits,) = flows.report()["damaged"]
    assert waits["file"] == f"/var/lib/node-red/{name}"
    assert json.loads(flows.run("repair").stdout)["left"] == []
    assert not path.exists()
    assert flows.report()["damaged"] == []
