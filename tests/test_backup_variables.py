"""What role `backup` refuses in its variables, and what people read about backups."""

from __future__ import annotations

import json
import re
import time

import pytest
from ansible_collections.tig_pi.stack.plugins.filter.backup import (
    archive_age,
    backup_line,
    backup_notes,
    backup_problems,
    backup_targets,
    controller_repository,
    drill_differences,
    drill_record,
    last_backup,
    newest_archive,
    unasked_targets,
)
from project import REPOSITORY

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
        {"stdout": reported([GOOD, {**BAD, "succeeded": 5}])},
        {"stdout": reported([])},
        {"stdout": "?"},
        {"skipped": True},
    ]
    assert [last_backup(result) for result in results] == [1000, 0, 0, 0]


def reported(targets: list[dict], **aside) -> str:
    """What `tig-pi-backup status` prints."""
    nothing = {"directories": [], "bytes": 0, "keep_days": 30}
    return json.dumps({"targets": targets, "before_restore": nothing | aside})


def test_the_notes_name_the_host():
    found = {
        "pi": {"rc": 0, "stdout": reported([{**GOOD, "proven": 1000}])},
        "data": {"rc": 0, "stdout": reported([])},
        "broken": {"rc": 2, "stdout": "", "stderr": "no such file"},
        "other": {"skipped": True},
    }
    notes = backup_notes(found, 1060, ["pi", "data"])
    assert notes[0].startswith("Backup of pi to stick: last backup 60 s ago")
    assert "data: none yet" in notes[1]
    assert "broken: the program does not run: no such file" in notes[2]
    assert len(notes) == 3


def test_the_notes_name_a_device_that_has_yet_to_send_its_readings_again():
    told = json.dumps(json.loads(reported([{**GOOD, "proven": 1000}])) | {"owing": ["garage", "removed"]})
    notes = backup_notes({"pi": {"rc": 0, "stdout": told}}, 1060, ["pi"], ["garage", "cellar"])
    assert "garage has not sent its readings" in notes[1]
    assert "make replay DEVICE=garage" in notes[1]
    assert "removed" not in str(notes)


def test_the_notes_name_what_is_missing_around_the_backups():
    aside = {"directories": ["before-restore-20260101T000000"], "bytes": 5e6, "keep_days": 30}
    found = {"pi": {"rc": 0, "stdout": reported([GOOD], **aside)}}
    _, unproven, replaced, no_alert = backup_notes(found, 1060, ["other"])
    assert "no restore was proven yet" in unproven
    assert "takes 5.0 MB" in replaced
    assert "before-restore-20260101T000000" in replaced
    assert "no alert" in no_alert


def test_a_late_backup_and_a_late_or_failed_drill_are_in_the_line_of_the_target():
    day = 86400
    late = {**GOOD, "since": 0, "late_after": 7 * day}
    assert "LATE" not in backup_line(late, 1000 + 7 * day)
    assert "LATE: it should be made at least every 7 days" in backup_line(late, 1000 + 8 * day)
    never = {"target": "laptop", "failed": 0, "succeeded": 0, "since": 1000, "late_after": 7 * day}
    assert backup_line(never, 1060) == "laptop: no backup yet"
    assert "LATE" in backup_line(never, 1000 + 8 * day)
    proven = {**GOOD, "proven": 1000, "drill_late_after": 60 * day}
    assert backup_line(proven, 1000 + 3 * day).endswith("; last proven restore 3 d ago")
    assert "run make drill" in backup_line(proven, 1000 + 61 * day)
    failed = {**proven, "drill_failed": 1, "drill_text": "Grafana has no user mats"}
    assert "the last drill failed: Grafana has no user mats" in backup_line(failed, 1060)
    # Both hold: what the archive lacks, and that nobody knows more since.
    aborted = {**failed, "drill_aborted": 1, "drill_aborted_text": "no image"}
    line = backup_line(aborted, 1000 + 61 * day)
    assert line.endswith("failed: Grafana has no user mats; the last drill could not be carried out: no image")
    assert "run make drill" in backup_line({**aborted, "drill_failed": 0}, 1000 + 61 * day)


def test_a_single_archive_is_not_archives():
    assert "; 1 archive, 12 s" in backup_line({**GOOD, "archives": 1}, 1060)


ARCHIVE = {"target": "stick", "time": "2026-11-29T03:00:00Z", "archive": "aaaa"}


@pytest.mark.parametrize(
    ("result", "archive", "record"),
    [
        ({"problem": ""}, ARCHIVE, {"what": "drill", "target": "stick", "time": ARCHIVE["time"]}),
        ({"problem": "bad", "hosts": ["pi"]}, ARCHIVE, {"what": "drill", "target": "stick"}),
        ({"problem": "bad"}, ARCHIVE, {"what": "drill", "target": "stick"}),
        ({"problem": "bad", "hosts": ["other"]}, ARCHIVE, {"what": "aborted drill", "target": "stick"}),
        ({"problem": "no image", "aborted": True}, ARCHIVE, {"what": "aborted drill", "target": "stick"}),
        ({"problem": "no archive", "aborted": True}, {}, {"what": "aborted drill", "target": "asked"}),
    ],
)
def test_a_drill_is_recorded_with_the_host_and_the_archive_that_it_concerns(result, archive, record):
    result = {"aborted": False, "hosts": []} | result
    found = drill_record(result, "pi", archive, "asked")
    assert {key: found[key] for key in record} == record
    assert found.get("problem", ["drill", ""])[1] == result["problem"]


