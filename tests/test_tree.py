"""The tree module: all or nothing, true in check mode, silent about secrets."""

from __future__ import annotations

import getpass
import grp
import os
import stat
import time

import pytest
import yaml

OWNER = {"owner": getpass.getuser(), "group": grp.getgrgid(os.getgid()).gr_name}


@pytest.fixture
def tree(ansible_playbook, tmp_path):
    def run(files, *options, **arguments):
        files = [{**OWNER, **file} for file in files]
        task = {"name": "Write", "tig_pi.stack.tree": {"files": files, **arguments}}
        play = [{"hosts": "localhost", "gather_facts": False, "tasks": [task]}]
        return ansible_playbook(yaml.safe_dump(play), *options)

    return run


def test_declared_files_are_written_and_a_second_run_changes_nothing(tree, tmp_path):
    template = tmp_path / "a.j2"
    template.write_text("{{ ansible_managed | comment }}\n    {% if n == 3 %}\nn is {{ n }}\n    {% endif %}\n")
    files = [
        {"dest": f"{tmp_path}/out/a", "template": str(template), "vars": {"n": 3}, "mode": "0640"},
        {"dest": f"{tmp_path}/out/b", "content": "b\n"},
        {"dest": f"{tmp_path}/out/folder", "directory": True},
    ]
    assert "changed=1" in tree(files).stdout
    assert (tmp_path / "out/a").read_text().splitlines()[-1] == "n is 3"
    assert stat.S_IMODE((tmp_path / "out/a").stat().st_mode) == 0o640
    assert (tmp_path / "out/folder").is_dir()
    assert "changed=0" in tree(files).stdout


def test_a_copy_has_the_same_content_and_mode_as_its_file(tree, tmp_path):
    files = [{"dest": f"{tmp_path}/out/a", "content": "a\n", "mode": "0600", "copy_to": f"{tmp_path}/out/copies/a"}]
    out = tree(files, "--check", "--diff").stdout
    assert out.count("+a") == 2
    tree(files)
    for path in (tmp_path / "out/a", tmp_path / "out/copies/a"):
        assert path.read_text() == "a\n"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "changed=0" in tree(files).stdout


def test_check_mode_reports_changes_and_changes_nothing(tree, tmp_path):
    out = tree([{"dest": f"{tmp_path}/out/a", "content": "new\n", "owner": "nobody-yet"}], "--check", "--diff").stdout
    assert "changed=1" in out
    assert "+new" in out
    assert not (tmp_path / "out").exists()


def test_a_missing_owner_is_named(tree, tmp_path):
    result = tree([{"dest": f"{tmp_path}/a", "content": "x", "owner": "nobody-yet"}])
    assert "there is no user nobody-yet" in result.stdout
    assert not (tmp_path / "a").exists()


def test_no_file_is_written_if_one_is_refused(tree, tmp_path):
    (tmp_path / "kept").write_text("old\n")
    files = [
        {"dest": f"{tmp_path}/kept", "content": "new\n"},
        {"dest": f"{tmp_path}/bad", "content": "bad\n", "validate": "grep -q good %s"},
    ]
    result = tree(files)
    assert result.returncode != 0
    assert "grep refuses" in result.stdout
    assert (tmp_path / "kept").read_text() == "old\n"
    assert not (tmp_path / "bad").exists()


def test_all_files_are_validated_together_below_a_temporary_root(tree, tmp_path):
    files = [{"dest": f"{tmp_path}/a", "content": "a\n"}, {"dest": f"{tmp_path}/b", "content": "b\n"}]
    assert "changed=1" in tree(files, validate=f"cmp -s {{root}}{tmp_path}/a {{root}}{tmp_path}/a").stdout
    files[0]["content"] = "changed\n"
    result = tree(files, validate=f"cmp -s {{root}}{tmp_path}/a {{root}}{tmp_path}/b")
    assert "cmp refuses the whole set" in result.stdout
    assert (tmp_path / "a").read_text() == "a\n"


