"""Shards of InfluxDB that cannot be copied: those that nothing was written to, and what is an error."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from project import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "roles/backup/files"))
from tig_backup import Problem, influxdb

# InfluxDB creates a shard half an hour before its time. It is listed, but has no files until something is written to it.
SHARD = {"id": 5, "database": "iot", "policy": "autogen", "start": 0, "end": 10}


class Server(influxdb.Database):
    """A server that lists the shard, and whose program answers as that of InfluxDB 1.13.2."""

    def __init__(self, folder: Path, listed: list[dict], contents: dict | None = None) -> None:
        super().__init__({"url": "", "user": "", "password": "", "data": str(folder / "data")}, folder)
        self.listed, self.found = listed, contents or {}

    def contents(self, shard: dict, until: int) -> dict:
        return self.found

    def shards(self, database: str = "") -> list[dict]:
        return self.listed


@pytest.fixture(autouse=True)
def influxd(monkeypatch):
    def run(command, **_):
        said = "2026/11/30 00:14:37 backing up metastore to /tmp/meta.00\n"
        reason = "2026/11/30 00:14:37 backup failed: did not find shard 5\nbackup: did not find shard 5\n"
        return subprocess.CompletedProcess(command, 1, said, reason)

    monkeypatch.setattr(influxdb.subprocess, "run", run)


def test_a_shard_without_files_is_left_out(tmp_path):
    assert influxdb._copied(Server(tmp_path, [SHARD]), SHARD, 10) is None


def test_a_shard_whose_retention_has_ended_is_left_out(tmp_path):
    (tmp_path / "data/iot/autogen/5").mkdir(parents=True)
    assert influxdb._copied(Server(tmp_path, []), SHARD, 10) is None


def test_a_shard_with_files_is_not(tmp_path):
    (tmp_path / "data/iot/autogen/5").mkdir(parents=True)
    with pytest.raises(Problem, match="influxd backup fails: backup: did not find shard 5"):
        influxdb._copied(Server(tmp_path, [SHARD]), SHARD, 10)


def test_a_shard_with_points_whose_files_are_not_found_is_an_error(tmp_path):
    """The data may be in another directory than declared, and must not be missing from the backup for that."""
    points = {"m": {"device=a": {"value": {"count": 1}}}}
    with pytest.raises(Problem, match="did not find shard 5"):
        influxdb._copied(Server(tmp_path, [SHARD], points), SHARD, 10)


def test_a_shard_whose_first_point_arrives_meanwhile_is_tried_again(tmp_path, monkeypatch):
    """It arrives between InfluxDB's answer that it has no such shard, and the look for its files."""
    server = Server(tmp_path, [SHARD])
    attempts = []

    def back_up(shard):
        attempts.append(shard)
        if len(attempts) == 1:
            (tmp_path / "data/iot/autogen/5").mkdir(parents=True)
            raise Problem("database", "influxd backup fails: backup: did not find shard 5")
        return {"files": []}

    monkeypatch.setattr(server, "back_up", back_up)
    assert influxdb._copied(server, SHARD, 10) == ({"files": []}, {}, True)
    assert len(attempts) == 2
