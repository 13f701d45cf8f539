"""make card SELF=1: what is refused, what the card has, and what a Pi does with it. Scenario `offline` boots one."""

from __future__ import annotations

import base64
import contextlib
import functools
import io
import json
import os
import re
import shutil
import socket
import subprocess
import tarfile
import time
import types
import urllib.error
import urllib.request
from datetime import UTC, datetime
from pathlib import Path

import blank_card
import pytest
import repository
import yaml
from ansible.errors import AnsibleError
from ansible.plugins.loader import lookup_loader
from ansible_collections.tig_pi.stack.plugins.filter.card import self_problems
from ansible_collections.tig_pi.stack.plugins.filter.openpgp import openpgp_fingerprint
from ansible_collections.tig_pi.stack.plugins.plugin_utils import recovery_key
from project import CONTRACT, REPOSITORY, load
from test_card import KEY, module, sha256
from wheels import Wheel

STICK = {"name": "stick", "kind": "disk", "label": "BACKUP"}
LAPTOP = {"name": "laptop", "kind": "controller"}
RECOVERY_KEY = recovery_key.generate(bytes(range(20)))
SIGNATURE = r"The signature of the feed .*/sdb1/feed \(InRelease\) is not valid\. Copy the feed again"
WHEEL = "python/one-1.0-py3-none-any.whl"
GOOD = {"setup": "1", "hosts": ["pi"], "targets": [LAPTOP, STICK], "has_key": True}


class TestRefusals:
    def test_of_nothing_that_works(self):
        assert list(self_problems(GOOD)) == []
        assert list(self_problems({**GOOD, "targets": [], "has_key": False})) == []
        assert list(self_problems({**GOOD, "setup": "new", "targets": [LAPTOP], "has_key": False})) == []

    @pytest.mark.parametrize(
        ("wrong", "words"),
        [
            ({"setup": "maybe"}, "SELF is 'maybe': it is 1"),
            ({"hosts": ["pi", "attic"]}, "this one has 2, attic, pi"),
            ({"targets": [LAPTOP]}, "all of site_backup_targets are on this computer"),
            ({"has_key": False}, "secrets/backup/recovery_key"),
        ],
    )
    def test_name_what_is_wrong(self, wrong, words):
        (problem,) = self_problems({**GOOD, **wrong})
        assert words in problem


@pytest.fixture(scope="module")
def inventory(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("site") / "home"
    shutil.copytree(REPOSITORY / "inventories/home", path, ignore=shutil.ignore_patterns("secrets", "backups"))
    (path / "host_vars/pi.yml").write_text(
        f"card_authorized_keys: [{KEY}]\nsite_backup_targets: [{json.dumps(STICK)}]\n"
    )
    (path / "secrets/backup").mkdir(parents=True)
    (path / "secrets/backup/recovery_key").write_text(RECOVERY_KEY + "\n")
    return path


@pytest.fixture
def write(inventory, tmp_path):
    """Write a card with SELF=1."""
    card = blank_card.create(tmp_path / "card.img")

    def run(**variables) -> tuple[subprocess.CompletedProcess[str], Path]:
        variables = {"card_path": str(card), "card_consent": True, "self_setup": 1, **variables}
        variables["ansible_ssh_common_args"] = f"-o UserKnownHostsFile={tmp_path}/known_hosts"
        command = [
            REPOSITORY / "bin/play",
            f"--inventory={inventory}",
            "playbooks/card.yml",
            f"--extra-vars={json.dumps(variables)}",
        ]
        return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False), card

    return run


def unpacked(bundle: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(base64.b64decode(bundle)), mode="r:gz") as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}


@pytest.mark.parametrize(("earliest", "is_set"), [(1000, False), (3000, True)])
def test_the_clock_is_at_least_at_the_time_of_the_archive(ansible_playbook, tmp_path, earliest, is_set):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/date").write_text(f'#!/bin/sh\n[ "$1" = +%s ] && echo 2000 || echo "$@" | tee {tmp_path}/called\n')
    (tmp_path / "bin/date").chmod(0o755)
    task = {"ansible.builtin.import_tasks": str(REPOSITORY / "playbooks/tasks/set_clock.yml")}
    play = {"hosts": "localhost", "gather_facts": False, "tasks": [task]}
    play |= {"environment": {"PATH": f"{tmp_path}/bin:/usr/bin:/bin"}}
    play |= {"vars": {"base_set_clock": True, "clock_earliest": earliest}}
    result = ansible_playbook(json.dumps([play]))
    assert result.returncode == 0, result.stdout
    assert (tmp_path / "called").exists() == is_set
    assert not is_set or (tmp_path / "called").read_text() == "--utc --set=@3000\n"