def test_a_target_has_more_time_on_the_controller_and_as_much_as_is_declared():
    laptop = {"name": "laptop", "kind": "controller"}
    targets = backup_targets([STICK, laptop, {**laptop, "late_after_days": 30}], "key")
    assert [target["late_after"] // 86400 for target in targets] == [2, 7, 30]
    assert controller_repository(laptop, "home", "pi") == "~/tig-pi-backups/home/pi"
    assert controller_repository({**laptop, "path": "/mnt/x/"}, "home", "pi") == "/mnt/x/home/pi"
    assert backup_problems([laptop], [NOTES], "password", "") == []


def test_the_newest_archive_that_was_checked_is_chosen_wherever_it_is():
    lines = [
        "stick aaaa 2026-11-28T03:00:00.123456789+01:00",
        "stick bbbb 2026-11-29T03:00:00.5+01:00 (not checked)",
    ]
    kept = {"laptop": [["2026-11-28T02:30:00.123456789Z", "cccc", "here"]]}
    assert newest_archive(lines, kept) == {
        "time": "2026-11-28T02:30:00.123456789Z",
        "target": "laptop",
        "archive": "cccc",
        "controller": True,
        "machine": "here",
    }
    assert newest_archive(lines, {})["archive"] == "aaaa"
    assert newest_archive(lines, kept, "aaaa")["target"] == "stick"
    assert newest_archive(lines, kept, "bbbb") == {}
    kept["laptop"].append(["2026-11-27T02:30:00Z", "dddd", "before"])
    assert newest_archive([], kept, "", "here")["archive"] == "dddd"
    assert newest_archive([], kept, "", "third")["archive"] == "cccc"
    # Another target has only one that the new card has made.
    kept["desk"] = [["2026-11-30T02:30:00Z", "eeee", "here"]]
    assert newest_archive([], kept, "", "here")["archive"] == "dddd"
    assert newest_archive(["stick {{1}} 2026-11-29T03:00:00Z", "a message"], {}) == {}


def test_what_the_services_of_a_drill_lack_is_named():
    names = {"dashboard": ["own"], "user": ["mats"], "flows.json": ["1", "2"]}
    comparison = {"differences": ["influxdb: value of m: 1 points instead of 2"], "names": names}
    assert drill_differences(comparison, [{"uid": "own"}], [{"login": "mats"}], [{"id": "1"}, {"id": "3"}]) == [
        "influxdb: value of m: 1 points instead of 2",
        "Node-RED has no node 2",
    ]
    assert drill_differences(
        {**comparison, "differences": []}, [], [{"login": "mats"}], [{"id": "1"}, {"id": "2"}]
    ) == ["Grafana has no dashboard own"]


def test_targets_that_could_not_be_asked_are_named():
    fetched = {"rc": 0, "stdout": json.dumps({"begun": 0, "problems": {"stick": "unreachable: is it plugged in?"}})}
    kept = [
        {"item": {"name": "laptop"}, "rc": 1, "stderr": "no_repository: there is no repository\n"},
        {"item": {"name": "desk"}, "rc": 0, "stderr": ""},
    ]
    assert unasked_targets(fetched) == ["stick: unreachable: is it plugged in?"]
    assert unasked_targets(fetched, kept)[1:] == ["laptop: no_repository: there is no repository"]
    for other in ({"skipped": True}, {"rc": 1, "stdout": "", "stderr": "no_archive: none"}, {"rc": 0, "stdout": "{}"}):
        assert unasked_targets(other) == []
    failed = (
        "older: nas: the newest archive is of 2026-11-01\nunreachable: stick: is it plugged in?\nlocked: another run\n"
    )
    assert unasked_targets({"rc": 1, "stdout": "", "stderr": failed}, kept) == [
        "stick: unreachable: is it plugged in?",
        "locked: another run",
        "laptop: no_repository: there is no repository",
    ]


@pytest.mark.parametrize(
    ("by_host", "target", "said"),
    [
        ({"rc": 0, "stdout": '{"problems": {}}'}, "stick", "of stick."),
        (
            {"rc": 0, "stdout": '{"problems": {"nas": "unreachable: no route"}}'},
            "stick",
            "of stick. These targets may have a newer one that cannot be read: nas: unreachable: no route",
        ),
        (
            {"rc": 1, "stdout": "", "stderr": "older: stick: the newest archive is of …\nunreachable: nas: no route"},
            "controller",
            "of laptop. These targets may have a newer one that cannot be read: nas: unreachable: no route",
        ),
        ({"skipped": True}, "controller", "of laptop."),
    ],
)
def test_one_message_has_the_archive_and_the_targets_that_may_have_a_newer_one(
    ansible_playbook, tmp_path, by_host, target, said
):
    (tmp_path / "tasks").symlink_to(REPOSITORY / "playbooks/tasks")
    archive = json.dumps({"begun": time.time() - 3 * 3600, "target": target, "problems": {}})
    variables = {
        "__fetched": {"rc": 0, "stdout": archive},
        "__fetched_by_host": by_host,
        "__fetched_later": {"skipped": True},
        "archive_chosen": {"target": "laptop"},
        "__from_here": "skipped" in by_host,
        "__here": [{"name": "laptop"}],
    }
    tasks = [{"ansible.builtin.import_tasks": "tasks/fetch_archive.yml"}]
    play = {"hosts": "localhost", "gather_facts": False, "vars": variables, "tasks": tasks}
    result = ansible_playbook(json.dumps([play]), "--tags=report")
    assert result.returncode == 0, result.stdout
    shown = " ".join(result.stdout.split()).partition("Restoring the archive of ")[2].partition(" PLAY RECAP")[0]
    assert re.fullmatch(rf"\S+ \S+ \(3 h ago\) {re.escape(said)}'?", shown), result.stdout


def test_an_archive_is_never_of_the_future():
    assert archive_age({"begun": 1000}, 1000 + 3 * 86400.5) == "3 d ago"
    assert archive_age({"begun": 1000}, 400.5) == "0 s ago"
