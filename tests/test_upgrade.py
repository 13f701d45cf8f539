"""Snapshots and rollbacks of upgrades. Scenario `upgrade` tests it with packages and services."""

from __future__ import annotations

import contextlib
import gzip
import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest
import yaml
from ansible_collections.tig_pi.stack.plugins.filter.upgrade import upgrade_notes, upgrade_plan
from ansible_collections.tig_pi.stack.plugins.module_utils.influxdb.client import InfluxError
from ansible_collections.tig_pi.stack.plugins.module_utils.upgrade import files, host, packages, points
from ansible_collections.tig_pi.stack.plugins.modules import upgrade as module

ROOT = Path(__file__).parent.parent
# What apt 3.0 passes to a hook in version 3, without most of its configuration.
FROM_APT = """VERSION 3
APT::Architecture=arm64
Dir::Cache=var/cache/apt

influxdb-client 1.6.7~rc0-2+b12 arm64 none > - - none **REMOVE**
influxdb 1.6.7~rc0-2+b12 arm64 none < 1.13.2-1 arm64 none /var/cache/apt/archives/influxdb_1.13.2-1_arm64.deb
node-red 4.1.15-1 all none < 4.2.0-1 all none /var/cache/apt/archives/node-red_4.2.0-1_all.deb
musl - - none < 1.2.5-3 arm64 same /var/cache/apt/archives/musl_1.2.5-3_arm64.deb
influxdb 1.6.7~rc0-2+b12 arm64 none < 1.13.2-1 arm64 none **CONFIGURE**
"""


def test_apt_s_hook_keeps_what_is_replaced_or_removed():
    names = list(packages.changed(FROM_APT.splitlines(keepends=True)))
    assert names == ["influxdb-client:arm64", "influxdb:arm64", "node-red:all"]


def test_a_kept_package_is_the_installed_one(tmp_path):
    """A package of this machine, packed again."""
    packages.keep("dpkg:" + packages.run("dpkg", "--print-architecture").stdout.strip(), tmp_path)
    (kept,) = tmp_path.iterdir()
    with packages._packed([kept.name.replace("_", ":")], tmp_path) as (deb,):
        shown = packages.run("dpkg-deb", "--show", "--showformat=${Package} ${Version} ${Depends}", deb).stdout
        listed = packages.run("dpkg-deb", "--contents", deb).stdout
    query = "--showformat=${Package} ${Version} ${Depends}"
    assert shown == packages.run("dpkg-query", "--show", query, "dpkg").stdout
    assert " ./usr/bin/dpkg\n" in listed
    assert "Conffiles" not in (kept / "DEBIAN/control").read_text()
    assert "Status" not in (kept / "DEBIAN/control").read_text()


def tree(root: Path) -> dict[str, object]:
    return {
        str(path.relative_to(root)): (
            path.lstat().st_mode,
            os.readlink(path) if path.is_symlink() else path.is_file() and path.read_bytes(),
        )
        for path in root.rglob("*")
    }


@pytest.fixture
def service(tmp_path) -> Path:
    """The directory of a service."""
    root = tmp_path / "lib/influxdb"
    (root / "data/iot/autogen/1").mkdir(parents=True)
    (root / "data/iot/autogen/1/1.tsm").write_bytes(b"points")
    (root / "meta.db").write_bytes(b"meta")
    (root / "meta.db").chmod(0o600)
    (root / "current").symlink_to("data")
    with (root / "series").open("wb") as file:
        file.truncate(10**7)
    return root


def test_what_is_kept_does_not_change_with_the_service(service, tmp_path):
    before = tree(service)
    files.copy(service, tmp_path / "kept")
    (service / "meta.db").write_bytes(b"changed")
    (service / "data/iot/autogen/1/1.tsm").unlink()
    (service / "data/iot/autogen/1/2.tsm").write_bytes(b"compacted")
    assert tree(tmp_path / "kept") == before
    assert (tmp_path / "kept/series").stat().st_blocks == 0
    assert files.size(tmp_path / "kept", tmp_path) < 10**6


class PowerCut(BaseException):
    pass


def revert_until(upgrade, monkeypatch, place, step: str, error: BaseException | None = None) -> BaseException:
    """Roll back until a step, in which the power is cut or an error occurs; what was raised."""

    def fail(*_):
        raise error or PowerCut

    with monkeypatch.context() as patch:
        patch.setattr(place, step, fail)
        with pytest.raises((PowerCut, packages.Failure)) as raised:
            upgrade.revert({})
    return raised.value