def test_other_files_of_a_purged_folder_are_removed(tree, tmp_path):
    owned = tmp_path / "owned"
    owned.mkdir()
    (owned / "stray.conf").write_text("x")
    (owned / "notes.txt").write_text("x")
    files = [{"dest": f"{owned}/a.conf", "content": "a\n"}]
    purge = [{"path": str(owned), "pattern": "*.conf"}]
    assert "changed=1" in tree(files, purge=purge).stdout
    assert sorted(path.name for path in owned.iterdir()) == ["a.conf", "notes.txt"]
    assert "changed=0" in tree(files, purge=purge).stdout


def test_a_changed_mode_is_a_change(tree, tmp_path):
    files = [{"dest": f"{tmp_path}/a", "content": "a\n", "mode": "0600"}]
    tree(files)
    (tmp_path / "a").chmod(0o644)
    out = tree(files, "--diff").stdout
    assert "changed=1" in out
    assert "0600" in out
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o600


def test_a_secret_is_never_shown(tree, tmp_path):
    files = [{"dest": f"{tmp_path}/a", "content": "sesame\n", "secret": True}]
    out = tree(files, "--diff", "-vvv").stdout
    assert "changed=1" in out
    # The play's own text holds it in clear; the module's arguments and its diff may not.
    assert "sesame" not in out
    files[0]["content"] = "swordfish\n"
    out = tree(files, "--diff", "-vvv").stdout
    assert "changed=1" in out
    assert "sesame" not in out
    assert "swordfish" not in out


def test_a_directory_is_never_replaced_by_a_file(tree, tmp_path):
    (tmp_path / "a").mkdir()
    result = tree([{"dest": f"{tmp_path}/a", "content": "a\n"}])
    assert "exists, but is not a" in result.stdout
    assert (tmp_path / "a").is_dir()


@pytest.mark.parametrize(
    ("file", "complaint"),
    [
        ({"content": "a"}, "has no 'dest'"),
        ({"dest": "/tmp/a"}, "give exactly one of"),
        ({"dest": "/tmp/a", "content": "a", "directory": True}, "give exactly one of"),
        ({"dest": "/tmp/a", "content": "a", "contnet": "b"}, "unknown key 'contnet'"),
        ({"dest": "a", "content": "a"}, "an absolute path"),
        ({"dest": "/tmp/a", "template": "none.j2"}, "none.j2"),
    ],
)
def test_an_invalid_declaration_is_an_error(tree, file, complaint):
    result = tree([file])
    assert result.returncode != 0
    assert complaint in result.stdout


def test_a_file_that_its_service_has_not_read_yet_counts_as_changed(tree, tmp_path, monkeypatch):
    """As after a run that was ended between writing and restarting."""
    (tmp_path / "bin").mkdir()
    systemctl = tmp_path / "bin/systemctl"
    monkeypatch.setenv("PATH", str(systemctl.parent), prepend=os.pathsep)
    path = tmp_path / "configuration"
    files = [{"dest": str(path), "content": "a\n"}]
    read_by = [{"unit": "a.service", "files": [str(path)]}]

    def run(state, seconds_ago, *options):
        microseconds = int((time.monotonic() - seconds_ago) * 1e6)
        shown = f"ActiveState={state}\\nStateChangeTimestampMonotonic={microseconds}\\n"
        systemctl.write_text(f"#!/bin/sh\nprintf '{shown}'\n")
        systemctl.chmod(0o755)
        return tree(files, *options, read_by=read_by).stdout

    assert "changed=1" in run("active", 100)  # written
    out = run("active", 100, "--diff")
    assert "changed=1" in out
    assert "not read yet by a.service" in out
    assert "changed=0" in run("inactive", 100)  # it reads it when it starts
    assert "changed=0" in run("active", -1)  # started since then
    os.utime(path, (0, 0))
    assert "changed=0" in run("active", 100)
