"""The program that backs up and restores, with the real restic, SQLite, InfluxDB and Mosquitto."""

from __future__ import annotations

import base64
import contextlib
import datetime
import http.server
import io
import json
import os
import random
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
import restic_repository
from ansible_collections.tig_pi.stack.plugins.lookup import site_description
from ansible_collections.tig_pi.stack.plugins.plugin_utils import recovery_key
from chain import libraries, program, wait_until
from project import REPOSITORY, load
from state_services import Broker, Database

sys.path.insert(0, str(REPOSITORY / "roles/backup/files"))
from tig_backup import Problem, archive, files, influxdb, mosquitto, scratch
from tig_backup import status as status_module
from tig_backup.repository import Repository

os.environ["TIG_BACKUP_LIBRARY"] = str(REPOSITORY / "roles/backup/files")
pytestmark = pytest.mark.slow

MAIN = load("roles/backup/files/tig-pi-backup")


@pytest.fixture(autouse=True)
def programs(monkeypatch):
    """restic and influxd, found as the program finds them on a Pi."""
    folders = {str(Path(program("restic", "restic")).parent), str(Path(program("influxd", "influxdb")).parent)}
    monkeypatch.setenv("PATH", ":".join([*sorted(folders), os.environ["PATH"]]))
    for name, value in libraries(program("influxd", "influxdb")).items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def disk():
    """A directory on another file system than the root's."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        yield Path(directory)


@pytest.fixture(scope="session")
def repository(tmp_path_factory):
    """A new repository, the password of which is "right"."""
    path = tmp_path_factory.mktemp("restic") / "repository"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{Path(program('restic', 'restic')).parent}:{os.environ['PATH']}")
        restic_repository.create(path, "right")
    return path


@pytest.fixture
def site(tmp_path, disk, repository):
    """A host with a database of SQLite and a directory of files, and one target, the repository of which is new."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "flows.json").write_text("[1]")
    (data / ".cache").mkdir()
    (data / ".cache/x").write_text("left out")
    with contextlib.closing(sqlite3.connect(tmp_path / "grafana.db")) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("CREATE TABLE user (name)")
        database.execute("INSERT INTO user VALUES ('me')")
        database.commit()
    configuration = {
        "site": "home",
        "name": "pi",
        "password": "right",
        "state": str(tmp_path / "state"),
        "scratch": str(disk / "scratch"),
        "bundle": str(tmp_path / "site.vault"),
        "keep": {"daily": 7, "weekly": 4, "monthly": 12},
        "targets": [{"name": "stick", "kind": "directory", "path": str(disk / "stick")}],
        "sources": [
            {"name": "grafana", "kind": "sqlite", "path": str(tmp_path / "grafana.db"), "count": ["user", "dashboard"]},
            {"name": "node-red", "kind": "directory", "path": str(data), "exclude": [".cache"]},
        ],
    }
    shutil.copytree(repository, disk / "stick/pi")
    return configuration


def run(configuration: dict, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = Path(configuration["state"]).with_name("backup.json")
    path.write_text(json.dumps(configuration))
    command = [sys.executable, REPOSITORY / "roles/backup/files/tig-pi-backup", *arguments, f"--configuration={path}"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def status(configuration: dict) -> dict[str, dict]:
    return {one["target"]: one for one in json.loads(run(configuration, "status").stdout)["targets"]}


def archives(configuration: dict) -> list[str]:
    listed = run(configuration, "list")
    assert listed.returncode == 0, listed.stderr
    return [line.split()[1] for line in listed.stdout.splitlines() if "not checked" not in line]


# --- The archive ---


def packed(*members: tuple[str, bytes]) -> bytes:
    stream = io.BytesIO()
    writer = archive.Writer(stream, {"site": "home"})
    for name, content in members:
        writer.add_bytes(name, content)
    writer.close()
    return stream.getvalue()


def test_an_archive_is_unpacked_as_it_was_packed(tmp_path):
    content = random.Random(1).randbytes(3 << 20)
    manifest = archive.unpack(io.BytesIO(packed(("a/b", content), ("c", b""))), tmp_path / "to")
    assert manifest["site"] == "home"
    assert (tmp_path / "to/a/b").read_bytes() == content
    assert (tmp_path / "to/c").read_bytes() == b""


def test_an_archive_damaged_at_any_byte_of_its_files_is_refused(tmp_path):
    whole = packed(("a", random.Random(1).randbytes(2000)), ("b", b"text" * 200))
    end = whole.rstrip(b"\0").rfind(b"}") + 1  # of the manifest; zeros follow
    for place in random.Random(2).sample(range(end), 200):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << random.Random(place).randrange(8)
        with contextlib.suppress(Problem):
            manifest = archive.unpack(io.BytesIO(bytes(damaged)), tmp_path / str(place))
            # What the damage did not reach: padding, owners, times of the archive itself.
            for name, expected in (("a", random.Random(1).randbytes(2000)), ("b", b"text" * 200)):
                assert (tmp_path / str(place) / name).read_bytes() == expected, place
            assert set(manifest["files"]) == {"a", "b"}


def test_an_archive_that_breaks_off_is_refused(tmp_path):
    whole = packed(("a", bytes(5000)), ("b", b"text" * 2000))
    for length in (0, 100, 600, 5000, 8000, len(whole) // 2, whole.rindex(b'"a"')):
        with pytest.raises(Problem) as refused:
            archive.unpack(io.BytesIO(whole[:length]), tmp_path / str(length))
        assert refused.value.name == "damaged"


@pytest.mark.parametrize("name", ["../outside", "/outside"])
def test_an_archive_writes_nothing_outside_its_directory(tmp_path, name):
    with pytest.raises(Problem):
        archive.unpack(io.BytesIO(packed((name, b"x"))), tmp_path / "to")
    assert not (tmp_path / "outside").exists()
    assert not Path("/outside").exists()


# --- Backups and restorations ---


def test_a_backup_is_restored_and_what_was_there_is_kept(site, tmp_path, disk):
    shutil.rmtree(disk / "stick/pi")  # the backup creates the repository
    done = run(site, "run")
    assert done.returncode == 0, done.stderr
    with contextlib.closing(sqlite3.connect(tmp_path / "grafana.db")) as database:
        database.execute("DELETE FROM user")
        database.commit()
    (tmp_path / "data/flows.json").write_text("[2]")
    (tmp_path / "data/new").write_text("since")
    assert run(site, "fetch").returncode == 0
    restored = run(site, "restore")
    assert restored.returncode == 0, restored.stderr
    with contextlib.closing(sqlite3.connect(tmp_path / "grafana.db")) as database:
        assert database.execute("SELECT name FROM user").fetchall() == [("me",)]
    assert (tmp_path / "data/flows.json").read_text() == "[1]"
    assert not (tmp_path / "data/new").exists()
    assert (tmp_path / "data/.cache/x").exists()
    (aside,) = Path(site["state"]).glob("before-restore-*")
    assert (aside / "node-red/flows.json").read_text() == "[2]"
    assert (aside / "node-red/new").read_text() == "since"
    assert (aside / "grafana/grafana.db").exists()
    about = json.loads((Path(site["state"]) / "restored.json").read_text())
    assert (about["site"], about["name"], about["newest"]) == ("home", "pi", {})
    assert about["begun"] <= about["restored"] <= time.time()


def test_an_unchanged_host_adds_almost_nothing_to_the_repository(site, tmp_path):
    (tmp_path / "data/large").write_bytes(random.Random(1).randbytes(20 << 20))
    assert run(site, "run").returncode == 0
    assert status(site)["stick"]["bytes_added"] > 20 << 20
    assert run(site, "run").returncode == 0
    assert status(site)["stick"]["bytes_added"] < 4 << 20


def test_the_policy_keeps_one_archive_a_day_and_the_newest(site):
    for _ in range(3):
        assert run(site, "run").returncode == 0
    assert len(archives(site)) == 1
    assert status(site)["stick"]["archives"] == 1


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda site, disk: site.update(password="wrong"), "wrong_key"),
        (lambda site, disk: site["targets"][0].update(path=str(disk / "unplugged")), "unreachable"),
        (lambda site, disk: site["targets"][0].update(path="/var/tmp"), "on_the_card"),
        (lambda site, disk: site["targets"][0].update(kind="disk", uuid="0000-0000"), "unreachable"),
        (lambda site, disk: ((disk / "stick/pi/config").unlink(), (disk / "stick/pi/x").touch()), "no_repository"),
        (lambda site, disk: _damage(disk / "stick/pi/data"), "damaged"),
        (lambda site, disk: shutil.rmtree(disk / "stick/pi/index"), "damaged"),
    ],
    ids=["wrong key", "unplugged", "the card", "no disk", "not a repository", "damaged packs", "lost indexes"],
)
def test_a_problem_has_a_name_and_the_last_good_archive_stays(site, disk, change, problem):
    if Path("/var/tmp").stat().st_dev != Path("/").stat().st_dev:
        pytest.skip("/var/tmp is another file system here")
    assert run(site, "run").returncode == 0
    before = {
        path: path.stat().st_size
        for path in (disk / "stick").rglob("*")
        if path.is_file() and "snapshots" in path.parts
    }
    good = status(site)["stick"]["succeeded"]
    change(site, disk)
    failed = run(site, "run")
    assert failed.returncode == 1
    told = status(site)["stick"]
    assert (told["failed"], told["problem"], told["succeeded"]) == (1, problem, good), told
    assert f"stick: {problem}: " in failed.stderr
    assert (
        before.items() <= {path: path.stat().st_size for path in (disk / "stick").rglob("*") if path.is_file()}.items()
    )