def test_make_passes_it_on():
    make = ["make", "--dry-run", "card", "CARD=/dev/sdb", "SELF=new", "INVENTORY=mine"]
    said = subprocess.run(make, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    assert "playbooks/card.yml" in said
    assert "--extra-vars self_setup=new" in said


class TestCard:
    def test_has_the_project_and_the_site_with_all_secrets_but_the_recovery_key(self, inventory, write):
        done, card = write()
        assert done.returncode == 0, done.stdout
        there = blank_card.read(card)
        files = unpacked(there["tig-pi.bundle"])
        assert files["bin/self"] == (REPOSITORY / "bin/self").read_bytes()
        assert {"playbooks/rebuild_site.yml", "inventories/home/hosts.yml", "roles/base/tasks/main.yml"} <= files.keys()

        about = json.loads(files["self.json"])
        assert (about["name"], about["url"]) == ("raspberrypi.local", "http://raspberrypi.local:3000")
        assert (about["restores"], about["offline"], about["inventory"]) == (True, False, ["inventories/home"])
        assert about["time"] % 86400 == 0
        variables = about["variables"]
        assert variables["backup_description"].startswith("$ANSIBLE_VAULT")
        assert variables["ansible_connection"] == "local"

        # The recovery key stays here; all other secrets were generated here, and not on the Pi, which forgets them.
        assert "inventories/home/secrets/backup/recovery_key" not in files
        assert RECOVERY_KEY.encode() not in b"".join(files.values())
        text = "".join(path.read_text() for path in (REPOSITORY / "playbooks/group_vars/all").glob("*.yml"))
        used = set(re.findall(r"lookup\('tig_pi\.stack\.secret', '([a-z_/]+)'\)", text))
        assert {"influxdb/admin", "grafana/secret_key", "node_red/credential_secret"} <= used
        for name in used | {"mosquitto/matslopy4", f"mosquitto/{CONTRACT['operator']}"}:
            secret = (inventory / "secrets" / name).read_text()
            assert files[f"inventories/home/secrets/{name}"].decode() == secret
            assert secret.strip() not in done.stdout

        assert set(about["secret_files"]) >= {"tig-pi.bundle", "network-config", "vendor-data"}
        assert about["ports"] == [1883, 3000, 1880]
        message = re.sub("\n +", " ", done.stdout)
        assert "and restores the newest backup. Its screen and http://raspberrypi.local show" in message

        day = time.time() // 86400
        again, _ = write()
        assert "changed=0" in again.stdout or time.time() // 86400 > day

    def test_keeps_its_secret_files_until_the_first_boot_has_unpacked_them(self, write, tmp_path):
        done, card = write()
        assert done.returncode == 0, done.stdout
        there = blank_card.read(card)
        boot, here, instance = tmp_path / "boot", tmp_path / "self", tmp_path / "instance"
        boot.mkdir()
        instance.mkdir()
        for name, content in there.items():
            (boot / name).write_bytes(content)
        secret = {"network-config", "vendor-data", "tig-pi.bundle"}
        shell, option, script = yaml.safe_load(there["user-data"])["runcmd"][-1]

        def first_boot(install: str) -> set[str]:
            """The secret files that are left when `bin/self install` has ended in this way."""
            text = script.replace("/var/lib/tig-pi/self/bin/self install", install)
            places = {"/boot/firmware": boot, "/var/lib/tig-pi/self": here, "/var/lib/cloud/instance": instance}
            for path, other in places.items():
                text = text.replace(path, str(other))
            subprocess.run([shell, option, text], check=False)
            return secret & set(os.listdir(boot))

        assert first_boot("false") == secret
        assert (here / "bin/self").exists()
        (boot / "network-config").unlink()  # the power was cut while they were being removed
        assert first_boot("true") == set()
        assert first_boot("false") == set()
        assert "user-data" in os.listdir(boot)

    def test_may_not_have_the_recovery_key_in_another_file(self, inventory, write):
        note = inventory / "group_vars/site/secret.yml"
        note.write_text(f"note: {RECOVERY_KEY}\n")
        done, card = write()
        note.unlink()
        assert done.returncode
        assert "secret.yml has the recovery key" in " ".join(done.stdout.split())
        assert "tig-pi.bundle" not in blank_card.read(card)

    def test_with_bookworm_continues_after_its_reboot(self, write, tmp_path):
        card = blank_card.create(tmp_path / "older.img", blank_card.OLDER_FILES)
        done, _ = write(card_path=str(card), card_release="bookworm")
        assert done.returncode == 0, done.stdout
        script = blank_card.read(card)["firstrun.sh"].decode()
        assert "/bin/self install --reboot" in script
        assert "unlink tig-pi.bundle firstrun.sh\n" in script

    def test_is_not_written_without_a_feed(self, write, tmp_path):
        done, card = write(site_offline=True, site_feed=str(tmp_path / "feed"))
        assert done.returncode
        assert f"There is no feed for trixie on arm64 in {tmp_path}/feed" in " ".join(done.stdout.split())
        assert "tig-pi.bundle" not in blank_card.read(card)


class TestBundle:
    @pytest.fixture
    def pack(self, tmp_path):
        (tmp_path / "mine/secrets").mkdir(parents=True)
        (tmp_path / "mine/hosts.yml").write_text("site: {}\n")

        def run(*sources: str, **options) -> dict[str, bytes]:
            variables = {
                "inventory_dir": str(tmp_path / "mine"),
                "ansible_inventory_sources": [str(tmp_path / one) for one in sources],
            }
            (bundle,) = lookup_loader.get("tig_pi.stack.self_bundle").run([{"name": "pi"}], variables, **options)
            return unpacked(bundle.encode())

        return run

    def test_has_the_inventory_as_it_was_named(self, pack):
        assert json.loads(pack("mine/hosts.yml")["self.json"])["inventory"] == ["inventories/mine/hosts.yml"]

    def test_has_no_files_that_nobody_can_read_on_the_pi(self, pack, tmp_path):
        (tmp_path / "mine/vault.yml").write_text("password: !vault |\n  $ANSIBLE_VAULT;1.1;AES256\n  3132\n")
        with pytest.raises(AnsibleError, match=r"mine/vault\.yml is encrypted with ansible-vault"):
            pack("mine")

    def test_has_one_directory(self, pack):
        with pytest.raises(AnsibleError, match="the inventory is in several directories"):
            pack("mine", "other")

    @pytest.mark.parametrize(
        ("wheel", "architecture", "words"),
        [
            ("one-1.0-cp313-cp313-manylinux_2_28_aarch64.whl", "arm64", ""),
            ("one-1.0-cp313-cp313-manylinux_2_28_x86_64.whl", "arm64", "Fill it again: make feed"),
            ("one-1.0-cp313-cp313-manylinux_2_28_x86_64.whl", "armhf", "with an image of 64 bits"),
        ],
    )
    def test_needs_the_python_packages_of_the_pi_in_the_feed(self, pack, tmp_path, wheel, architecture, words):
        (tmp_path / wheel).write_text("wheel")
        key = repository.SigningKey(tmp_path / "key")
        key.ensure()
        packages = [Wheel.of(tmp_path / wheel, "python")]
        repository.publish(tmp_path / "feed", packages, key, "trixie", architecture, "")
        fingerprint = openpgp_fingerprint((tmp_path / "feed/feed.asc").read_text())
        feed = {
            "directory": str(tmp_path / "feed"),
            "fingerprint": fingerprint,
            "release": "trixie",
            "architecture": architecture,
        }
        if not words:
            assert pack("mine", feed=feed)
            return
        with pytest.raises(AnsibleError, match=words):
            pack("mine", feed=feed)


class TestRoom:
    @pytest.fixture
    def feed(self, tmp_path) -> Path:
        (tmp_path / "feed/python").mkdir(parents=True)
        (tmp_path / "feed/telegraf_1.39.3-1~tigpi2_amd64.deb").write_bytes(bytes(3 << 20))
        (tmp_path / "feed/python/pip-25.whl").write_text("pip")
        return tmp_path / "feed"

    @pytest.fixture(params=["image", "mounted"])
    def card(self, request, tmp_path) -> Path:
        card = blank_card.create(tmp_path / "card.img")
        if request.param == "image":
            return card
        (tmp_path / "bootfs").mkdir()
        for name, content in blank_card.read(card).items():
            (tmp_path / "bootfs" / name).write_bytes(content)
        return tmp_path / "bootfs"

    def test_for_a_directory_is_used_and_a_second_run_changes_nothing(self, card, feed, tmp_path):
        planned = module(card, check=True, directories={"feed": str(feed)})
        assert planned["overwrites"][0].endswith("feed/")
        done = module(card, directories={"feed": str(feed)})
        assert (done["changed"], done["left_out"]) == (True, {})
        again = module(card, directories={"feed": str(feed)})
        assert (again["changed"], again["left_out"]) == (False, {})
        (feed / "python/pip-25.whl").write_text("PIP")
        assert module(card, directories={"feed": str(feed)})["changed"]
        assert not module(card, directories={"feed": str(feed)})["changed"]

    def test_for_a_directory_is_not_there(self, feed, tmp_path):
        card = blank_card.create(tmp_path / "card.img")
        (feed / "grafana.deb").write_bytes(bytes(50 << 20))
        done = module(card, directories={"feed": str(feed)})
        assert done["changed"]
        assert re.fullmatch(
            r"55\.\d MB are needed on the boot partition, and 4\d\.\d MB are free", done["left_out"]["feed"]
        )
        assert "feed" not in blank_card.read(card)

    @pytest.mark.parametrize("is_compressed", [False, True])
    def test_for_the_files_is_not_there(self, tmp_path, is_compressed):
        card, options = blank_card.create(tmp_path / "card.img"), {}
        if is_compressed:
            subprocess.run(["xz", "-0", "--keep", card], check=True)
            image = tmp_path / "card.img.xz"
            options = {"image": image, "image_sha256": sha256(image)}
        before = sha256(card)
        failed = module(card, secret_files={"tig-pi.bundle": "x" * (60 << 20)}, **options)
        assert re.search(
            r"tig-pi\.bundle need 6\d\.\d MB on the boot partition, and 4\d\.\d MB of it are free", failed["msg"]
        )
        assert sha256(card) == before


class Disks:
    """Disks that mount and umount are called for, as the kernel has them: a disk is mounted to read or to write, in all places alike."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mounted: list[tuple[str, str, Path]] = []
        self.log: list[str] = []
        self.run_other = subprocess.run

    def add(self, name: str) -> Path:
        """A disk's files, beside its node."""
        (self.folder / name).touch()
        (self.folder / f"{name}.files").mkdir()
        return self.folder / f"{name}.files"

    def run(self, command: list, **more) -> subprocess.CompletedProcess:
        name, *arguments = map(str, command)
        if Path(name).name == "lsblk":
            found = [
                {
                    "name": str(path),
                    "fstype": "ext4",
                    "mountpoints": [
                        f"/{place.relative_to(self.folder.parent)}"
                        for device, _, place in self.mounted
                        if device == str(path)
                    ]
                    or [None],
                }
                for path in sorted(self.folder.iterdir())
                if path.is_file()
            ]
            return subprocess.CompletedProcess(command, 0, json.dumps({"blockdevices": found}))
        if name == "umount":
            (place,) = {one for one in self.mounted if str(one[2]) == arguments[-1]} or [None]
            if place:
                self.mounted.remove(place)
                place[2].unlink()
                place[2].mkdir()
            return subprocess.CompletedProcess(command, 0 if place else 32)
        if name != "mount":
            return self.run_other(command, **more)
        _, options, device, place = arguments
        mode = options.partition(",")[0]
        if any(one == device and other != mode for one, other, _ in self.mounted):
            return subprocess.CompletedProcess(command, 32)
        assert not any(one == Path(place) for _, _, one in self.mounted), "the place is taken"
        self.mount(device, mode, Path(place))
        self.log.append(f"{Path(device).name} {mode}")
        return subprocess.CompletedProcess(command, 0)

    def mount(self, device: str, mode: str, place: Path) -> None:
        place.rmdir()
        place.symlink_to(f"{device}.files")
        self.mounted.append((device, mode, place))


@pytest.fixture(scope="session")
def keys(tmp_path_factory) -> dict[str, repository.SigningKey]:
    keys = {name: repository.SigningKey(tmp_path_factory.mktemp(name)) for name in ("ours", "theirs")}
    for key in keys.values():
        key.ensure()
    return keys


class TestOnThePi:
    @pytest.fixture
    def program(self, tmp_path, monkeypatch):
        program = load("bin/self")
        paths = {"HERE": "self", "STATE": "run", "BOOT": "boot", "DONE": "self/done", "CLOCK": "self/clock"}
        for name, path in {**paths, "UNIT": "unit.service"}.items():
            monkeypatch.setattr(program, name, tmp_path / path)
        monkeypatch.setattr(program, "NOTICES", (tmp_path / "run/issue",))
        monkeypatch.setattr(program, "release", lambda: "trixie")
        monkeypatch.setattr(program, "architecture", lambda: "arm64")
        for folder in ("self/plugins", "run", "boot"):
            (tmp_path / folder).mkdir(parents=True)
        for folder in ("filter", "plugin_utils"):
            (tmp_path / "self/plugins" / folder).symlink_to(REPOSITORY / "plugins" / folder)
        return program

    @pytest.fixture
    def description(self, tmp_path) -> dict:
        about = {
            "name": "attic.local",
            "url": "http://attic.local:3000",
            "time": 0,
            "offline": False,
            "restores": False,
        }
        about |= {"inventory": ["inventories/home"], "variables": {"backup_password": "hunter3"}}
        (tmp_path / "self/self.json").write_text(json.dumps(about))
        return about

    @pytest.fixture
    def calls(self, monkeypatch, program) -> list[str]:
        """The order in which programs are run and the card is written."""
        calls, real = [], subprocess.run

        def run(command, **more):
            name = Path(command[0]).name
            names = [Path(word).name for word in command[1:] if not str(word).startswith("--")]
            calls.append(" ".join([name, *names]))
            return name == "systemctl" or real(command, **more)

        monkeypatch.setattr(program.subprocess, "run", run)
        monkeypatch.setattr(program.os, "sync", lambda: calls.append("sync" if program.DONE.exists() else "too early"))
        program.UNIT.touch()
        return calls

    def test_the_clock_is_set_if_it_is_behind(self, program, monkeypatch):
        set_to = []
        monkeypatch.setattr(program.time, "clock_settime", lambda _, moment: set_to.append(moment))
        monkeypatch.setattr(program.time, "time", lambda: 1000.0)
        program.set_clock(500)
        program.set_clock(2000)
        assert set_to == [2000]

    def test_after_a_power_cut_the_clock_is_not_before_what_was_said_last(self, program, monkeypatch):
        set_to = []
        program.Progress("attic.local").say("Restoring the newest backup")
        said = program.CLOCK.stat().st_mtime
        monkeypatch.setattr(program.time, "clock_settime", lambda _, moment: set_to.append(moment))
        monkeypatch.setattr(program.time, "time", lambda: 1000.0)
        program.set_clock(2000)
        program.set_clock(said + 5)
        assert set_to == [said, said + 5]

    @pytest.fixture
    def disks(self, program, tmp_path, monkeypatch) -> Disks:
        (tmp_path / "dev").mkdir()
        disks = Disks(tmp_path / "dev")
        monkeypatch.setattr(program.subprocess, "run", disks.run)
        return disks

    @pytest.fixture
    def publish(self, keys, tmp_path):
        def publish(directory: Path, key: str = "ours", release: str = "trixie", year: int = 2026) -> Path:
            wheel = tmp_path / "one-1.0-py3-none-any.whl"
            wheel.write_text("wheel")
            repository.publish(directory, [Wheel.of(wheel, "python")], keys[key], release, "arm64", "")
            text = re.sub(
                "(?m)^Date: .*$",
                f"Date: {datetime(year, 1, 1):%a, %d %b %Y} 00:00:00 +0000",
                (directory / "Release").read_text(),
            )
            (directory / "Release").write_text(text)
            # The key is of now.
            then = [f"--faked-system-time={year}0101T000030"] if year > 2026 else []
            keys[key]._gpg("--yes", *then, "--output", directory / "InRelease", "--clear-sign", directory / "Release")
            return directory

        return publish

    @pytest.fixture
    def fingerprint(self, keys) -> str:
        return openpgp_fingerprint(keys["ours"].public().decode())

    @pytest.fixture
    def feed(self, program, fingerprint):
        """The feed that is chosen."""
        return lambda: program.feed(True, fingerprint, program.Progress("attic.local"))

    def test_the_newest_feed_of_the_site_is_found_and_only_its_disk_stays_mounted(self, feed, disks, publish, tmp_path):
        publish(tmp_path / "boot/feed", year=2024)
        publish(disks.add("sda1") / "feed", year=2023)
        publish(disks.add("sdb1") / "a/feed/trixie-arm64", year=2025)
        with feed() as directory:
            assert (directory / "InRelease").exists()
            ((device, mode, place),) = disks.mounted
            assert (Path(device).name, mode) == ("sdb1", "rw")  # the backups may be there
            assert directory == place / "a/feed/trixie-arm64"
        assert disks.mounted == []
        assert disks.log == ["sda1 ro", "sdb1 ro", "sdb1 rw"]

    def test_a_feed_on_the_card_needs_no_disk(self, feed, disks, publish, tmp_path):
        publish(tmp_path / "boot/feed")
        with feed() as directory:
            assert directory == tmp_path / "boot/feed"
            assert disks.mounted == []

    @pytest.mark.parametrize("place", ["run/disk", "run/backup"])
    def test_a_disk_that_a_killed_run_or_a_backup_has_mounted_is_found(self, feed, disks, publish, tmp_path, place):
        publish(disks.add("sda1") / "feed")
        (tmp_path / place).mkdir()
        disks.mount(str(tmp_path / "dev/sda1"), "rw", tmp_path / place)
        with feed() as directory:
            assert (directory / "InRelease").exists()
        assert [one[2] for one in disks.mounted] == [tmp_path / place] * (place == "run/backup")

    def test_a_feed_of_after_the_time_of_the_card_is_used_and_sets_the_clock(
        self, program, feed, disks, publish, tmp_path, monkeypatch
    ):
        """A Pi has no clock of its own."""
        set_to = []
        monkeypatch.setattr(program.time, "clock_settime", lambda _, moment: set_to.append(moment))
        publish(disks.add("sda1") / "feed", year=2090)
        publish(disks.add("sdb1") / "feed", year=2025)
        with feed() as directory:
            assert "2090" in (directory / "Release").read_text()
            assert set_to == [datetime(2090, 1, 1, 0, 1, tzinfo=UTC).timestamp()]

    def test_without_a_feed_it_says_what_to_plug_in(self, program, feed, disks):
        with pytest.raises(program.Problem, match="Plug in the stick that"), feed():
            pass

    @pytest.mark.parametrize("is_alone", [True, False])
    @pytest.mark.parametrize(
        ("name", "content", "words"),
        [
            ("InRelease", None, "InRelease of the feed .*/sdb1/feed cannot be read"),
            ("InRelease", lambda text: text.replace("tig-pi feed", "tig-pi food"), SIGNATURE),
            ("InRelease", lambda text: text[:-60], SIGNATURE),
            ("InRelease", lambda text: f"{text}\0\0\0", SIGNATURE),
            (WHEEL, None, f"The feed .*/sdb1/feed lacks the file {WHEEL}"),
            (WHEEL, "whee", f"{WHEEL} in the feed .*/sdb1/feed was changed"),
            (WHEEL, "wheet", f"{WHEEL} in the feed .*/sdb1/feed was changed"),
            ("feed.lock.json", "[]", r"The feed .*/sdb1/feed is damaged \("),
            ("feed.asc", "key", r"The feed .*/sdb1/feed is damaged \("),
            ("feed.asc", "theirs", "The feed .*/sdb1/feed is signed by the key"),
            ("release", "bookworm", "The feed .*/sdb1/feed is for bookworm on arm64, and the host has trixie on arm64"),
        ],
    )
    def test_a_feed_that_cannot_be_used_gives_way_to_an_older_one_and_is_named(
        self, program, feed, disks, publish, tmp_path, is_alone, name, content, words
    ):
        there = disks.add("sdb1") / "feed"
        publish(there, "theirs" if content == "theirs" else "ours", content if name == "release" else "trixie")
        if (there / name).exists() and content != "theirs":
            text = (there / name).read_text()
            (there / name).unlink()
            if content:
                (there / name).write_text(content(text) if callable(content) else content)
        if is_alone:
            with pytest.raises(program.Problem, match=words), feed():
                pass
        else:
            publish(disks.add("sda1") / "feed", year=2025)
            with feed():
                assert [Path(device).name for device, _, _ in disks.mounted] == ["sda1"]
            assert re.search(words, (tmp_path / "run/issue").read_text())
        assert disks.mounted == []

    @pytest.mark.parametrize(
        ("name", "error", "words"),
        [
            (
                "gaierror",
                (-3, "Temporary failure in name resolution"),
                "There is no internet (Temporary failure in name",
            ),
            ("timeout", ("timed out",), "mirror.example has an address, but cannot be reached (timed out)"),
        ],
    )
    def test_without_internet_it_says_so(self, program, description, tmp_path, monkeypatch, name, error, words):
        def refuse(*_, **__):
            raise getattr(program.socket, name)(*error)

        monkeypatch.setattr(program, "apt_server", lambda: ("mirror.example", 80))
        monkeypatch.setattr(program.socket, "create_connection", refuse)
        monkeypatch.setattr(program, "wait_for_internet", functools.partial(program.wait_for_internet, 0))
        assert not program.is_set_up(program.Progress("attic.local"))
        said = (tmp_path / "run/issue").read_text()
        assert said.startswith("attic.local: Failed: There is no internet")
        assert words in said

    @pytest.mark.parametrize(
        ("sites", "server"),
        [
            (["http://mirror.example/debian"], ("mirror.example", 80)),
            (["file:/srv/packages", "https://other.example/debian"], ("other.example", 443)),
            (["http://mirror.example:3142/debian"], ("mirror.example", 3142)),
            (["file:/srv/packages"], None),
        ],
    )
    def test_the_internet_is_where_apt_has_its_packages_from(self, program, tmp_path, monkeypatch, sites, server):
        """Of a real apt that has no package lists yet."""
        (tmp_path / "lists/partial").mkdir(parents=True)
        (tmp_path / "sources.list").write_text("".join(f"deb {site} trixie main\n" for site in sites))
        (tmp_path / "apt.conf").write_text(
            f'Dir::Etc::sourcelist "{tmp_path}/sources.list"; Dir::Etc::sourceparts "-"; Dir::State::Lists "{tmp_path}/lists";'
        )
        monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))
        if server:
            assert program.apt_server() == server
        else:
            with pytest.raises(program.Problem, match="apt has no source in the internet"):
                program.apt_server()

    @pytest.mark.parametrize("text", ["", "[]", '{"name": "attic.local"}', None])
    def test_a_damaged_description_is_named(self, program, tmp_path, text):
        if text is not None:
            (tmp_path / "self/self.json").write_text(text)
        assert not program.is_set_up(program.Progress("attic.local"))
        said = (tmp_path / "run/issue").read_text()
        assert re.search(r"Failed: .*/self\.json (is damaged|lacks .*url).*: write the card again", said)

    def test_an_error_that_nobody_expected_does_not_end_it(self, program, description, tmp_path, monkeypatch):
        monkeypatch.setattr(program, "set_up", lambda *_: [][0])
        assert not program.is_set_up(program.Progress("attic.local"))
        assert "Failed: IndexError: list index out of range. The next" in (tmp_path / "run/issue").read_text()

    def test_progress_has_the_steps_and_what_failed(self, program, tmp_path):
        progress = program.Progress("attic.local")
        script = "echo '==> Reaching the hosts'; echo 'ok: [pi]'; echo '[ERROR]: Task failed: Action failed: no stick' >&2; echo; echo 'Stopped at: x'; exit 2"
        with pytest.raises(program.Problem, match=r"^no stick$"):
            program.run(["sh", "-c", script], progress)
        assert progress.page().decode().splitlines()[2].endswith(" Reaching the hosts")
        assert (tmp_path / "run/issue").read_text() == "attic.local: Reaching the hosts\n"

    def test_secrets_are_overwritten_before_they_are_removed(self, program, tmp_path, description, calls):
        secrets = [
            "boot/tig-pi.bundle",
            "self/inventories/home/secrets/grafana/admin",
            "run/variables.json",
        ]
        for number, name in enumerate(secrets):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text("hunter2")
            (tmp_path / f"kept{number}").hardlink_to(tmp_path / name)
        (tmp_path / "boot/cmdline.txt").write_text("quiet")
        # The first boot has removed the other one.
        names = {"secret_files": ["network-config", "tig-pi.bundle"]}
        (tmp_path / "self/self.json").write_text(json.dumps(description | names))
        (tmp_path / "kept3").hardlink_to(tmp_path / "self/self.json")
        program.remove()
        assert not (tmp_path / "self").exists()
        assert not program.UNIT.exists()
        assert [path.name for path in (tmp_path / "boot").iterdir()] == ["cmdline.txt"]
        assert set(b"".join((tmp_path / f"kept{number}").read_bytes() for number in range(4))) <= {0}
        # Nothing is lost before the card knows that nothing is needed, and the last one has the names of the first.
        assert calls == [
            "sync",
            "shred tig-pi.bundle admin variables.json self.json",
            "sync",
            "systemctl disable unit.service",
        ]

    def test_removal_continues_after_a_power_cut(self, program, tmp_path, calls):
        (tmp_path / "self/self.json").write_bytes(bytes(20))
        program.remove()
        assert not (tmp_path / "self").exists()

    @pytest.mark.parametrize("ports", [[3000], [3000, 80]])
    def test_the_result_stays_on_the_page_unless_the_port_is_that_of_a_service(
        self, program, tmp_path, description, calls, monkeypatch, ports
    ):
        with socket.create_server(("", 0)) as free:
            port = free.getsockname()[1]
        (tmp_path / "self/self.json").write_text(
            json.dumps(description | {"ports": [port if one == 80 else one for one in ports]})
        )
        monkeypatch.setattr(program, "PORT", port)
        (tmp_path / "run").rmdir()
        pages, commands = [], []

        def look(*_):
            assert "Failed" not in (tmp_path / "run/issue").read_text()
            with (
                contextlib.suppress(urllib.error.URLError),
                urllib.request.urlopen(f"http://localhost:{port}") as answer,
            ):
                pages.append((answer.headers["Refresh"], answer.read().decode(), (tmp_path / "self").exists()))

        def run(command, *_, **__):
            look()
            commands.append([str(word) for word in command])
            if "playbooks/verify.yml" in commands[-1]:
                variables = tmp_path / "run/variables.json"
                assert json.loads(variables.read_text()) == {"backup_password": "hunter3", "site_no_log": True}
                assert (variables.stat().st_mode & 0o777, variables.parent.stat().st_mode & 0o777) == (0o600, 0o700)

        monkeypatch.setattr(program, "wait_for_internet", lambda: None)
        monkeypatch.setattr(program, "run", run)
        # Not in `time` itself: threads of other tests would look, too.
        monkeypatch.setattr(program, "time", types.SimpleNamespace(**{**vars(time), "sleep": look}))
        assert program.main(["run"]) == 0
        assert "playbooks/verify.yml" in commands[-1]
        assert "hunter3" not in str(commands)
        assert not list((tmp_path / "run").glob("variables.json"))
        if 80 in ports:
            assert pages == []
            return
        *earlier, (refresh, page, has_files) = pages
        assert {one[0] for one in earlier} == {"5"}
        assert "Done" not in earlier[-1][1]
        assert (refresh, has_files) == (None, False)
        assert page.startswith("attic.local has set itself up.\n")
        assert page.endswith(" Done: http://attic.local:3000\n")
