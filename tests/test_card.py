"""make card: what is refused before anything is written, and what is on the card afterwards.

Disks are declared as `lsblk` prints them, since a test must not need any; everything else is real: images, their file systems, mtools.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import os
import shutil
import subprocess
from pathlib import Path

import blank_card
import pytest
import yaml
from ansible_collections.tig_pi.stack.plugins.filter.card import card_hostname, card_problems
from ansible_collections.tig_pi.stack.plugins.module_utils.card import disks
from ansible_collections.tig_pi.stack.plugins.module_utils.card.programs import CardProblem
from project import REPOSITORY, run_module

GB = 10**9


def device(
    name: str, kind: str = "disk", size: int = 32 * GB, mounted: str | None = None, *children: dict, **more
) -> dict:
    """A device as lsblk prints it."""
    common = {"ro": False, "vendor": None, "model": None, "label": None, "fstype": None}
    return {
        "name": name,
        "type": kind,
        "size": size,
        "mountpoints": [mounted],
        "children": list(children),
        **common,
        **more,
    }


# A laptop: its system is on an encrypted volume group; a card in the reader, a backup disk, and an empty slot.
SYSTEM = device(
    "/dev/nvme0n1",
    "disk",
    256 * GB,
    None,
    device("/dev/nvme0n1p1", "part", GB, "/boot/efi"),
    device("/dev/nvme0n1p2", "part", 64 * GB),
    device(
        "/dev/nvme0n1p3",
        "part",
        191 * GB,
        None,
        device("/dev/mapper/root", "crypt", 191 * GB, None, device("/dev/mapper/vg-root", "lvm", 190 * GB, "/")),
    ),
)
CARD = device(
    "/dev/sdb",
    "disk",
    32 * GB,
    None,
    device("/dev/sdb1", "part", GB // 2, fstype="vfat", label="bootfs"),
    device("/dev/sdb2", "part", 31 * GB, fstype="ext4", label="rootfs"),
    model="STORAGE DEVICE  ",
)
MOUNTED = device("/dev/sdc", "disk", 32 * GB, None, device("/dev/sdc1", "part", GB, "/media/me/bootfs"))
LARGE = device("/dev/sdd", "disk", 2000 * GB, model="Backup")
EMPTY = device("/dev/mmcblk0", size=0)
LOCKED = device("/dev/sde", ro=True)
IN_RAID = device("/dev/sdf", "disk", 64 * GB, None, device("/dev/md0", "raid1", 64 * GB))
ALL = [SYSTEM, CARD, MOUNTED, LARGE, EMPTY, LOCKED, IN_RAID]


class TestDisks:
    @pytest.mark.parametrize(
        ("path", "words"),
        [
            ("/dev/nvme0n1", ["/dev/nvme0n1 (256.0 GB)", "this computer's own system"]),
            ("/dev/nvme0n1p2", ["this computer's own system"]),
            ("/dev/mapper/vg-root", ["this computer's own system"]),
            ("/dev/sdc", ["/dev/sdc (32.0 GB) is mounted at /media/me/bootfs", "sudo umount /media/me/bootfs"]),
            ("/dev/sdd", ["/dev/sdd (2000.0 GB, Backup) is larger than 300.0 GB", "card_max_size_gb"]),
            ("/dev/mmcblk0", ["/dev/mmcblk0 has no card in it"]),
            ("/dev/sde", ["write-protected"]),
            ("/dev/sdf", ["in use by /dev/md0 (raid1)"]),
        ],
    )
    def test_that_must_not_be_overwritten(self, path, words):
        disk, _ = disks.find(ALL, path)
        problem = disks.problem_of(disk, 300 * GB)
        for word in words:
            assert word in problem

    def test_that_does_not_exist(self):
        with pytest.raises(CardProblem) as problem:
            disks.find(ALL, "/dev/sdz")
        assert "/dev/sdz is not a disk of this computer" in str(problem.value)
        assert "/dev/sdb (32.0 GB, STORAGE DEVICE)" in str(problem.value)
        assert "/dev/nvme0n1" not in str(problem.value)

    def test_that_is_a_card(self):
        assert disks.problem_of(CARD, 300 * GB) == ""
        assert disks.contents(CARD) == [
            "/dev/sdb1: 500.0 MB, vfat, “bootfs”",
            "/dev/sdb2: 31.0 GB, ext4, “rootfs”",
        ]

    def test_of_this_computer_are_read(self):
        """The names of the columns are those of the lsblk that is installed."""
        for disk in disks.read_disks():
            assert {"name", "type", "size", "mountpoints"} <= disk.keys()
            assert disks.describe(disk)


KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILyUDSO9MFC3JcBdv/ANhnz8+LjUbRnnL+9dxKhorQ/H me@laptop"
GOOD = {
    "path": "/dev/sdb",
    "image": "",
    "image_sha256": "",
    "hostname": "raspberrypi",
    "timezone": "Europe/Stockholm",
    "locale": "en_GB.UTF-8",
    "user": "pi",
    "authorized_keys": [KEY],
    "wifi": {"ssid": "home", "country": "SE"},
    "wifi_password": "long enough",
    "release": "trixie",
    "user_data": {},
}


class TestVariables:
    def test_that_are_good(self):
        assert card_problems(GOOD) == []
        assert card_problems({**GOOD, "wifi": {}, "wifi_password": ""}) == []
        assert card_problems({**GOOD, "wifi_password": "0f" * 32}) == []
        assert card_problems({**GOOD, "image": "x.img.xz", "image_sha256": "0f" * 32}) == []

    @pytest.mark.parametrize(
        ("wrong", "words"),
        [
            ({"path": ""}, "card_path is empty: name the card, make card CARD=/dev/sdX"),
            ({"image": "x.img", "image_sha256": "123"}, "card_image_sha256 is not a SHA-256"),
            ({"image_sha256": "0f" * 32}, "card_image is not"),
            ({"hostname": "my_pi"}, "card_hostname is 'my_pi'"),
            ({"timezone": "Stockholm"}, "card_timezone is 'Stockholm'"),
            ({"locale": "C"}, "card_locale is 'C'"),
            ({"user": "root"}, "card_user is 'root'"),
            (
                {"authorized_keys": []},
                "card_authorized_keys is empty, so nobody could log in: run ssh-keygen -t ed25519",
            ),
            ({"authorized_keys": [KEY, "-----BEGIN OPENSSH PRIVATE KEY-----"]}, "card_authorized_keys: entry 2"),
            ({"authorized_keys": [KEY.replace("ed25519", "rsa")]}, "card_authorized_keys: entry 1"),
            ({"wifi": {"country": "SE"}}, "card_wifi.ssid"),
            ({"wifi": {"ssid": "é" * 17, "country": "SE"}}, "card_wifi.ssid"),
            ({"wifi": {"ssid": "x", "country": "Sweden"}}, "card_wifi.country"),
            ({"wifi_password": "short"}, "card_wifi_password has 5 characters"),
            ({"wifi_password": "x" * 64}, "card_wifi_password has 64 characters"),
            (
                {"release": "bookworm", "user_data": {"keyboard": {}}},
                "card_user_data is for cloud-init, which bookworm",
            ),
        ],
    )
    def test_that_are_wrong_are_named_without_secrets(self, wrong, words):
        (problem,) = card_problems({**GOOD, **wrong})
        assert words in problem
        assert "short" not in problem

    def test_the_host_name_is_that_under_which_the_inventory_reaches_the_host(self):
        assert card_hostname("attic.local", "pi") == "attic"
        assert card_hostname("192.168.1.20", "my_pi") == "my-pi"


@pytest.fixture(scope="module")
def blank(tmp_path_factory) -> Path:
    return blank_card.create(tmp_path_factory.mktemp("blank") / "raspios.img")


@pytest.fixture
def card(blank, tmp_path) -> Path:
    """A card as Raspberry Pi Imager leaves it."""
    return Path(shutil.copy(blank, tmp_path / "card.img"))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


FILES = {"user-data": "#cloud-config\nhostname: attic\n", "meta-data": "instance-id: a\n"}
SECRETS = {"vendor-data": "#cloud-config\nssh_pwauth: false\n"}


def module(path: Path | str, check: bool = False, **more) -> dict:
    """Run module card as Ansible does."""
    arguments = {
        "path": str(path),
        "files": FILES,
        "secret_files": SECRETS,
        **{k: str(v) if isinstance(v, Path) else v for k, v in more.items()},
    }
    arguments |= {"_ansible_check_mode": check, "_ansible_diff": True}
    return run_module("card", **arguments)


class TestFiles:
    def test_are_written_and_a_second_run_changes_nothing(self, card):
        before = sha256(card)
        planned = module(card, check=True)
        assert planned["changed"]
        assert sha256(card) == before
        (line,) = planned["overwrites"]
        assert line == f"Files on the boot partition of {card} (58.7 MB): user-data, meta-data, vendor-data"
        assert [diff["before_header"] for diff in planned["diff"]] == ["user-data", "meta-data"]

        assert module(card)["changed"]
        there = blank_card.read(card)
        assert {name: there[name].decode() for name in {**FILES, **SECRETS}} == {**FILES, **SECRETS}
        assert there["cmdline.txt"].decode() == blank_card.FILES["cmdline.txt"]
        again = module(card)
        assert (again["changed"], again["overwrites"], again["diff"]) == (False, [], [])

    def test_are_written_to_a_mounted_boot_partition(self, tmp_path):
        for name, content in blank_card.FILES.items():
            (tmp_path / name).write_text(content)
        assert module(tmp_path)["changed"]
        assert (tmp_path / "vendor-data").read_text() == SECRETS["vendor-data"]
        assert not module(tmp_path)["changed"]

    @pytest.mark.parametrize("mounted", [False, True])
    def test_with_secrets_that_are_replaced_or_removed_are_overwritten(self, card, tmp_path, mounted):
        place = card
        if mounted:
            place = tmp_path / "bootfs"
            place.mkdir()
            for name, content in blank_card.FILES.items():
                (place / name).write_text(content)
        old = "x" * 100_000 + "of-the-site" * 10_000
        assert module(place, secret_files={"vendor-data": old, "tig-pi.bundle": old})["changed"]
        links = [os.open(place / name, os.O_RDONLY) for name in ("vendor-data", "tig-pi.bundle")] if mounted else []
        done = module(place, absent_files=["tig-pi.bundle", "another"])
        assert done["overwrites"][0].endswith(": vendor-data, tig-pi.bundle (removed)")
        if mounted:
            assert sorted(path.name for path in place.iterdir()) == sorted({*blank_card.FILES, *FILES, *SECRETS})
            for link in links:
                assert b"of-the-site" not in os.pread(link, len(old), 0)
                os.close(link)
        else:
            assert "tig-pi.bundle" not in blank_card.read(card)
            assert b"of-the-site" not in card.read_bytes()
        assert not module(place, absent_files=["tig-pi.bundle"])["changed"]

    def test_of_an_image_without_cloud_init_would_be_ignored(self, tmp_path):
        old = blank_card.create(tmp_path / "old.img", blank_card.OLDER_FILES)
        before = sha256(old)
        failed = module(old, required_files={"user-data": "use a newer image."})
        assert failed["failed"]
        assert failed["msg"] == "The card has no file user-data on its boot partition: use a newer image."
        assert sha256(old) == before

    def test_of_another_release_than_the_image_are_refused(self, card):
        before = sha256(card)
        failed = module(card, unwanted_files={"user-data": "use another image."})
        assert failed["msg"] == "The card has a file user-data on its boot partition: use another image."
        assert sha256(card) == before

    def test_parameters_of_the_kernel_are_added_or_replaced(self, card):
        before = blank_card.FILES["cmdline.txt"].strip()
        assert module(card, kernel_parameters=["systemd.run=/a", "x.y=SE"])["changed"]
        done = module(card, kernel_parameters=["systemd.run=/b"])
        assert blank_card.read(card)["cmdline.txt"].decode() == f"{before} x.y=SE systemd.run=/b\n"
        (diff,) = done["diff"]
        assert diff["after"] == f"{before} x.y=SE systemd.run=/b\n"
        assert not module(card, kernel_parameters=["systemd.run=/b"])["changed"]

    def test_that_are_not_valid_are_refused(self, card):
        before = sha256(card)
        schema = {
            "user-data": "cloud-init schema --config-file %s",
            "vendor-data": "cloud-init schema --config-file %s",
        }
        assert "msg" not in module(card, check=True, validate=schema)
        failed = module(card, files={"user-data": "#cloud-config\nhostname: [attic]\n"}, validate=schema)
        assert "user-data is not valid" in failed["msg"]
        assert "hostname: ['attic'] is not of type 'string'" in failed["msg"]
        failed = module(card, secret_files={"vendor-data": "#cloud-config\nssh_keys: [hunter2]\n"}, validate=schema)
        assert failed["msg"] == "vendor-data is not valid: cloud-init refuses it."
        assert sha256(card) == before

    @pytest.mark.parametrize("kind", ["zeros", "text", "directory", "missing"])
    def test_have_no_place_on_what_is_no_card(self, tmp_path, kind):
        path = tmp_path / "no card"
        match kind:
            case "zeros":
                path.write_bytes(bytes(1 << 20))
            case "text":
                path.write_text("A letter to my aunt.\n")
            case "directory":
                path.mkdir()
        failed = module(path)
        assert str(path) in failed["msg"]
        assert kind != "text" or path.read_text() == "A letter to my aunt.\n"
        assert kind != "directory" or list(path.iterdir()) == []

    def test_are_not_written_to_the_boot_partition_of_this_computer(self):
        assert "own system" in module("/boot")["msg"]


class TestImage:
    @pytest.fixture
    def compressed(self, blank, tmp_path) -> Path:
        path = tmp_path / "raspios.img.xz"
        with blank.open("rb") as image, lzma.open(path, "wb", preset=0) as file:
            shutil.copyfileobj(image, file, 1 << 20)
        return path

    @pytest.fixture
    def target(self, tmp_path) -> Path:
        """A card with something else on it, and some space beyond the image."""
        path = tmp_path / "target.img"
        with path.open("wb") as file:
            file.write(b"photos" * 1000)
            file.truncate(blank_card.SIZE + 4096)
        return path

    def test_is_written_with_the_files(self, compressed, target):
        planned = module(target, image=compressed, image_sha256=sha256(compressed), check=True)
        assert planned["overwrites"][0] == f"Everything on {target} (58.7 MB):"
        assert target.read_bytes()[:6] == b"photos"
        done = module(target, image=compressed, image_sha256=sha256(compressed), kernel_parameters=["quiet"])
        assert done["changed"]
        assert done["overwrites"][-1].endswith(": user-data, meta-data, vendor-data, cmdline.txt")
        there = blank_card.read(target)
        assert there["user-data"].decode() == FILES["user-data"]
        assert there["config.txt"].decode() == blank_card.FILES["config.txt"]
        assert there["cmdline.txt"].decode() == blank_card.FILES["cmdline.txt"].replace("\n", " quiet\n")

    def test_that_is_not_compressed_is_written_too(self, blank, target):
        assert module(target, image=blank, image_sha256=sha256(blank).upper())["changed"]
        assert blank_card.read(target)["vendor-data"].decode() == SECRETS["vendor-data"]

    @pytest.mark.parametrize(
        "how",
        [
            "wrong hash",
            "damaged",
            "cut short",
            "broken",
            "no hash",
            "too large",
            "zip",
            "missing",
            "old",
            "old, packed",
        ],
    )
    def test_that_is_wrong_is_refused_before_anything_is_written(self, blank, compressed, target, tmp_path, how):
        image, given, required, words = compressed, sha256(compressed), {}, "card_image"
        match how:
            case "wrong hash":
                given, words = "0f" * 32, f"has the SHA-256 {sha256(compressed)}, not {'0f' * 32}"
            case "damaged":
                with compressed.open("r+b") as file:
                    file.seek(5000)
                    file.write(b"damage")
                words = "has the SHA-256"
            case "cut short":  # its publisher gave the hash of a file that is not whole
                with compressed.open("r+b") as file:
                    file.truncate(compressed.stat().st_size - 100)
                given = sha256(compressed)
            case "broken":
                with compressed.open("r+b") as file:
                    file.seek(5000)
                    file.write(b"damage")
                given, words = sha256(compressed), "cannot be unpacked"
            case "no hash":
                given, words = None, "image_sha256"
            case "too large":
                with target.open("r+b") as file:
                    file.truncate(50 << 20)
                words = "does not fit on"
            case "zip":
                image = tmp_path / "raspios.zip"
                image.touch()
            case "missing":
                image = tmp_path / "raspios-lite.img"
            case "old":
                image, given = blank, sha256(blank)
                required, words = {"ssh.txt": "use a newer image."}, "use a newer image."
            case "old, packed":
                required, words = {"ssh.txt": "use a newer image."}, "use a newer image."
        before = target.read_bytes()[:6000]
        failed = module(target, image=image, image_sha256=given, required_files=required)
        assert words in failed["msg"]
        assert target.read_bytes()[:6000] == before

    def test_needs_a_whole_disk(self, compressed, tmp_path):
        (tmp_path / "bootfs").mkdir()
        assert (
            "is not a whole disk"
            in module(tmp_path / "bootfs", image=compressed, image_sha256=sha256(compressed))["msg"]
        )


@pytest.fixture(scope="module")
def inventory(tmp_path_factory) -> Path:
    """The inventory that people copy, with a key."""
    path = tmp_path_factory.mktemp("site") / "home"
    shutil.copytree(REPOSITORY / "inventories/home", path, ignore=shutil.ignore_patterns("secrets", "backups"))
    (path / "host_vars/pi.yml").write_text(f"card_authorized_keys: [{KEY}]\n")
    return path


class TestPlaybook:
    def play(self, inventory: Path, *arguments: str, **variables) -> subprocess.CompletedProcess[str]:
        known_hosts = inventory.parent / "known_hosts"
        variables = {"ansible_ssh_common_args": f"-o UserKnownHostsFile={known_hosts}", **variables}
        return subprocess.run(
            [
                REPOSITORY / "bin/play",
                f"--inventory={inventory}",
                "playbooks/card.yml",
                f"--extra-vars={json.dumps(variables)}",
                *arguments,
            ],
            cwd=REPOSITORY,
            env={**os.environ, "PWD": str(REPOSITORY)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def test_asks_before_it_writes_and_lets_ssh_know_the_host(self, inventory, card):
        before = sha256(card)
        refused = self.play(inventory, card_path=str(card))
        assert refused.returncode != 0
        assert "Nothing was written." in refused.stdout
        assert "Files on the boot partition of" in refused.stdout
        assert sha256(card) == before

        done = self.play(inventory, card_path=os.path.relpath(card, REPOSITORY), card_consent=True)
        assert done.returncode == 0, done.stdout
        there = {name: content.decode() for name, content in blank_card.read(card).items()}
        data = yaml.safe_load(there["user-data"])
        assert (data["hostname"], data["timezone"]) == ("raspberrypi", "Europe/Stockholm")
        (user,) = data["users"]
        assert (user["name"], user["ssh_authorized_keys"], user["lock_passwd"]) == ("pi", [KEY], True)
        private = (inventory / "secrets/ssh_host_key/pi").read_text()
        assert yaml.safe_load(there["vendor-data"])["ssh_keys"]["ed25519_private"] == private
        assert private not in done.stdout
        public = subprocess.run(
            ["ssh-keygen", "-y", "-f", inventory / "secrets/ssh_host_key/pi"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        assert (inventory.parent / "known_hosts").read_text() == f"raspberrypi.local {public}\n"

    def test_writes_a_script_instead_for_bookworm(self, inventory, tmp_path):
        card = blank_card.create(tmp_path / "card.img", blank_card.OLDER_FILES)
        wifi = {"ssid": "Mats’ nät", "country": "SE"}
        variables = {"card_path": str(card), "card_consent": True, "card_release": "bookworm", "card_wifi": wifi}
        variables |= {"card_wifi_password": " back\\slash 'quote'"}
        done = self.play(inventory, **variables)
        assert done.returncode == 0, done.stdout
        assert "slash" not in done.stdout
        there = {name: content.decode() for name, content in blank_card.read(card).items()}
        assert set(there) == {*blank_card.OLDER_FILES, "firstrun.sh"}
        script = there["firstrun.sh"]
        assert f"\n{KEY}\n" in script
        assert f"ssid={';'.join(str(byte) for byte in wifi['ssid'].encode())};\n" in script
        assert "psk=\\sback\\\\slash 'quote'\n" in script
        words = there["cmdline.txt"].split()
        assert words[: len(blank_card.FILES["cmdline.txt"].split())] == blank_card.FILES["cmdline.txt"].split()
        assert {"systemd.run=/boot/firmware/firstrun.sh", "cfg80211.ieee80211_regdom=SE"} <= set(words)
        assert "changed=0" in self.play(inventory, **variables).stdout

    def test_names_a_host_that_the_inventory_does_not_have(self, inventory, card):
        failed = self.play(inventory, "--limit=attic", card_path=str(card), card_consent=True)
        assert failed.returncode != 0
        assert "attic" in failed.stderr

    def test_names_the_missing_password_of_the_wifi(self, inventory, card):
        before = sha256(card)
        failed = self.play(
            inventory, card_path=str(card), card_consent=True, card_wifi={"ssid": "home", "country": "SE"}
        )
        assert failed.returncode != 0
        assert "wifi is missing, and only you know it" in failed.stdout
        assert sha256(card) == before


class TestCommands:
    """Those of the first boot, with their secret file. The power is cut before the file is removed."""

    @pytest.fixture(params=["trixie", "bookworm"])
    def boot(self, request, ansible_playbook, tmp_path):
        """Write the files of a card, if a secret is given, and run the part of the first boot with the commands. It returns what they have read."""
        release, card, pi = request.param, tmp_path / "card", tmp_path / "pi"
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin/shred").symlink_to("/bin/false")

        def write(secret: str) -> None:
            card.mkdir(exist_ok=True)
            for name, content in blank_card.RELEASES[release].items():
                (card / name).write_text(content)
            read = f"cat /boot/firmware/of-the-site >>{tmp_path}/log && [ ! -e {tmp_path}/failing ]"
            variables = {
                "card_path": str(card),
                "card_consent": True,
                "card_release": release,
                "card_authorized_keys": [KEY],
                "card_secret_files": {"of-the-site": secret},
                "card_commands": [["sh", "-c", read]],
            }
            play = {"hosts": "localhost", "gather_facts": False, "vars": variables, "roles": ["tig_pi.stack.card"]}
            done = ansible_playbook(json.dumps([play]))
            assert done.returncode == 0, done.stdout

        def script() -> str:
            if release == "bookworm":
                text = (card / "firstrun.sh").read_text()
                return text[text.index("# Only once") :]
            instance = pi / yaml.safe_load((card / "meta-data").read_text())["instance-id"]
            instance.mkdir(parents=True, exist_ok=True)
            text = yaml.safe_load((card / "user-data").read_text())["runcmd"][-1][-1]
            return text.replace("/var/lib/cloud/instance", str(instance))

        def boot(secret: str = "") -> str:
            if secret:
                write(secret)
            pi.mkdir(exist_ok=True)
            text = script().replace("/boot/firmware", str(card)).replace("/var/lib/firstrun", f"{pi}/firstrun")
            path = f"{tmp_path}/bin:{os.environ['PATH']}"
            subprocess.run(["sh", "-c", text], env={**os.environ, "PATH": path}, check=False)
            return (tmp_path / "log").read_text()

        return boot

    def test_are_not_repeated_when_they_are_done(self, boot, tmp_path):
        assert boot("one ") == "one "
        (tmp_path / "card/of-the-site").write_text("????")  # it may have been overwritten
        assert boot() == "one "
        assert boot("one ") == "one "

    def test_are_repeated_until_they_are_done(self, boot, tmp_path):
        (tmp_path / "failing").touch()
        assert boot("one ") == "one "
        (tmp_path / "failing").unlink()
        assert boot() == "one one "
        assert boot() == "one one "

    def test_of_a_card_that_is_written_again_are_run(self, boot):
        boot("one ")
        assert boot("two ") == "one two "