def test_files_that_cannot_be_linked_are_counted(service, tmp_path):
    (service / "data/iot/autogen/1/1.tsm").write_bytes(bytes(10**6))
    assert files.size(service, tmp_path) < 10**6 <= files.size(service, Path("/proc"))


def test_no_copy_is_readable_before_it_has_its_permissions(service, tmp_path, monkeypatch):
    copyfile, modes = files.shutil.copyfile, []

    def watch(source, target, **options):
        modes.append(tuple(path.stat().st_mode & 0o777 for path in (target.parent, target) if path.exists()))
        copyfile(source, target, **options)

    monkeypatch.setattr(files.shutil, "copyfile", watch)
    files.copy(service, tmp_path / "staged")
    assert modes == [(0o700,)]
    assert (tmp_path / "staged").stat().st_mode == service.stat().st_mode
    files._keep_setting(service / "meta.db", tmp_path / "meta.db")
    assert modes[1][1] == 0o600


def test_a_directory_is_restored_whenever_the_power_is_cut(service, tmp_path, monkeypatch):
    """Before each change of the file system that puts something in its place."""
    before = tree(service)
    rename, cuts = os.rename, 0
    files.copy(service, tmp_path / "kept")
    (service / "meta.db").write_bytes(b"new")
    new = tree(service)
    for last in range(10):
        calls = iter(range(last))

        def cut(*arguments, calls=calls):
            if next(calls, None) is None:
                raise PowerCut
            rename(*arguments)

        monkeypatch.setattr(files.os, "rename", cut)
        try:
            files.restore(service, tmp_path / "kept", tmp_path / "replaced/influxdb")
        except PowerCut:
            cuts += 1
        else:
            break
    assert cuts == 2
    assert tree(service) == before
    assert tree(tmp_path / "replaced/influxdb") == new
    files.restore(service, tmp_path / "kept", tmp_path / "replaced/influxdb")
    assert tree(service) == before
    assert [path.name for path in service.parent.iterdir()] == ["influxdb"]


def test_a_directory_is_restored_although_the_host_created_an_empty_one_after_a_power_cut(
    service, tmp_path, monkeypatch
):
    before, rename, replaced = tree(service), os.rename, tmp_path / "replaced/influxdb"
    files.copy(service, tmp_path / "kept")

    def cut(source, target):
        if "tig-pi-kept" in source.name:
            raise PowerCut
        rename(source, target)

    monkeypatch.setattr(files.os, "rename", cut)
    with pytest.raises(PowerCut):
        files.restore(service, tmp_path / "kept", replaced)
    assert not service.exists()
    service.mkdir()  # StateDirectory=
    monkeypatch.setattr(files.os, "rename", rename)
    files.restore(service, tmp_path / "kept", replaced)
    assert tree(service) == before
    assert tree(replaced) == before
    assert [path.name for path in service.parent.iterdir()] == ["influxdb"]


def test_all_files_that_roles_write_are_restored():
    """Each is below a directory of settings or of a service; but for these."""
    derived = yaml.safe_load((ROOT / "playbooks/group_vars/all/20_derived.yml").read_text())
    data = [each for one in derived["__site_upgraded_services"].values() for each in one.get("data", [])]
    others = [
        "/var/lib/tig-pi/backup",
        "/var/lib/tig-pi/feed",
        "/var/lib/NetworkManager",
        "/var/lib/cloud",
        "/var/lib/systemd",
        "/opt/tig-pi/esptool",
    ]
    known = (*files.SETTINGS, *data, *others)
    found = set()
    for path in [path for each in ("defaults", "tasks", "vars") for path in ROOT.glob(f"roles/*/{each}/*.yml")]:
        text = re.sub(r"(^|\s)#.*", "", path.read_text())
        found |= set(re.findall(r"""(?<![\w./}])/(?:usr/local|var/lib|opt|srv)/[^\s'"{},:\])]+""", text))
    assert "/usr/local/lib/mosquitto/accounts.so" in found
    assert [each for each in sorted(found) if not any(Path(each).is_relative_to(one) for one in known)] == []


