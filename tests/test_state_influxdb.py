"""InfluxDB's state files after a power cut: a real server opens every one, with all that can still be read.

A sample; `bench/state-files` tries every file with every damage.
"""

from __future__ import annotations

import json
import shutil

import pytest
from state_services import Database, copied

ALL = {"old": 3000, "new": 3000, "log": 3000}


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Database:
    database = Database(tmp_path_factory.mktemp("sound"))
    try:
        database.make()
    finally:
        database.power_cut()
    return database


@pytest.fixture
def database(sound, tmp_path):
    made = copied(sound, tmp_path / "root")
    yield made
    made.power_cut()


def test_intact_files_are_not_changed(database):
    before = {path: path.read_bytes() for path in (database.files()["meta.db"], database.files()["data (.tsm)"])}
    result = database.run("start")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert {path: path.read_bytes() for path in before} == before
    assert database.report() == {"service": "influxdb", "damaged": [], "set_aside": []}
    assert database.start()
    assert database.there() == ALL


@pytest.mark.parametrize(
    ("name", "how", "kept"),
    [
        ("meta.db", "truncated", {}),
        ("write-ahead log", "garbage in the middle", {"log": range(2800, 2999)}),
        ("index: MANIFEST", "empty", {}),
        pytest.param("write-ahead log", "NULs", {"log": [0]}, marks=pytest.mark.slow),
        pytest.param("data (.tsm)", "garbage", {"new": [0]}, marks=pytest.mark.slow),
        pytest.param("index: log (.tsl)", "NULs", {}, marks=pytest.mark.slow),
        pytest.param("index: log (.tsl)", "empty", {}, marks=pytest.mark.slow),
        pytest.param("fields.idx", "truncated", {}, marks=pytest.mark.slow),
        pytest.param("series", "truncated", {}, marks=pytest.mark.slow),
        pytest.param("series", "garbage", {}, marks=pytest.mark.slow),
    ],
)
def test_the_database_starts_with_every_readable_point(database, name, how, kept):
    damaged = database.damage(database.files()[name], how)
    result = database.run("start")
    assert result.returncode == 0, result.stderr
    if how != "empty" or name != "index: log (.tsl)":  # which may be empty: it is made again without a word
        assert "Lost: " in result.stdout
        copies = [database.path(note["copy"]) for note in database.report()["set_aside"]]
        files = [path for copy in copies for path in (copy, *copy.rglob("*")) if path.is_file()]
        assert damaged in [path.read_bytes() for path in files]
    assert database.report()["damaged"] == []
    assert database.start(), database.database.log.read_text()
    for device, count in database.there().items():
        assert count in kept.get(device, [ALL[device]]), device


def test_the_time_span_of_lost_points_is_reported(database):
    """Of the log: from the last point before the gap to the first one after it."""
    database.damage(database.files()["write-ahead log"], "garbage in the middle")
    (lost,) = [line.partition("Lost: ")[2] for line in database.run("start").stdout.splitlines()]
    assert lost.startswith("points that were written from 2")
    assert " to 2" in lost


@pytest.mark.slow
def test_every_block_of_a_data_file_with_a_truncated_index_is_kept(database):
    path = database.files()["data (.tsm)"]
    path.write_bytes(path.read_bytes()[:-8] + bytes(8))
    assert "readable blocks are kept" in database.run("start").stdout
    assert database.start()
    assert database.there() == ALL


@pytest.mark.slow
def test_shards_that_are_newer_than_the_second_copy_are_found(database, tmp_path):
    """The copy is of the time before the first point."""
    young = Database(tmp_path / "young")
    young.root.mkdir()
    assert young.start()
    try:
        young.query("CREATE USER admin WITH PASSWORD 'secret' WITH ALL PRIVILEGES", login=False)
        young.query("CREATE DATABASE iot")
    finally:
        young.power_cut()
    copy = database.path("/var/lib/tig-pi/influxdb/copies/meta.db")
    shutil.copy(young.path(f"{young.directory}/meta/meta.db"), copy)
    database.damage(database.files()["meta.db"], "NULs")
    assert "with 2 newer shards" in database.run("start").stdout
    assert database.start()
    assert database.there() == ALL


def test_without_a_second_copy_the_database_stays_down_until_it_is_repaired(database):
    """A server without accounts would let everybody in."""
    listen = database.path("/var/lib/influxdb/listen.env")
    listen.write_text("INFLUXDB_HTTP_BIND_ADDRESS=:8086\n")
    shutil.rmtree(database.path("/var/lib/tig-pi/influxdb/copies"))
    path = database.files()["meta.db"]
    database.damage(path, "garbage")
    result = database.run("start")
    assert result.returncode == 1
    assert "run make repair" in result.stdout
    (waits,) = database.report()["damaged"]
    assert waits["file"] == "/var/lib/influxdb/meta/meta.db"
    before = path.read_bytes()
    plan = json.loads(database.run("plan").stdout)
    assert [finding["file"] for finding in plan["found"]] == ["/var/lib/influxdb/meta/meta.db"]
    assert path.read_bytes() == before
    repaired = json.loads(database.run("repair").stdout)
    assert repaired["left"] == []
    assert database.report()["damaged"] == []
    assert not listen.exists()
    assert database.run("start").returncode == 0
    assert database.start()
    database.query("CREATE USER admin WITH PASSWORD 'secret' WITH ALL PRIVILEGES", login=False)
    assert database.there() == ALL