@pytest.mark.parametrize(
    "said",
    [
        "Fatal: wrong password or no key found",
        '{"message_type":"exit_error","code":12,"message":"Fatal: wrong password or no key found"}',
        '{"message_type":"error","error":{"message":"Fatal: wrong password or no key found"},"during":"open"}',
    ],
)
def test_an_error_of_restic_is_told_in_words(site, tmp_path, said):
    """As restic 0.14 says it, and as newer ones do."""
    problem = Repository(site["targets"][0], "right", "pi", tmp_path)._problem(f"{said}\n")
    assert problem.name == "wrong_key"
    assert str(problem).endswith(": Fatal: wrong password or no key found)")


def _damage(folder: Path) -> None:
    """A few bytes of each pack are other ones."""
    for pack in folder.glob("*/*"):
        pack.chmod(0o600)
        with pack.open("r+b") as file:
            file.seek(pack.stat().st_size // 3)
            file.write(b"\xaa" * 16)


def test_a_single_damaged_pack_of_a_small_repository_is_noticed_the_same_night(site, tmp_path, disk):
    (tmp_path / "data/large").write_bytes(random.Random(1).randbytes(20 << 20))
    assert run(site, "run").returncode == 0
    packs = sorted((disk / "stick/pi/data").glob("*/*"), key=lambda pack: pack.stat().st_size)
    _damage_one(packs[-1])
    assert run(site, "run").returncode == 1
    assert status(site)["stick"]["problem"] == "damaged"


def test_a_large_repository_is_read_in_fourteen_days(site, monkeypatch):
    repository, commands = Repository(site["targets"][0], "right", "pi", Path()), []
    size = json.dumps({"total_size": 10**9})
    monkeypatch.setattr(repository, "_run", lambda *command: commands.append(command) or size)
    for day in range(14):
        monkeypatch.setattr(time, "time", lambda day=day: 86400 * (20000 + day))
        repository.check()
    subsets = {option for command in commands for option in command if option.startswith("--read-data-subset=")}
    assert subsets == {f"--read-data-subset={part}/14" for part in range(1, 15)}


def test_the_newest_archive_of_all_targets_is_fetched(site, disk, repository):
    shutil.copytree(repository, disk / "attic/pi")
    stick, attic = site["targets"][0], {"name": "attic", "kind": "directory", "path": str(disk / "attic")}
    site["targets"] = [stick, attic]
    assert run(site, "run").returncode == 0
    site["targets"] = [attic]
    assert run(site, "run").returncode == 0
    site["targets"] = [stick, attic]
    assert json.loads(run(site, "fetch").stdout)["target"] == "attic"
    assert json.loads(run(site, "fetch", "--from=stick").stdout)["target"] == "stick"
    # Another one, elsewhere, may be newer, whatever its time zone.
    zone = datetime.timezone(datetime.timedelta(hours=-5))
    hour = datetime.timedelta(hours=1)
    before, after = (datetime.datetime.now(zone) + step for step in (-hour, hour))
    assert json.loads(run(site, "fetch", f"--newer-than={before.isoformat()}").stdout)["target"] == "attic"
    refused = run(site, "fetch", f"--newer-than={after.isoformat()}")
    assert refused.returncode == 1
    assert "older: attic: the newest archive is of" in refused.stderr


def test_a_target_that_cannot_be_asked_is_named_and_waited_for(site, disk, repository):
    shutil.copytree(repository, disk / "attic/pi")
    stick, attic = site["targets"][0], {"name": "attic", "kind": "directory", "path": str(disk / "attic")}
    site["targets"] = [stick]
    assert run(site, "run").returncode == 0
    site["targets"] = [attic]
    assert run(site, "run").returncode == 0
    site["targets"] = [stick, attic]

    def fetched(*options: str) -> dict:
        done = run(site, "fetch", "--rebuild", *options)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    (disk / "attic").rename(disk / "unplugged")
    for options in (["--ahead"], [], ["--patience=1"]):
        said = fetched(*options)
        assert said["target"] == "stick"
        assert said["problems"] == {
            "attic": f"unreachable: {disk}/attic does not exist; is the disk plugged in, or the share mounted?"
        }
    # What is here is not copied again, also if it cannot be reached any more.
    (disk / "stick").rename(disk / "gone")
    assert fetched("--patience=1")["target"] == "stick"
    assert (Path(site["state"]) / "fetched/manifest.json").exists()
    threading.Timer(2, (disk / "unplugged").rename, [disk / "attic"]).start()
    began = time.monotonic()
    said = fetched("--patience=100")
    assert 2 < time.monotonic() - began < 90
    assert (said["target"], list(said["problems"])) == ("attic", [])
    (disk / "gone").rename(disk / "stick")
    assert fetched("--patience=100")["problems"] == {}


def test_a_rebuild_takes_the_last_archive_of_the_card_before(site, tmp_path, disk, repository):
    begun = {}
    for card in ("before", "new"):
        (tmp_path / "machine-id").write_text(card)
        assert run({**site, "machine_id": str(tmp_path / "machine-id"), "keep": {"daily": 7}}, "run").returncode == 0
        begun[card] = status(site)["stick"]["succeeded"]
        time.sleep(1)
    new = {**site, "machine_id": str(tmp_path / "machine-id")}
    assert json.loads(run(new, "fetch", "--rebuild").stdout)["begun"] == pytest.approx(begun["before"], abs=0.99)
    # Another target has only one of the new card, which is the newest of all.
    shutil.copytree(repository, disk / "attic/pi")
    attic = {"name": "attic", "kind": "directory", "path": str(disk / "attic")}
    assert run({**new, "targets": [attic]}, "run").returncode == 0
    shutil.rmtree(tmp_path / "state/fetched")
    said = json.loads(run({**new, "targets": [*site["targets"], attic]}, "fetch", "--rebuild").stdout)
    assert said["begun"] == pytest.approx(begun["before"], abs=0.99)
    # One of the new card gives way to any other one, also if it is newer.
    elsewhere = ("fetch", "--newer-than=2001-01-01T00:00:00.123456789Z")
    assert json.loads(run(new, *elsewhere).stdout)["begun"] == pytest.approx(begun["new"], abs=0.99)
    for card, code in (("before", 1), ("third", 0)):
        (tmp_path / "machine-id").write_text(card)
        only = {**new, "name": "only"}
        assert card != "before" or run(only, "run").returncode == 0
        assert run(only, *elsewhere, "--rebuild").returncode == code
    (tmp_path / "machine-id").write_text("new")
    assert json.loads(run(new, "fetch").stdout)["begun"] == pytest.approx(begun["new"], abs=0.99)
    (tmp_path / "machine-id").write_text("third")  # which the one in between was not restored to either
    assert json.loads(run(new, "fetch", "--rebuild").stdout)["begun"] == pytest.approx(begun["new"], abs=0.99)


def test_a_rebuild_uses_the_archive_that_was_copied_ahead(site, tmp_path):
    assert run(site, "run").returncode == 0
    ahead = run(site, "fetch", "--rebuild", "--ahead")
    assert ahead.returncode == 0, ahead.stderr
    unplugged = {**site, "targets": [site["targets"][0] | {"path": str(tmp_path / "unplugged")}]}
    assert json.loads(run(unplugged, "fetch", "--rebuild").stdout) == json.loads(ahead.stdout)
    (tmp_path / "machine-id").write_text("new")
    for year, code in ((2001, 0), (2099, 1)):  # of another archive, which is elsewhere
        new = {**unplugged, "machine_id": str(tmp_path / "machine-id")}
        assert run(new, "fetch", "--rebuild", f"--newer-than={year}-01-01T00:00:00Z").returncode == code
    assert run(site, "fetch", "--rebuild", "--ahead").returncode == 0
    # Only a rebuild, and only if it asks for the same archive.
    for other in (["fetch"], ["fetch", "--rebuild", "--host=other"]):
        assert run(unplugged, *other).returncode == 1
        assert run(site, "fetch", "--rebuild", "--ahead").returncode == 0
    waits = subprocess.Popen(program_of(site, "fetch", "--rebuild", "--wait"), stdout=subprocess.PIPE)
    with MAIN.Backup(site).alone(wait=True):
        time.sleep(1)
        assert waits.poll() is None
    assert waits.communicate(timeout=60)[0].decode() == ahead.stdout
    assert run(site, "restore").returncode == 0
    assert run(site, "fetch", "--rebuild", "--ahead").returncode == 0
    assert not (Path(site["state"]) / "fetched").exists()  # a host is rebuilt once


def test_files_are_restored_before_databases_and_nothing_is_restored_twice(site, tmp_path):
    assert run(site, "run").returncode == 0
    assert run(site, "fetch").returncode == 0
    site["sources"].insert(0, {"name": "influxdb", "kind": "influxdb"})  # of which the archive has nothing
    shutil.rmtree(tmp_path / "data")  # as before the first start of the service
    restored = run(site, "restore", "--files")
    assert restored.returncode == 0, restored.stderr
    assert "influxdb" not in restored.stdout
    assert (tmp_path / "data/flows.json").read_text() == "[1]"
    (tmp_path / "data/flows.json").write_text("[3]")
    assert not (Path(site["state"]) / "restored.json").exists()
    whole = run(site, "restore")
    assert whole.returncode == 0, whole.stderr
    assert (tmp_path / "data/flows.json").read_text() == "[3]"
    assert run(site, "restore", "--wait").stdout == whole.stdout  # of the program that it has waited for
    assert whole.stdout.splitlines()[-1] == "influxdb: the archive has nothing of it"
    assert run(site, "restore").returncode == 1


def test_a_restoration_that_was_interrupted_begins_with_a_new_copy(site, tmp_path, monkeypatch):
    assert run(site, "run").returncode == 0
    assert run(site, "fetch").returncode == 0
    monkeypatch.setattr(files.shutil, "move", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        MAIN.Backup(site).restore(files_only=False, wait=False)
    interrupted = run(site, "restore")
    assert interrupted.returncode == 1
    assert interrupted.stderr.startswith(
        "interrupted: the restoration of grafana was interrupted; run `tig-pi-backup fetch`"
    )
    assert run(site, "fetch").returncode == 0
    assert run(site, "restore").returncode == 0


def test_one_target_that_fails_does_not_keep_the_others_from_their_backup(site, disk):
    site["targets"].insert(0, {"name": "nas", "kind": "directory", "path": str(disk / "unplugged")})
    failed = run(site, "run")
    assert failed.returncode == 1
    assert {name: one["problem"] for name, one in status(site).items()} == {"nas": "unreachable", "stick": ""}
    fetched = run(site, "fetch")
    assert fetched.returncode == 0
    assert json.loads(fetched.stdout)["target"] == "stick"
    listed = run(site, "list")
    assert listed.returncode == 1
    assert listed.stdout.startswith("stick ")
    assert "unreachable: nas: " in listed.stderr


@pytest.fixture
def stick(tmp_path):
    """A file system on a disk of its own, with a label."""
    image, label = tmp_path / "stick.img", f"TIG{os.getpid()}"
    with image.open("wb") as file:
        file.truncate(40 << 20)
    subprocess.run(["/usr/sbin/mkfs.ext4", "-q", "-L", label, image], check=True)
    attached = subprocess.run(
        ["/usr/sbin/losetup", "--find", "--show", image], capture_output=True, text=True, check=False
    )
    if attached.returncode:
        pytest.skip(f"this machine has no loop device for the test: {attached.stderr}")
    link = Path("/dev/disk/by-label") / label
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.exists():  # as udev does where it runs
        link.symlink_to(attached.stdout.strip())
    yield label
    link.unlink(missing_ok=True)
    subprocess.run(["/usr/sbin/losetup", "--detach", attached.stdout.strip()], check=True)


def test_a_disk_is_mounted_for_the_backup_and_not_longer(site, tmp_path, stick):
    site["targets"] = [{"name": "stick", "kind": "disk", "label": stick}]
    done = run(site, "run")
    assert done.returncode == 0, done.stderr
    mounted = str(Path(site["scratch"]) / "disk")
    assert mounted not in Path("/proc/mounts").read_text()
    (tmp_path / "data/flows.json").write_text("[2]")
    assert run(site, "fetch").returncode == 0
    assert run(site, "restore").returncode == 0
    assert (tmp_path / "data/flows.json").read_text() == "[1]"
    (tmp_path / "data/large").write_bytes(random.Random(1).randbytes(60 << 20))
    assert run(site, "run").returncode == 1
    told = status(site)["stick"]
    assert told["problem"] == "disk_full", told["text"]
    assert mounted not in Path("/proc/mounts").read_text()


def test_a_full_target_is_named(site, tmp_path):
    """With a file system of its own, where this machine lets us mount one."""
    full = tmp_path / "full"
    full.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", full], capture_output=True, check=False
    ).returncode:
        pytest.skip("this machine does not mount a file system for the test")
    try:
        (tmp_path / "data/large").write_bytes(random.Random(1).randbytes(8 << 20))
        site["targets"][0]["path"] = str(full)
        assert run(site, "run").returncode == 1
        assert status(site)["stick"]["problem"] == "disk_full"
    finally:
        subprocess.run(["umount", full], check=True)


def test_a_damaged_archive_is_refused_and_the_one_before_it_is_offered(site, tmp_path, disk):
    (tmp_path / "data/large").write_bytes(random.Random(1).randbytes(8 << 20))
    site["keep"] = {"daily": 7}
    repository = Repository(site["targets"][0], "right", "pi", disk / "scratch")
    assert run(site, "run").returncode == 0
    (older,) = archives(site)
    known = set((disk / "stick/pi/data").rglob("*"))
    (tmp_path / "data/large").write_bytes(random.Random(2).randbytes(8 << 20))
    with repository.opened():
        done = repository.backup(MAIN.Backup(site).write)  # without the policy, which keeps one of a day
        repository.mark_checked(done["snapshot"], "here")
    for pack in set((disk / "stick/pi/data").rglob("*")) - known:
        if pack.is_file() and pack.stat().st_size > 1 << 20:
            _damage_one(pack)
    refused = run(site, "fetch")
    assert refused.returncode == 1
    assert "damaged: " in refused.stderr
    assert f"the one before it is {older}" in refused.stderr
    assert not (Path(site["state"]) / "fetched").exists()
    assert run(site, "restore").returncode == 1
    assert run(site, "fetch", "--archive", older).returncode == 0


def _damage_one(pack: Path) -> None:
    pack.chmod(0o600)
    with pack.open("r+b") as file:
        file.seek(1000)
        file.write(b"\xaa" * 16)


def test_an_archive_that_breaks_off_is_not_stored(site, disk):
    repository = Repository(site["targets"][0], "right", "pi", disk / "scratch")
    (disk / "scratch").mkdir(mode=0o700)

    def breaks_off(stream):
        archive.Writer(stream, {"site": "home"}).add_bytes("a", bytes(100000))
        raise Problem("source_damaged", "a database cannot be read")

    with repository.opened():
        repository.ready()
        with pytest.raises(Problem) as failed:
            repository.backup(breaks_off)
        assert failed.value.name == "source_damaged"
        assert repository.snapshots() == []


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [("site", "cabin", "other_site"), ("password", "wrong", "wrong_key"), ("name", "none", "no_repository")],
)
def test_an_archive_of_another_site_is_refused(site, key, value, problem):
    assert run(site, "run").returncode == 0
    site[key] = value
    refused = run(site, "fetch")
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"{problem}: ")