def test_settings_are_restored_and_the_replaced_ones_set_aside(tmp_path, monkeypatch):
    etc = tmp_path / "etc"
    (etc / "influxdb").mkdir(parents=True)
    (etc / "influxdb/influxdb.conf").write_text("old")
    (etc / "unit").symlink_to("/lib/unit")
    (etc / "empty").mkdir(mode=0o750)
    monkeypatch.setattr(files, "SETTINGS", (str(etc),))
    before = tree(etc)
    files.keep_settings(tmp_path / "kept")
    (etc / "influxdb/influxdb.conf").write_text("new")
    (etc / "influxdb").chmod(0o711)
    (etc / "unit").unlink()
    (etc / "unit").mkdir()
    (etc / "empty").rmdir()
    (etc / "added").write_text("by the new version")
    (etc / "folder").mkdir()
    assert files.restore_settings(tmp_path / "kept", tmp_path / "replaced") == 7
    assert tree(etc) == before
    aside = tmp_path / "replaced" / etc.relative_to("/")
    assert (aside / "influxdb/influxdb.conf").read_text() == "new"
    assert (aside / "added").read_text() == "by the new version"
    assert files.restore_settings(tmp_path / "kept", tmp_path / "replaced") == 0


def test_accounts_are_no_settings():
    names = {str(path) for path in files.settings()}
    assert "/etc/debian_version" in names
    assert names.isdisjoint({"/etc/passwd", "/etc/shadow", "/etc/shadow-", "/etc/hostname", "/etc/resolv.conf"})


@pytest.mark.parametrize(
    ("fails", "steps", "said"),
    [
        ("", ["upgrade_validate", "upgrade"], ""),
        ("upgrade_validate", ["upgrade_validate"], "Nothing was changed."),
        ("upgrade", ["upgrade_validate", "upgrade", "upgrade_back"], "The site is as it was before."),
        (
            "upgrade upgrade_back",
            ["upgrade_validate", "upgrade", "upgrade_back"],
            "the site may not be as it was before",
        ),
    ],
)
def test_only_an_upgrade_that_began_is_rolled_back(tmp_path, fails, steps, said):
    """A refusal, such as of a misspelt variable, leaves an upgrade that was interrupted as it is."""
    (tmp_path / "bin").mkdir()
    shutil.copy(ROOT / "bin/upgrade", tmp_path / "bin")
    play = tmp_path / "bin/play"
    play.write_text(
        '#!/bin/sh\necho "$@" >> calls\nstep=$(basename "$2" .yml)\n! echo " $FAILS " | grep -q " $step "\n'
    )
    play.chmod(0o755)
    command = [tmp_path / "bin/upgrade", "hosts", "--limit=pi"]
    done = subprocess.run(command, env={**os.environ, "FAILS": fails}, capture_output=True, text=True, check=False)
    calls = [f"--inventory=hosts playbooks/{step}.yml --limit=pi" for step in steps]
    assert (tmp_path / "calls").read_text().splitlines() == calls
    assert done.returncode == (1 if fails else 0)
    assert said in done.stdout + done.stderr


def test_points_are_read_without_those_of_the_probe(tmp_path):
    path = tmp_path / "autogen.gz"
    text = "# INFLUXDB EXPORT\n# DDL\nCREATE DATABASE iot\n# DML\n# CONTEXT-DATABASE:iot\n# CONTEXT-RETENTION-POLICY:autogen\n"
    text += "# writing tsm data\nm,device=a value=1 1\nprobe value=1 1\nprobe,device=x value=2 1\nprobes value=3 1\n"
    path.write_bytes(gzip.compress(text.encode()))
    assert list(points.lines(path, "probe")) == ["m,device=a value=1 1\n", "probes value=3 1\n"]


@pytest.fixture
def upgrade(tmp_path, monkeypatch):
    """An upgrade of a host on which no package changes and no service runs."""
    monkeypatch.setattr(host, "STATE", tmp_path / "state")
    monkeypatch.setattr(host, "HOOK", tmp_path / "hook")
    monkeypatch.setattr(host, "UNITS", tmp_path / "lib/systemd/system")
    monkeypatch.setattr(files, "SETTINGS", (str(tmp_path / "etc"),))
    monkeypatch.setattr(packages, "POLICY", tmp_path / "policy-rc.d")
    monkeypatch.setattr(host, "run", lambda *command, check=True: packages.subprocess.CompletedProcess(command, 1))
    monkeypatch.setattr(packages, "present", lambda: {"dpkg:amd64": ("1", True)})
    monkeypatch.setattr(packages, "restore", lambda *_: None)
    monkeypatch.setattr(packages, "_dpkg", lambda *arguments, check=True: None)
    return host.Upgrade()


