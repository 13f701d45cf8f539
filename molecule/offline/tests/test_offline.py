"""A Pi without internet is set up from a feed, and rebuilt on a blank card."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from pathlib import Path

import blank_card
import pytest
import yaml
from virtual_site import ISOLATE, PROJECT, Site

FIRST, COUNT = 1704060000, 500  # readings, one each 15 s
PAST = f"time < {FIRST + 10**6}s"
SECRET_FILES = ("vendor-data", "network-config", "tig-pi.bundle")


@pytest.fixture(scope="module")
def site(inventory):
    return Site(inventory)


def test_the_feed_is_the_only_source_of_apt(host):
    assert host.run("ip route get 192.0.2.1").rc  # of no network; reserved for documentation
    sources = host.check_output("apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages'")
    assert sources.splitlines() == ["file:/var/lib/tig-pi/feed/"]
    policy = host.check_output("apt-cache policy grafana influxdb mosquitto node-red nodejs restic telegraf")
    assert policy.count("500 file:/var/lib/tig-pi/feed") == 7
    assert policy.count("*** ") == 7
    assert not host.file("/var/lib/tig-pi/feed/python").exists  # only the controller needs these packages


def test_esptool_is_installed_from_the_feed(host, playbook):
    installed = playbook("../molecule/offline/esptool.yml")
    assert installed.returncode == 0, installed.stdout + installed.stderr
    assert "esptool v5" in host.check_output("/opt/tig-pi/esptool/bin/esptool version")


@pytest.fixture(scope="module")
def readings(site, playbook) -> list[tuple]:
    """Readings that are in a backup on the stick."""
    readings = [(FIRST + 15 * number, 10 + number % 100 / 10) for number in range(COUNT)]
    messages = (json.dumps({"device": "matslopy4", "outsidetemp": value, "time": moment}) for moment, value in readings)
    site.publish("mats/test", *messages, account="mats")
    assert site.readings(PAST, COUNT) == readings
    backup = playbook("backup.yml")
    assert backup.returncode == 0, backup.stdout + backup.stderr
    return readings


def test_a_changed_feed_is_refused_and_an_old_one_is_used(
    host, site, readings, converge, playbook, inventory, tmp_path
):
    (inventory.parent / "stick.tar").write_bytes(site.stick())
    site.replace_pi()
    isolated = playbook("../molecule/offline/isolate.yml")
    assert isolated.returncode == 0, isolated.stdout + isolated.stderr

    # A feed that somebody has changed.
    changed = tmp_path / "feed"
    shutil.copytree(inventory.parent / "feed", changed, copy_function=lambda one, other: Path(other).hardlink_to(one))
    (release,) = changed.glob("*/InRelease")
    signed = release.read_text()
    release.unlink()
    release.write_text(signed.replace("Label: tig-pi feed", "Label: tig-pi food"))
    refused = converge(site_feed=str(changed))
    assert refused.returncode
    assert f"The signature of the feed {release.parent} (InRelease) is not valid." in " ".join(refused.stdout.split())
    assert not host.file("/var/lib/tig-pi/feed").exists
    assert not host.file("/etc/apt/apt.conf.d/90tig-pi-offline").exists
    assert not host.package("chrony").is_installed

    # A feed that is five years old: neither its key nor its signature has expired.
    year = time.gmtime().tm_year
    ahead = playbook("../molecule/offline/clock.yml")
    assert ahead.returncode == 0, ahead.stdout + ahead.stderr
    assert int(host.check_output("date +%Y")) >= year + 4
    installed = converge("--tags=base_install")
    assert installed.returncode == 0, installed.stdout + installed.stderr
    assert host.package("telegraf").is_installed
    back = playbook("../molecule/offline/clock.yml", "--extra-vars=clock_is_ahead=false")
    assert back.returncode == 0, back.stdout + back.stderr
    assert int(host.check_output("date +%Y")) <= year + 1


def test_a_card_sets_up_a_blank_pi_without_a_computer(host, pi, site, readings, playbook, inventory, boot_with):
    site.replace_pi()
    for name in ("card/trixie.yml", "offline/isolate.yml"):
        prepared = playbook(f"../molecule/{name}")
        assert prepared.returncode == 0, prepared.stdout + prepared.stderr
    site.fill_stick((inventory.parent / "stick.tar").read_bytes())
    host.run_expect([0], "dpkg --purge gpgv")  # it has sqv, too, on which apt depends
    # Beside the feed there is a newer one, which was changed.
    (feed,) = (site.state / ".boot-pi/stick/feed").iterdir()
    newer = shutil.copytree(feed, feed.parent.with_name("newer"), copy_function=os.link)
    signed = (newer / "InRelease").read_text()
    (newer / "InRelease").unlink()
    (newer / "InRelease").write_text(re.sub(r"(?m)^(Date: .*) \d{4} ", r"\1 2098 ", signed))
    # The site has two targets of backups, and one of them is not there.
    targets = [{"name": "attic", "kind": "disk", "label": "ATTIC"}]
    targets.append({"name": "stick", "kind": "directory", "path": "/media/stick/backups"})
    also = inventory / "host_vars/pi.yml"
    also.parent.mkdir(exist_ok=True)
    also.write_text(json.dumps({"site_backup_targets": targets}))
    blank_card.create(inventory.parent / "card.img")
    variables = {"card_path": str(inventory.parent / "card.img"), "card_consent": True, "self_setup": 1}
    variables |= {"feed_architecture": site.pi["architecture"], "restore_patience": 1}
    written = playbook("card.yml", f"--extra-vars={json.dumps(variables)}")
    also.unlink()
    assert written.returncode == 0, written.stdout + written.stderr
    boot_with(pi, "card.img", SECRET_FILES, ISOLATE)

    # Nobody has plugged in the stick.
    assert "Failed: There is no feed for trixie on " in site.page("Failed: ")
    plugged_in = playbook("../molecule/offline/stick.yml")
    assert plugged_in.returncode == 0, plugged_in.stdout + plugged_in.stderr
    shown = site.page("Done: ")
    for step in ("Installing Ansible", "Setting up the services", "Restoring the newest backup", "Done: http://"):
        assert step in shown, shown
    assert "Failed" not in shown.partition("Installing Ansible")[2], shown
    assert "Skipped: The signature of the feed /media/stick/newer (InRelease) is not valid" in shown, shown
    missing = "attic: unreachable: there is no disk with the label ATTIC"
    assert f"Waiting 1 s for targets of backups that cannot be reached: {missing}" in shown
    restored = r"Restoring the archive of \S+ \S+ \(\d+ \w+ ago\) of stick\. These targets may have a newer one that cannot be read: "
    assert re.search(restored + missing, shown), shown
    assert site.readings(PAST, COUNT) == readings
    assert host.run("ip route get 192.0.2.1").rc  # nothing has brought the network back

    # It needs nothing of it any more.
    host.run_expect([0], "while systemctl --quiet is-active tig-pi-self.service; do sleep 0.5; done")
    assert host.run("systemctl cat tig-pi-self.service").rc
    assert not host.file("/var/lib/tig-pi/self").exists
    assert not host.file("/boot/firmware/tig-pi.bundle").exists
    assert set(host.file("/root/overwritten/tig-pi.bundle").content) <= {0}
    operator = yaml.safe_load((PROJECT / "contract.yml").read_text())[
        "operator"
    ]  # whose password no service of the Pi needs
    key = (inventory / f"secrets/mosquitto/{operator}").read_text().strip()
    assert host.run("grep -rlsIF -e %s /boot /etc /home /root /run /tmp /var", key).stdout.split() == []
    assert host.check_output("cat /run/motd.d/tig-pi-self").startswith("greenhouse.local: Done")
    assert host.run("getent ahostsv4 greenhouse.local").rc == 0