def test_an_archive_of_a_newer_service_is_refused(site, monkeypatch):
    site["sources"][0]["package"] = "dpkg"
    assert run(site, "run").returncode == 0
    newer = MAIN.packages() | {"dpkg": "0.1"}
    monkeypatch.setattr(MAIN, "packages", lambda: newer)
    backup = MAIN.Backup(site)
    with backup.alone(), pytest.raises(Problem) as refused:
        backup.fetch_from(site["targets"][0], MAIN.Wanted(), Path(site["state"]) / "fetched")
    assert refused.value.name == "older_package"
    assert "dpkg 0.1 is older than " in str(refused.value)


def test_two_of_these_programs_do_not_run_at_a_time(site):
    backup = MAIN.Backup(site)
    with backup.alone():
        refused = run(site, "run")
    assert refused.returncode == 1
    assert refused.stderr.startswith("busy: ")


# --- The sources ---


def test_files_that_change_meanwhile_are_of_one_moment(tmp_path):
    """Two files that are written one after the other, as flows and credentials are, belong together in the archive."""
    root = tmp_path / "data"
    root.mkdir()
    is_done = threading.Event()

    def write(number: int) -> None:
        for name in ("flows.json", "flows_cred.json"):
            (root / f".{name}").write_text(str(number))
            (root / f".{name}").replace(root / name)

    def keep_writing() -> None:
        number = 1
        while not is_done.wait(0.02):
            number += 1
            write(number)

    write(1)
    thread = threading.Thread(target=keep_writing)
    thread.start()
    try:
        for attempt in range(20):
            stream = io.BytesIO()
            writer = archive.Writer(stream, {})
            try:
                files.save_directory(writer, "node-red", {"path": str(root), "exclude": [".*"]}, tmp_path)
            except Problem:  # changes faster than it can be read
                continue
            writer.close()
            archive.unpack(io.BytesIO(stream.getvalue()), tmp_path / str(attempt))
            one, other = (
                (tmp_path / str(attempt) / "node-red" / name).read_text() for name in ("flows.json", "flows_cred.json")
            )
            assert int(one) - int(other) in (0, 1)
    finally:
        is_done.set()
        thread.join()