def test_a_directory_on_a_file_system_of_its_own_is_refused_and_nothing_is_left(
    upgrade, service, tmp_path, monkeypatch
):
    link = tmp_path / "link"
    link.symlink_to(service)
    (service / "disk").symlink_to("/proc/self")
    for directory, other in ((link, link), (service, service / "disk")):
        with upgrade.alone(), pytest.raises(packages.Failure, match=f"^{other} is a link or a file system of its own"):
            upgrade.begin("one", [{"unit": "influxdb.service", "data": [str(directory)], "package": ""}], [])
    (service / "disk").unlink()
    monkeypatch.setattr(Path, "is_mount", lambda path: path == service)
    with upgrade.alone(), pytest.raises(packages.Failure, match=f"^{service} is a link or a file system of its own"):
        upgrade.begin("one", [{"unit": "influxdb.service", "data": [str(service)], "package": ""}], [])
    assert upgrade.read()["state"] == "none"
    assert not (tmp_path / "hook").exists()


@pytest.mark.parametrize(("free", "is_refused"), [(5_900_000, True), (6_200_000, False)])
def test_a_full_card_is_refused_before_a_service_is_stopped(upgrade, service, monkeypatch, free, is_refused):
    """There is room for two copies of the data, and thrice the packages."""
    (service / "meta.db").write_bytes(bytes(1_500_000))
    monkeypatch.setattr(host, "RESERVE", 0)
    monkeypatch.setattr(packages, "size", lambda names: 10**6 * len(names))
    monkeypatch.setattr(host.shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    expected = (
        pytest.raises(packages.Failure, match="on the card, of which") if is_refused else contextlib.nullcontext()
    )
    with upgrade.alone(), expected:
        upgrade.begin("one", [{"unit": "influxdb.service", "data": [str(service)], "package": ""}], [], ["grafana"])
    assert upgrade.kept.exists() != is_refused


def test_the_size_of_packages_is_that_of_the_installed_ones():
    assert 10**6 < packages.size(["dpkg", "not-installed-anywhere"]) < 10**8


def test_only_dpkg_s_lock_is_waited_for(monkeypatch):
    answers = ["dpkg: error: dpkg frontend lock was locked by another process with pid 7", "error: block 7"]
    waited = []
    monkeypatch.setattr(
        packages, "run", lambda *command, check: packages.subprocess.CompletedProcess(command, 2, "", answers.pop(0))
    )
    monkeypatch.setattr(packages, "time", SimpleNamespace(**{**vars(time), "sleep": waited.append}))
    with pytest.raises(packages.Failure, match="block 7"):
        packages._dpkg("--install")
    assert waited == [2]


def test_a_host_with_a_package_that_is_half_installed_is_refused(upgrade, service, monkeypatch):
    monkeypatch.setattr(packages, "present", lambda: {"dpkg:amd64": ("1", True), "grafana:amd64": ("12", False)})
    with upgrade.alone(), pytest.raises(packages.Failure, match="not completely installed: grafana:amd64"):
        upgrade.begin("one", [{"unit": "influxdb.service", "data": [str(service)], "package": ""}], [])
    assert upgrade.read()["state"] == "none"
    assert not upgrade.kept.exists()


@pytest.mark.parametrize(
    ("states", "plan"),
    [
        (["none", "none"], {"goes_back": False, "is_verified": False, "id": ""}),
        (["verified a", "verified a"], {"goes_back": False, "is_verified": False, "id": ""}),
        (["reverted a", "reverted a"], {"goes_back": False, "is_verified": False, "id": ""}),
        (
            ["begun b", "reverted a"],
            {"goes_back": False, "is_verified": False, "id": "b"},
        ),  # it had not yet begun on the other
        (["begun a", "none"], {"goes_back": False, "is_verified": False, "id": "a"}),
        (["begun a", "reverting a"], {"goes_back": True, "is_verified": False, "id": "a"}),
        (["begun a", "reverted a"], {"goes_back": True, "is_verified": False, "id": "a"}),
        (["begun a", "verified a"], {"goes_back": False, "is_verified": True, "id": ""}),
        (["verified a", "begun a"], {"goes_back": False, "is_verified": False, "id": ""}),
    ],
)
def test_all_hosts_end_with_the_same_versions(states, plan):
    """What the first host does."""
    said = [dict(zip(("state", "id"), [*state.split(), ""], strict=False)) for state in states]
    assert upgrade_plan(said, said[0]) == plan


def test_an_upgrade_that_has_not_ended_is_in_the_status(upgrade, service, tmp_path):
    def notes() -> list[str]:
        state = tmp_path / "state/upgrade.json"
        return upgrade_notes(
            {"pi": {"rc": 0, "stdout": state.read_text()} if state.exists() else {"rc": 1, "stdout": ""}}
        )

    services = [{"unit": "influxdb.service", "data": [str(service)], "package": ""}]
    assert notes() == []
    with upgrade.alone():
        upgrade.begin("one", services, [])
        [note] = notes()
        assert note.startswith("Upgrade of pi: it began on ")
        assert "make upgrade" in note
        upgrade.write({**upgrade.read(), "state": "reverting"})
        [note] = notes()
        assert "services may stay stopped" in note
        upgrade.revert({})
        assert notes() == []
        upgrade.write({**upgrade.read(), "problems": ["influxdb.service does not start"]})
        assert notes() == ["Upgrade of pi, rolled back: influxdb.service does not start"]


def test_a_damaged_state_of_an_upgrade_is_named():
    [note] = upgrade_notes({"pi": {"rc": 0, "stdout": "{"}})
    assert "damaged" in note


def test_the_states_of_an_upgrade(upgrade, service, tmp_path):
    services = [{"unit": "influxdb.service", "data": [str(service)], "package": ""}]
    before = tree(service)
    with upgrade.alone():
        assert upgrade.end()["state"] == upgrade.revert({})["state"] == "none"
        assert upgrade.begin("one", services, [])["state"] == "begun"
        (service / "meta.db").write_bytes(b"new")
        # An upgrade that was interrupted goes on with what was kept by the first call.
        assert upgrade.begin("two", services, [])["id"] == "one"
        done = upgrade.revert({})
        assert (done["state"], done["problems"]) == ("reverted", [])
        assert tree(service) == before
        assert (tmp_path / f"state/replaced-one{service}/meta.db").read_bytes() == b"new"
        assert upgrade.revert({})["state"] == "reverted"
        assert upgrade.begin("three", services, [])["state"] == "begun"
        assert not (tmp_path / "state/replaced-one").exists()
        assert upgrade.end()["state"] == "verified"
        assert sorted(path.name for path in (tmp_path / "state").iterdir()) == ["lock", "upgrade.json"]
        assert not (tmp_path / "hook").exists()


@pytest.mark.parametrize("end", [lambda upgrade: upgrade.end(), lambda upgrade: upgrade.revert({})])
def test_a_snapshot_is_removed_although_the_power_was_cut_before(upgrade, service, tmp_path, monkeypatch, end):
    with upgrade.alone():
        upgrade.begin("one", [{"unit": "influxdb.service", "data": [str(service)], "package": ""}], [])
        with monkeypatch.context() as patch:
            patch.setattr(upgrade, "_forget", lambda: None)
            ended = end(upgrade)
        assert upgrade.kept.exists()
        assert end(upgrade) == ended
    assert not upgrade.kept.exists()


def test_an_upgrade_that_is_being_rolled_back_cannot_be_ended(upgrade, service, monkeypatch):
    with upgrade.alone():
        upgrade.begin("one", [{"unit": "influxdb.service", "data": [str(service)], "package": ""}], [])
        revert_until(upgrade, monkeypatch, packages, "restore")
        with pytest.raises(packages.Failure, match="is being rolled back"):
            upgrade.end()
    assert upgrade.kept.exists()


def test_the_state_is_read_by_one_call_at_a_time(upgrade, monkeypatch):
    """It changes with a call that still runs."""
    is_alone, alone = [], upgrade.alone

    @contextlib.contextmanager
    def watch(_):
        with alone():
            is_alone.append(True)
            yield
            is_alone.pop()

    def read():
        assert is_alone
        return {"state": "none", "id": ""}

    monkeypatch.setattr(host.Upgrade, "alone", watch)
    monkeypatch.setattr(host.Upgrade, "read", staticmethod(read))
    ended = []
    monkeypatch.setattr(
        module,
        "AnsibleModule",
        lambda **_: SimpleNamespace(params={"state": "read"}, exit_json=lambda **said: ended.append(said)),
    )
    module.main()
    assert ended == [{"changed": False, "upgrade": {"state": "none", "id": ""}}]


def test_points_of_a_database_that_did_not_exist_do_not_stop_others(tmp_path):
    class Server:
        written: ClassVar[list] = []

        def write(self, database, policy, lines):
            if database == "added":
                raise InfluxError('{"error":"database not found: \\"added\\""}')
            self.written.append((database, policy, lines))

    for database in ("added", "iot"):
        (tmp_path / database).mkdir()
        (tmp_path / database / "autogen.gz").write_bytes(
            gzip.compress(b"# CONTEXT-RETENTION-POLICY:autogen\nm value=1 1\n")
        )
    first, second = points.add(tmp_path, Server(), "")
    assert "refused some: " in first
    assert "database not found" in first
    assert second == "sent 1 values of iot.autogen, those received during the upgrade among them"
    assert Server.written == [("iot", "autogen", "m value=1 1\n")]


def test_services_do_not_start_until_their_data_is_restored(upgrade, service, monkeypatch):
    """What they received until then, such as after a power cut, would be replaced."""
    hold = host.UNITS / "influxdb.service.d/tig-pi-upgrade.conf"
    with upgrade.alone():
        upgrade.begin("one", [{"unit": "influxdb.service", "data": [str(service)], "package": ""}], [])
        assert not hold.exists()
        for place, step in ((packages, "changes"), (packages, "restore"), (files, "restore")):
            revert_until(upgrade, monkeypatch, place, step)
            assert "AssertPathExists=!/var/lib/tig-pi/upgrade/kept" in hold.read_text()
        failure = revert_until(upgrade, monkeypatch, files, "restore", OSError("disk full"))
        assert str(failure).startswith("disk full. The services stay stopped")
        revert_until(upgrade, monkeypatch, upgrade, "_start")
        assert upgrade.revert({})["state"] == "reverted"
    assert not host.UNITS.exists()


def test_an_interrupted_restoration_of_packages_forgets_none(upgrade, service, monkeypatch):
    """Those that were restored before the power cut do not differ afterwards."""
    services = [{"unit": "mosquitto.service", "data": [str(service)], "package": "mosquitto"}]
    with upgrade.alone():
        upgrade.begin("one", services, [])
        before = tree(service)
        (service / "meta.db").write_bytes(b"new")
        with monkeypatch.context() as patch:
            patch.setattr(packages, "changes", lambda *_: {"replaced": ["dpkg:amd64"], "new": ["mosquitto:amd64"]})
            revert_until(upgrade, monkeypatch, packages, "restore")
        done = upgrade.revert({})
    assert done["lines"][:2] == ["installed dpkg 1 again", "removed mosquitto"]
    assert tree(service) == before


@pytest.mark.parametrize(
    ("answers", "changed", "data", "lines", "problems"),
    [
        ([True], ["influxdb:amd64"], b"old", 3, 0),
        ([False, True], ["influxdb:amd64"], b"old", 3, 0),  # with the program of the old version
        ([False, False], [], b"new", 2, 0),  # the same version reads what is there
        ([False, False], ["influxdb:amd64"], b"old", 3, 1),
    ],
)
def test_points_that_no_program_reads_are_not_lost_silently(
    upgrade, service, monkeypatch, answers, changed, data, lines, problems
):
    def export(*_):
        if not answers.pop(0):
            raise FileNotFoundError("influx_inspect")

    monkeypatch.setattr(points, "export", export)
    monkeypatch.setattr(packages, "changes", lambda *_: {"replaced": [], "new": changed})
    (service / "meta.db").write_bytes(b"old")
    influxdb = {"data": str(service), "url": "", "user": "", "password": "", "ignored": ""}
    with upgrade.alone():
        upgrade.begin("one", [{"unit": "influxdb.service", "data": [str(service)], "package": ""}], [])
        (service / "meta.db").write_bytes(b"new")
        done = upgrade.revert(influxdb)
    assert (service / "meta.db").read_bytes() == data
    assert (len(done["lines"]), len(done["problems"])) == (lines, problems)
    assert not answers


def test_a_rollback_continues_after_a_power_cut_in_each_of_its_steps(upgrade, service, monkeypatch):
    services = [{"unit": "influxdb.service", "data": [str(service)], "package": ""}]
    before, write, cuts = tree(service), upgrade.write, 0
    with upgrade.alone():
        upgrade.begin("one", services, [])
        (service / "meta.db").write_bytes(b"new")
        for last in range(20):
            calls = iter(range(last))

            def cut(about, calls=calls):
                if next(calls, None) is None:
                    raise PowerCut
                return write(about)

            monkeypatch.setattr(upgrade, "write", cut)
            try:
                done = upgrade.revert({})
            except PowerCut:
                cuts += 1
                if last:
                    with pytest.raises(packages.Failure, match="the rollback of an earlier upgrade was interrupted"):
                        upgrade.begin("two", services, [])
            else:
                break
    assert cuts >= 3
    assert done["state"] == "reverted"
    assert tree(service) == before
