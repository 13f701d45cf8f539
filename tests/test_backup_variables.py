"""What role `backup` refuses in its variables, and what people read about backups."""

from __future__ import annotations

import json

import pytest
from ansible_collections.tig_pi.stack.plugins.filter.backup import (
    backup_line,
    backup_notes,
    backup_problems,
    last_backup,
)

STICK = {"name": "stick", "kind": "disk", "label": "BACKUP"}
ATTIC = {"name": "attic", "kind": "ssh", "host": "attic", "user": "backup", "host_key": "ssh-ed25519 AAAAC3Nz"}
NOTES = {"name": "notes", "kind": "directory", "path": "/srv/notes"}


def test_sound_variables_have_no_problem():
    assert backup_problems([STICK, ATTIC], [NOTES], "password", "key") == []
    assert backup_problems([], [], "", "") == []


@pytest.mark.parametrize(
    ("targets", "sources", "password", "key", "problem"),
    [
        ([STICK, STICK], [NOTES], "p", "", "the name stick occurs twice"),
        ([{**STICK, "name": "../x"}], [NOTES], "p", "", "is not a name"),
        ([{"name": "x", "kind": "disk"}], [NOTES], "p", "", "needs uuid or label"),
        ([{"name": "x", "kind": "directory"}], [NOTES], "p", "", "needs path"),
        ([{**ATTIC, "user": ""}], [NOTES], "p", "k", "needs user"),
        ([{**ATTIC, "host_key": "attic ssh-ed25519 AAAA"}], [NOTES], "p", "k", "host_key of attic is not a public key"),
        ([ATTIC], [NOTES], "p", "", "backup_ssh_key is not set"),
        ([STICK], [], "p", "", "there is nothing to back up"),
        ([STICK], [NOTES], "", "", "backup_password is not set"),
        (
            [STICK],
            [{"name": "db", "kind": "influxdb", "url": "u", "user": "a"}],
            "p",
            "",
            "db is of kind influxdb and needs password",
        ),
    ],
)
def test_a_problem_names_the_variable_and_the_entry(targets, sources, password, key, problem):
    (found,) = backup_problems(targets, sources, password, key)
    assert problem in found
    assert found.startswith("backup_")


GOOD = {
    "target": "stick",
    "failed": 0,
    "succeeded": 1000,
    "bytes": 5e6,
    "bytes_added": 1e5,
    "archives": 3,
    "seconds": 12.3,
}
BAD = {"target": "stick", "failed": 1, "succeeded": 1000, "problem": "disk_full", "text": "the target is full"}


def test_the_status_tells_age_size_and_problem():
    assert (
        backup_line(GOOD, 1000 + 3 * 86400)
        == "stick: last backup 3 d ago, 5.0 MB, 0.1 MB of them new; 3 archives, 12 s"
    )
    assert (
        backup_line(BAD, 8200) == "stick: last backup 2 h ago; the last attempt failed: disk_full: the target is full"
    )
    assert backup_line({**BAD, "succeeded": 0}, 8200).startswith("stick: no backup yet; ")


def test_the_last_backup_is_the_newest_of_all_targets():
    results = [
        {"stdout": json.dumps([GOOD, {**BAD, "succeeded": 5}])},
        {"stdout": "[]"},
        {"stdout": "?"},
        {"skipped": True},
    ]
    assert [last_backup(result) for result in results] == [1000, 0, 0, 0]


def test_the_notes_name_the_host():
    found = {
        "pi": {"rc": 0, "stdout": json.dumps([GOOD])},
        "data": {"rc": 0, "stdout": "[]"},
        "broken": {"rc": 2, "stdout": "", "stderr": "no such file"},
        "other": {"skipped": True},
    }
    notes = backup_notes(found, 1060)
    assert notes[0].startswith("Backup of pi to stick: last backup 60 s ago")
    assert "data: none yet" in notes[1]
    assert "broken: the program does not run: no such file" in notes[2]
    assert len(notes) == 3