def test_a_copy_that_is_too_large_for_the_memory_lies_on_the_card(tmp_path, disk):
    memory, card = disk, tmp_path / "card"
    assert scratch.place_for(1000, memory, card) == memory
    assert not card.exists()
    assert scratch.place_for(1 << 50, memory, card) == card
    assert card.stat().st_mode & 0o777 == 0o700


def test_a_damaged_sqlite_database_is_named(tmp_path):
    (tmp_path / "grafana.db").write_bytes(b"no database" * 1000)
    with pytest.raises(Problem) as refused:
        files.save_sqlite(archive.Writer(io.BytesIO(), {}), "grafana", {"path": str(tmp_path / "grafana.db")}, tmp_path)
    assert refused.value.name == "source_damaged"


def test_retained_messages_are_restored_to_a_broker_that_has_newer_ones(tmp_path, monkeypatch):
    old, new = Broker(tmp_path / "old"), Broker(tmp_path / "new")

    def retain(broker: Broker, **messages: str) -> None:
        client = broker.client("device")
        for name, payload in messages.items():
            client.publish(f"tig/{name}/status", payload, qos=1, retain=True).wait_for_publish(10)
        broker.close(client)

    def retained(broker: Broker) -> dict[str, str]:
        client = broker.client("reader")
        client.subscribe("tig/#", qos=1)
        client.told.get(timeout=10)
        time.sleep(0.5)
        found = dict(client.told.queue)
        broker.close(client)
        return {topic: payload.decode() for topic, payload in found.items()}

    for broker in (old, new):
        assert broker.start()
    fake = tmp_path / "bin/systemctl"
    fake.parent.mkdir()
    fake.write_text(f"#!/bin/sh\necho {old.broker.process.pid}\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    retain(old, one="old", two="old", three="old")
    retain(new, two="new", four="new")
    away = new.client("away", clean=False)
    away.subscribe("waiting", qos=1)
    new.close(away)

    stream = io.BytesIO()
    writer = archive.Writer(stream, {})
    mosquitto.save(writer, "mosquitto", {"path": str(old.path(old.store)), "unit": "mosquitto.service"}, tmp_path)
    manifest = writer.close()
    assert manifest["sources"]["mosquitto"]["retained"] == 3
    archive.unpack(io.BytesIO(stream.getvalue()), tmp_path / "unpacked")
    old.stop()
    client = new.client("device")
    client.publish("waiting", "waits", qos=1).wait_for_publish(10)
    new.close(client)
    new.stop()
    said = mosquitto.restore(
        tmp_path / "unpacked/mosquitto", {}, {"path": str(new.path(new.store))}, tmp_path, tmp_path / "aside"
    )
    assert said == ["restored 2 retained messages; 1 topics have a newer one"]
    assert new.start()
    assert retained(new) == {
        "tig/one/status": "old",
        "tig/two/status": "new",
        "tig/three/status": "old",
        "tig/four/status": "new",
    }
    back = new.client("away", clean=False)
    wait_until(lambda: back.told.qsize(), "the message that waited")
    assert back.told.get() == ("waiting", b"waits")
    new.close(back)
    new.stop()


@pytest.fixture
def databases(tmp_path):
    started = []

    def start(name: str) -> Database:
        database = Database(tmp_path / name)
        database.path(database.directory).mkdir(parents=True)
        assert database.start()
        started.append(database)
        database.query("CREATE USER admin WITH PASSWORD 'secret' WITH ALL PRIVILEGES", login=False)
        return database

    yield start
    for database in started:
        database.stop()


def source_of(database: Database) -> dict:
    return {
        "url": f"http://127.0.0.1:{database.port}",
        "user": "admin",
        "password": "secret",
        "backup_address": f"127.0.0.1:{database.rpc_port}",
    }


def saved(database: Database, scratch: Path) -> tuple[io.BytesIO, dict]:
    """An archive of the database, and what its manifest says of it."""
    stream = io.BytesIO()
    writer = archive.Writer(stream, {})
    influxdb.save(writer, "influxdb", source_of(database), scratch)
    return stream, writer.close()["sources"]["influxdb"]


QUERY = (
    "CREATE CONTINUOUS QUERY hourly ON iot RESAMPLE FOR 2h BEGIN SELECT mean(*) INTO iot.averages.:MEASUREMENT FROM iot.autogen.m"
    " GROUP BY time(1h), * END"
)


def test_a_database_is_backed_up_while_points_arrive_and_added_to_another(databases, tmp_path):
    old = databases("old")
    old.query("CREATE DATABASE iot")
    old.query("CREATE RETENTION POLICY averages ON iot DURATION INF REPLICATION 1")
    old.query(QUERY)
    old.write(old.thursday - 40 * 86400, "old")
    old.write(old.thursday - 20000, "new")
    lines = [
        f'm,device=a\\ b\\,c,room=\\"x count=1i,flag=true,text="é \\"q\\"" {old.thursday - 5000 + at}'
        for at in range(100)
    ]
    old.ask("/write?db=iot&precision=s", "\n".join(lines).encode())
    old.ask("/write?db=iot&rp=averages&precision=s", f"m,device=old mean=1.25 {old.thursday - 30000}".encode())
    old.ask("/write?db=iot", b"m,device=flowing value=0")  # the backup has what is there when it begins
    is_done = threading.Event()

    def flow() -> None:
        number = 0
        while not is_done.wait(0.01):
            number += 1
            old.ask("/write?db=iot", f"m,device=flowing value={number}".encode())

    thread = threading.Thread(target=flow)
    thread.start()
    try:
        stream = io.BytesIO()
        writer = archive.Writer(stream, {})
        influxdb.save(writer, "influxdb", source_of(old), tmp_path)
        manifest = writer.close()
    finally:
        is_done.set()
        thread.join()
    about = manifest["sources"]["influxdb"]
    assert all(shard["steady"] for shard in about["shards"])
    assert len(about["shards"]) >= 3
    archive.unpack(io.BytesIO(stream.getvalue()), tmp_path / "unpacked", influxdb.is_shard)

    new = databases("new")
    new.query("CREATE DATABASE iot")
    new.query("CREATE RETENTION POLICY host ON iot DURATION 1w REPLICATION 1")
    new.ask("/write?db=iot&rp=host", b"cpu usage=1")
    later = int(time.time()) + 50  # than the backup
    new.ask(
        "/write?db=iot&precision=s",
        f"m,device=old value=5 {later}\nm,device=here value=7 {old.thursday - 1000}".encode(),
    )
    counts = 'SELECT count("value") FROM iot.autogen.m WHERE time < {}s GROUP BY device'
    newest_of = {"database": "iot", "measurement": "m", "tag": "device"}
    done = influxdb.restore(
        tmp_path / "unpacked/influxdb",
        about,
        source_of(new) | {"newest_of": newest_of},
        tmp_path / "scratch",
        tmp_path / "state/before-1/influxdb",
    )
    assert "added 3 points" in done[1]
    # Only those of the archive count, not those that the new database had.
    assert about["newest"].keys() == {"old", "new", "a b,c", "flowing"}
    assert about["newest"]["new"] < old.thursday
    assert about["newest"]["a b,c"] == old.thursday - 5000 + 99
    assert new.query("SELECT usage FROM host.cpu")

    def counted(database: Database) -> dict[str, int]:
        answer = database.query(counts.format(about["until"] // 10**9))
        return {series["tags"]["device"]: series["values"][0][1] for series in answer}

    expected = counted(old) | {"here": 1}
    assert counted(new) == expected
    for query in (
        "SELECT \"count\", flag, text FROM m WHERE device = 'a b,c'",
        "SELECT mean FROM averages.m",
    ):
        assert new.query(query) == old.query(query)
        assert new.query(query)
    assert [series["values"] for series in new.query("SHOW CONTINUOUS QUERIES") if series["name"] == "iot"] == [
        [["hourly", QUERY]]
    ]
    assert new.query(f"SELECT value FROM m WHERE device = 'old' AND time = {later}s")
    assert "tig_pi_before_restore" not in str(new.query("SHOW DATABASES"))
    assert list((tmp_path / "state/before-1/influxdb/iot").glob("*.manifest"))


def test_a_backlog_that_arrives_during_a_backup_leaves_no_hole_before_the_newest_point(
    databases, tmp_path, monkeypatch
):
    """A device sends the oldest reading first. What comes after its newest one in the archive, it is asked for."""
    server = databases("old")
    server.query("CREATE DATABASE iot")
    week, monday = 604800, 345600
    border = (server.thursday // week - 1) * week + monday  # of two shards

    def write(device: str, first: int, last: int) -> None:
        lines = [f"m,device={device} value=1 {border + at}" for at in range(first, last)]
        server.ask("/write?db=iot&precision=s", "\n".join(lines).encode())

    write("other", -1, 1)
    write("late", -50, -30)
    copied, backlog = influxdb._copied, [(-30, 10)]

    def copied_while_a_backlog_arrives(*arguments):
        copy = copied(*arguments)
        while backlog:
            write("late", *backlog.pop())
        return copy

    monkeypatch.setattr(influxdb, "_copied", copied_while_a_backlog_arrives)
    _, about = saved(server, tmp_path)
    late = [
        shard["contents"]["m"].get("device=late", {}) for shard in sorted(about["shards"], key=lambda s: s["start"])
    ]
    counts = [fields.get("value", {}).get("count", 0) for fields in late]
    assert counts in ([50, 0], [50, 10])


def test_a_restored_database_that_is_not_as_it_was_gives_way_to_the_present_one(databases, tmp_path, monkeypatch):
    monkeypatch.setattr(influxdb, "SECONDS_TO_OPEN", 5)
    old, new = databases("old"), databases("new")
    old.query("CREATE DATABASE iot")
    old.write(old.thursday - 20000, "old")
    stream, about = saved(old, tmp_path)
    archive.unpack(io.BytesIO(stream.getvalue()), tmp_path / "unpacked", influxdb.is_shard)
    about["shards"][0]["contents"]["m"]["device=old"]["value"]["sum"] += 1
    new.query("CREATE DATABASE iot")
    new.query("CREATE RETENTION POLICY averages ON iot DURATION INF REPLICATION 1")
    new.query(QUERY)
    new.ask("/write?db=iot", b"m,device=here value=7")
    new.query("CREATE USER telegraf WITH PASSWORD 'x'")
    new.query("GRANT WRITE ON iot TO telegraf")
    with pytest.raises(Problem) as refused:
        influxdb.restore(
            tmp_path / "unpacked/influxdb",
            about,
            source_of(new),
            tmp_path / "scratch",
            tmp_path / "state/before-1/influxdb",
        )
    assert refused.value.name == "differs"
    assert "value of m,device=old: other values" in str(refused.value)
    assert [series["tags"] for series in new.query("SELECT value FROM m GROUP BY device")] == [{"device": "here"}]
    assert "hourly" in str(new.query("SHOW CONTINUOUS QUERIES"))
    assert new.query("SHOW GRANTS FOR telegraf")[0]["values"] == [["iot", "WRITE"]]


@pytest.mark.parametrize("is_changed", [False, True], ids=["unchanged", "changed"])
def test_a_restored_shard_with_the_files_of_the_archive_is_not_read_again(databases, tmp_path, monkeypatch, is_changed):
    """Of a year of readings, that would take longer than everything else of a restoration."""
    monkeypatch.setattr(influxdb, "SECONDS_TO_OPEN", 3)
    old, new = databases("old"), databases("new")
    old.query("CREATE DATABASE iot")
    old.write(old.thursday - 21 * 86400, "old")
    old.write(old.thursday - 20000, "new")
    stream, about = saved(old, tmp_path)
    archive.unpack(io.BytesIO(stream.getvalue()), tmp_path / "unpacked", influxdb.is_shard)
    tool, query, queries = influxdb.Database.tool, influxdb.Database.query, []

    def change_what_was_restored(self, verb, *arguments):
        tool(self, verb, *arguments)
        if is_changed:
            wait_until(lambda: len(new.query("SELECT last(value) FROM m GROUP BY device")) == 2, "open shards")
            new.query(f"DELETE FROM m WHERE time = {old.thursday - 21 * 86400 + 50}s")

    def listen(self, statement, *arguments):
        queries.append(statement)
        return query(self, statement, *arguments)

    monkeypatch.setattr(influxdb.Database, "tool", change_what_was_restored)
    monkeypatch.setattr(influxdb.Database, "query", listen)
    source = source_of(new) | {"data": str(new.path(new.directory) / "data")}
    aside = tmp_path / "state/before-1/influxdb"
    arguments = (tmp_path / "unpacked/influxdb", about, source, tmp_path / "scratch", aside)
    if is_changed:
        with pytest.raises(Problem, match="value of m,device=old: 2999 points instead of 3000"):
            influxdb.restore(*arguments)
    else:
        assert influxdb.restore(*arguments) == ["restored 6000 points of database iot"]
        assert not [statement for statement in queries if "sum(" in statement]


# --- The controller keeps archives ---


def program_of(site: dict, *arguments: str) -> list[str]:
    path = Path(site["state"]).with_name("backup.json")
    path.write_text(json.dumps(site))
    return [sys.executable, str(REPOSITORY / "roles/backup/files/tig-pi-backup"), *arguments, f"--configuration={path}"]


def archive_of(site: dict, place: Path, verb: str, *more: str) -> subprocess.CompletedProcess[bytes]:
    """Run bin/archive as the controller does."""
    command = [sys.executable, REPOSITORY / "bin/archive", verb, place, "pi", *more]
    environment = {**os.environ, "BACKUP_PASSWORD": site["password"]}
    return subprocess.run(command, env=environment, capture_output=True, check=False)


def test_the_controller_stores_what_a_host_prints_and_a_new_host_gets_it_back(site, tmp_path, disk):
    place = disk / "controller/home/pi"
    site["targets"] = [{"name": "laptop", "kind": "controller"}]
    assert run(site, "run").returncode == 0
    assert status(site)["laptop"]["succeeded"] == 0
    pulled = archive_of(site, place, "pull", *program_of(site, "create"))
    result = json.loads(pulled.stdout)
    assert pulled.returncode == 0, result
    said = json.dumps({**result, "what": "backup", "target": "laptop"})
    subprocess.run(program_of(site, "record"), input=said, text=True, check=True)
    assert abs(status(site)["laptop"]["succeeded"] - time.time()) < 60
    assert status(site)["laptop"]["archives"] == 1

    (tmp_path / "data/flows.json").write_text("[2]")
    assert run(site, "fetch").returncode == 1  # the host cannot read it by itself
    ((_, archive_id, _),) = json.loads(archive_of(site, place, "list").stdout)
    dumped = archive_of(site, place, "dump", archive_id).stdout
    broken = subprocess.run(program_of(site, "fetch", "--stdin"), input=dumped[:3000], capture_output=True, check=False)
    assert broken.returncode == 1
    assert b"damaged: " in broken.stderr
    subprocess.run(program_of(site, "fetch", "--stdin"), input=dumped, check=True)
    assert run(site, "restore").returncode == 0
    assert (tmp_path / "data/flows.json").read_text() == "[1]"


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        (["sh", "-c", "head --bytes=6000 {archive}"], "damaged"),
        (["sh", "-c", "cat {archive}; exit 3"], "unreachable"),
        (["sh", "-c", "echo 'busy: another backup or restore is running' >&2; exit 1"], "busy"),
        (["sh", "-c", "echo 'ssh: connect to host pi port 22: No route to host' >&2; exit 255"], "unreachable"),
        (["sh", "-c", "echo 'sudo: a password is required' >&2; exit 1"], "sudo"),
    ],
)
def test_what_is_no_whole_archive_is_not_stored_and_the_problem_has_a_name(site, tmp_path, disk, command, problem):
    whole = tmp_path / "archive.tar"
    with whole.open("wb") as file:
        subprocess.run(program_of(site, "create"), stdout=file, check=True)
    place = disk / "controller"
    failed = archive_of(site, place, "pull", *(part.format(archive=whole) for part in command))
    assert failed.returncode == 1
    assert json.loads(failed.stdout)["problem"][0] == problem
    assert json.loads(archive_of(site, place, "list").stdout) == []


# --- Drills ---


class Listing(http.server.BaseHTTPRequestHandler):
    """A service that lists its users to its administrator."""

    def do_GET(self):
        is_known = self.headers["Authorization"] == "Basic " + base64.b64encode(b"admin:secret").decode()
        self.send_response(200 if is_known else 401)
        self.end_headers()
        self.wfile.write(json.dumps([{"login": "me"}, {"login": "admin"}]).encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def listing():
    with http.server.HTTPServer(("127.0.0.1", 0), Listing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/users"
        server.shutdown()


def test_a_restored_host_is_compared_with_its_archive(site, tmp_path, listing):
    sources = {source["name"]: source for source in site["sources"]}
    asks = [{"name": "user", "url": listing, "key": "login"}]
    sources["grafana"] |= {"user": "admin", "password": "secret", "asks": asks}
    sources["node-red"] |= {"names": {"flows.json": "id"}, "rewritten": ["runtime.json"]}
    (tmp_path / "data/flows.json").write_text('[{"id": "a"}]')
    (tmp_path / "data/runtime.json").write_text("{}")
    for verb in ("run", "fetch", "restore"):
        assert run(site, verb).returncode == 0

    def compared() -> dict:
        found = run(site, "compare")
        assert found.returncode == 0, found.stderr
        return json.loads(found.stdout)

    (tmp_path / "data/runtime.json").write_text("{1}")
    assert compared()["differences"] == []
    assert compared()["names"] == {"user": ["admin", "me"], "flows.json": ["a"]}
    with contextlib.closing(sqlite3.connect(tmp_path / "grafana.db")) as database:
        database.execute("DELETE FROM user")
        database.commit()
    (tmp_path / "data/flows.json").write_text("[]")
    grafana, flows = compared()["differences"]
    assert grafana.endswith("grafana.db has 0 rows of user instead of 1")
    assert flows.endswith("flows.json is not as in the archive")


def test_a_list_that_the_archive_lacks_is_a_difference(site, listing):
    site["sources"][0] |= {
        "user": "admin",
        "password": "other",
        "asks": [{"name": "user", "url": listing, "key": "login"}],
    }
    for verb in ("run", "fetch", "restore"):
        assert run(site, verb).returncode == 0
    (difference,) = json.loads(run(site, "compare").stdout)["differences"]
    assert "the archive has no list of each user" in difference


def test_the_result_of_a_drill_stays_in_the_status(site):
    assert run(site, "run").returncode == 0
    for problem in ([], ["drill", "Grafana has no user me"]):
        said = json.dumps({"what": "drill", "target": "stick", "time": "2026-11-29T03:00:00Z", "problem": problem})
        subprocess.run(program_of(site, "record"), input=said, text=True, check=True)
    assert run(site, "run").returncode == 0
    told = status(site)["stick"]
    assert abs(told["proven"] - time.time()) < 60
    assert (told["proven_archive"], told["drill_failed"]) == ("2026-11-29T03:00:00Z", 1)
    assert told["drill_text"] == "Grafana has no user me"


def test_a_drill_that_was_aborted_shows_nothing_about_an_archive_and_ends_with_the_next_one(site, tmp_path):
    site["targets"].append({**site["targets"][0], "name": "other"})
    assert run(site, "run").returncode == 0

    def record(**said) -> dict[str, tuple]:
        subprocess.run(program_of(site, "record"), input=json.dumps(said), text=True, check=True)
        return {name: (one["drill_failed"], one["drill_aborted"]) for name, one in status(site).items()}

    moment = "2026-11-29T03:00:00Z"
    record(what="drill", target="stick", time=moment, problem=["drill", "Grafana has no user me"])
    aborted = record(what="aborted drill", target="", problem=["drill", "no image"])
    assert aborted == {"stick": (1, 1), "other": (0, 1)}
    assert status(site)["other"]["drill_aborted_text"] == "no image"
    # With whichever archive it was carried out.
    assert record(what="drill", target="other", time=moment) == {"stick": (1, 0), "other": (0, 0)}


def test_devices_owe_their_readings_until_they_have_sent_them_or_something_else_is_restored(site):
    def owing() -> list[str]:
        return json.loads(run(site, "status").stdout)["owing"]

    def replayed(done: list[str], owing: list[str]) -> None:
        said = json.dumps({"done": done, "owing": owing})
        subprocess.run(program_of(site, "replayed"), input=said, text=True, check=True)

    state = Path(site["state"])
    state.mkdir(parents=True, exist_ok=True)
    (state / "restored.json").write_text('{"restored": 1000}')
    assert owing() == []
    replayed(["shed"], ["garage", "cellar"])
    assert owing() == ["cellar", "garage"]
    replayed(["garage"], [])
    assert owing() == ["cellar"]
    (state / "restored.json").write_text('{"restored": 2000}')
    assert owing() == []


def test_what_restores_have_replaced_is_removed_after_its_time(site):
    state = Path(site["state"])
    old, waiting, young = (state / f"before-restore-{number}" for number in range(3))
    for directory in (old, waiting, young):
        (directory / "influxdb").mkdir(parents=True)
        (directory / "influxdb/file").write_text("12345")
    (waiting / "influxdb/iot.to-add").touch()  # points that a restore did not get to add
    for directory in (old, waiting):
        os.utime(directory, (time.time() - 31 * 86400,) * 2)
    assert json.loads(run(site, "status").stdout)["before_restore"]["bytes"] == 15
    assert run(site, "run").returncode == 0
    assert [directory.exists() for directory in (old, waiting, young)] == [False, True, True]


def test_telegraf_reports_what_is_late(site, tmp_path):
    """With the real Telegraf, for the alert rules."""
    day, now = 86400, int(time.time())
    start = status_module.waiting("stick", {}) | {"late_after": 7 * day, "drill_late_after": 60 * day}
    targets = {
        "new": {},
        "never": {"since": now - 8 * day},
        "good": {"since": 1, "succeeded": now - 6 * day, "proven": now - 59 * day},
        "late": {"since": 1, "succeeded": now - 8 * day, "proven": now - 61 * day},
        "undemanded": {"succeeded": now, "proven": now - 61 * day, "drill_late_after": 0},
    }
    status_module.write(tmp_path, {name: start | {"target": name} | more for name, more in targets.items()})
    text = (REPOSITORY / "templates/telegraf/backup.conf.j2").read_text().split("\n", 1)[1]
    (tmp_path / "telegraf.conf").write_text(text.replace("/var/lib/tig-pi/backup", str(tmp_path)))
    command = [program("telegraf", "telegraf"), "--config", tmp_path / "telegraf.conf", "--test"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = {}
    for line in said.splitlines():
        name = re.search(r"target=(\w+)", line)[1]
        found[name] = dict(re.findall(r"\b(late|drill_late)=(\d)", line))
    assert found == {
        "new": {"late": "0"},
        "never": {"late": "1"},
        "good": {"late": "0", "drill_late": "0"},
        "late": {"late": "1", "drill_late": "1"},
        "undemanded": {"late": "0", "drill_late": "0"},
    }


# --- A new laptop ---


def recover(*arguments: str, key: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "RECOVERY_KEY": key}
    command = [sys.executable, REPOSITORY / "bin/recover", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_the_inventory_comes_back_with_nothing_but_a_backup_and_the_recovery_key(site, disk, tmp_path, monkeypatch):
    key = recovery_key.generate(bytes(20))
    inventory = tmp_path / "inventory"
    (inventory / "secrets/backup").mkdir(parents=True)
    (inventory / "secrets/wifi").write_text("sesame")
    (inventory / "secrets/wifi").chmod(0o600)
    (inventory / "secrets/backup/recovery_key").write_text(key)
    (inventory / "hosts.yml").write_text("site: {}")
    text = site_description._encrypted(
        site_description._packed(inventory), recovery_key.description_password(bytes(20)).encode()
    )
    Path(site["bundle"]).write_text(text)
    site["password"] = recovery_key.repository_password(bytes(20))
    shutil.rmtree(disk / "stick/pi")  # its password is another one
    (tmp_path / "data/large").write_bytes(random.Random(1).randbytes(20 << 20))
    assert run(site, "run").returncode == 0

    typed = key.replace("-", " ").lower()
    monkeypatch.setenv("HOME", str(disk))
    back = recover("~/stick/pi", str(tmp_path / "back"), key=typed)
    assert back.returncode == 0, back.stderr
    for name in ("hosts.yml", "secrets/wifi"):
        assert (tmp_path / "back" / name).read_text() == (inventory / name).read_text()
    assert (tmp_path / "back/secrets/wifi").stat().st_mode & 0o777 == 0o600
    assert recovery_key.parse((tmp_path / "back/secrets/backup/recovery_key").read_text()) == bytes(20)
    assert (tmp_path / "back/secrets/backup/recovery_key").stat().st_mode & 0o777 == 0o600

    for location, other, problem in (
        (disk / "stick/pi", recovery_key.generate(bytes(19) + b"\1"), "another recovery key"),
        (disk / "stick/pi", key[:-1] + ("A" if key[-1] != "A" else "B"), "typing error"),
        (disk / "stick", key, "there is no repository"),
    ):
        refused = recover(str(location), str(tmp_path / "other"), key=other)
        assert refused.returncode != 0
        assert problem in refused.stderr
        assert not (tmp_path / "other").exists()
    assert recover(str(disk / "stick/pi"), str(tmp_path / "back"), key=key).returncode != 0


def test_a_database_with_points_in_another_policy_than_its_default_is_not_lost(databases, tmp_path):
    """On a new Pi there are metrics of the host, and no reading yet."""
    server = databases("new")
    server.query("CREATE DATABASE iot")
    server.query("CREATE RETENTION POLICY host ON iot DURATION 1w REPLICATION 1")
    server.ask("/write?db=iot&rp=host", b"cpu usage=1")
    assert influxdb.Database(source_of(server), tmp_path).has_points("iot")


@pytest.mark.parametrize("killed_at", ["DROP DATABASE", "SHOW FIELD KEYS", "SELECT * INTO"])
def test_a_restoration_that_was_killed_is_completed_by_the_next_one(databases, tmp_path, monkeypatch, killed_at):
    old, new = databases("old"), databases("new")
    old.query("CREATE DATABASE iot")
    old.write(old.thursday - 20000, "old")
    stream, about = saved(old, tmp_path)
    new.query("CREATE DATABASE iot")
    new.ask("/write?db=iot", b"m,device=here value=7")

    class Killed(BaseException):
        """As by SIGKILL: nothing that tidies up after an error runs."""

    query = influxdb.Database.query

    def killed(self, statement, timeout=300):
        answer = query(self, statement, timeout)
        if killed_at in statement:
            raise Killed
        return answer

    monkeypatch.setattr(influxdb.Database, "query", killed)
    for number in (1, 2):
        archive.unpack(io.BytesIO(stream.getvalue()), tmp_path / f"unpacked{number}", influxdb.is_shard)
        aside = tmp_path / f"state/before-{number}/influxdb"
        with contextlib.suppress(Killed):
            influxdb.restore(
                tmp_path / f"unpacked{number}/influxdb", about, source_of(new), tmp_path / "scratch", aside
            )
        monkeypatch.setattr(influxdb.Database, "query", query)
    found = {
        series["tags"]["device"]: len(series["values"]) for series in new.query("SELECT value FROM m GROUP BY device")
    }
    assert found == {"old": old.points, "here": 1}
    assert list((tmp_path / "state").rglob("*.to-add")) == []


def test_a_host_that_closes_the_connection_is_unreachable_and_no_damage(site):
    def close_connections():
        with contextlib.suppress(OSError):
            while True:
                listener.accept()[0].close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=close_connections, daemon=True).start()
        there = {"kind": "ssh", "host": "127.0.0.1", "port": listener.getsockname()[1], "user": "me"}
        site["targets"] = [{"name": f"attic{n}", **there, "key": "", "host_key": "ssh-ed25519 AAAA"} for n in range(5)]
        run(site, "run")
        listener.shutdown(socket.SHUT_RDWR)
    for name, found in status(site).items():
        assert found["problem"] == "unreachable", (name, found)
        assert "kex_exchange_identification" in found["text"], (name, found)  # in the words of ssh


def test_a_problem_quotes_the_line_that_shows_it(site, disk):
    assert run(site, "run").returncode == 0
    _damage(disk / "stick/pi/data")
    assert run(site, "run").returncode == 1
    text = status(site)["stick"]["text"]
    assert text.startswith("the repository is damaged (")
    assert "packs" not in text.split()[-2:]
    assert "%" not in text
