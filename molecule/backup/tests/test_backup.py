"""The role alone: its timer backs up by itself, in a sandbox, and what it finds wrong has a name."""

from __future__ import annotations

import json

import pytest

STATUS = "/var/lib/tig-pi/backup/status.json"
UNIT = "tig-pi-backup.service"
APP = "[Service]\\nExecStart=/bin/sleep infinity\\n"
CREATE = "import sqlite3; d = sqlite3.connect('/srv/app.db'); d.execute('CREATE TABLE IF NOT EXISTS entry (x)'); {}; d.commit()"


def entries(host, statement: str = "0") -> None:
    host.run_expect([0], "python3 -c %s", CREATE.format(statement))


@pytest.fixture(autouse=True)
def data(host):
    host.run_expect([0], "mkdir -p /srv/notes /dev/shm/stick && echo one >/srv/notes/note")
    host.run_expect([0], f"printf '{APP}' >/run/systemd/system/app.service && systemctl start app")
    entries(host)


def status(host) -> dict:
    return json.loads(host.file(STATUS).content_string)[0]


def test_a_host_whose_targets_are_removed_has_no_timer_and_no_key(host, converge):
    assert converge(backup_targets=[]).returncode == 0
    assert host.run("systemctl is-enabled tig-pi-backup.timer").stdout.strip() == "not-found"
    assert not host.service("tig-pi-backup.timer").is_running
    assert not host.file("/etc/tig-pi/backup.json").exists
    again = converge(backup_targets=[])
    assert " changed=0 " in again.stdout
    assert converge().returncode == 0
    assert host.service("tig-pi-backup.timer").is_running


def test_the_timer_is_enabled_and_waits(host):
    timer = host.service("tig-pi-backup.timer")
    assert timer.is_enabled
    assert timer.is_running
    shown = host.check_output("systemctl show --property=Persistent,RandomizedDelayUSec tig-pi-backup.timer")
    assert set(shown.split("\n")) == {"Persistent=yes", "RandomizedDelayUSec=30min"}


def test_only_root_reads_the_key(host):
    file = host.file("/etc/tig-pi/backup.json")
    assert (file.user, file.mode) == ("root", 0o600)


def test_a_backup_restores_what_was_changed_and_starts_what_it_stopped(host):
    entries(host, "d.execute('INSERT INTO entry VALUES (1)')")
    host.run_expect([0], f"systemctl start {UNIT}")
    assert status(host)["failed"] == 0
    before = host.check_output("systemctl show --property=MainPID app")
    entries(host, "d.execute('DELETE FROM entry')")
    host.run_expect([0], "echo two >/srv/notes/note")
    host.run_expect([0], "tig-pi-backup fetch && tig-pi-backup restore")
    assert host.file("/srv/notes/note").content_string == "one\n"
    entries(host, "assert d.execute('SELECT count(*) FROM entry').fetchone()[0] == 1")
    assert host.service("app").is_running
    assert host.check_output("systemctl show --property=MainPID app") != before


def test_a_backup_writes_almost_nothing_to_the_card(host):
    """Beside its state, which is a kilobyte."""
    host.run_expect([0], "head --bytes=50M /dev/urandom >/srv/notes/large; sync; touch /srv/before")
    host.run_expect([0], f"systemctl start {UNIT}")
    written = host.check_output(
        "find / -xdev -newer /srv/before -type f -size +20k -not -path '/srv/*' -not -path '/proc/*' -not -path '/sys/*'"
    )
    assert written == ""
    host.run_expect([0], "rm /srv/notes/large")


def test_a_missing_disk_is_named_in_the_journal_and_the_next_backup_succeeds(host):
    host.run_expect([0], f"systemctl start {UNIT}")
    host.run_expect([0], "mv /dev/shm/stick /dev/shm/unplugged")
    assert host.run(f"systemctl start {UNIT}").rc != 0
    assert status(host)["problem"] == "unreachable"
    assert "stick: unreachable: /dev/shm/stick does not exist" in host.check_output(
        f"journalctl --unit={UNIT} --output=cat"
    )
    host.run_expect([0], "mv /dev/shm/unplugged /dev/shm/stick")
    host.run_expect([0], f"systemctl start {UNIT}")
    assert status(host)["failed"] == 0


def test_a_directory_on_the_card_is_refused(host, converge):
    on_the_card = [{"name": "stick", "kind": "directory", "path": "/srv/notes"}]
    assert converge(backup_targets=on_the_card).returncode == 0
    assert host.run(f"systemctl start {UNIT}").rc != 0
    assert status(host)["problem"] == "on_the_card"
    assert converge().returncode == 0


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"backup_password": ""}, "backup_password is not set"),
        ({"backup_targets": [{"name": "x", "kind": "disk"}]}, "x is of kind disk and needs uuid or label"),
        ({"backup_targets": [{"name": "a b", "kind": "directory", "path": "/mnt"}]}, "'a b' is not a name"),
        (
            {
                "backup_targets": [
                    {"name": "x", "kind": "ssh", "host": "h", "user": "u", "host_key": "h ssh-ed25519 AA"}
                ]
            },
            "host_key of x is not a public key",
        ),
        ({"backup_sources": []}, "there is nothing to back up"),
    ],
)
def test_invalid_variables_are_refused(converge, variables, sentence):
    refused = converge(**variables)
    assert refused.returncode != 0
    assert sentence in " ".join(refused.stdout.split())


def test_each_tag_works_alone(tags_work_alone):
    timer = "/etc/systemd/system/tig-pi-backup.timer"
    tags_work_alone("backup", "backup_random_delay", ("10min", "30min"), timer, "RandomizedDelaySec={}")
