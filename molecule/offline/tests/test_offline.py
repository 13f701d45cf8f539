"""A Pi without internet is set up from a feed, and rebuilt on a blank card."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from virtual_site import PROJECT, Site

FIRST, COUNT = 1704060000, 500  # readings, one each 15 s


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


def test_a_blank_pi_is_rebuilt(host, site, converge, playbook, inventory, tmp_path):
    readings = [(FIRST + 15 * number, 10 + number % 100 / 10) for number in range(COUNT)]
    messages = (json.dumps({"device": "matslopy4", "outsidetemp": value, "time": moment}) for moment, value in readings)
    site.publish("mats/test", *messages, account="mats")
    assert site.readings(f"time < {FIRST + 10**6}s", COUNT) == readings
    backup = playbook("backup.yml")
    assert backup.returncode == 0, backup.stdout + backup.stderr

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
    assert "apt refuses the feed" in " ".join(refused.stdout.split())
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

    command = [PROJECT / "bin/rebuild", inventory, "--extra-vars=restore_consent=true"]
    rebuilt = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert rebuilt.returncode == 0, rebuilt.stdout + rebuilt.stderr
    assert site.readings(f"time < {FIRST + 10**6}s", COUNT) == readings
    assert host.run("ip route get 192.0.2.1").rc  # nothing has brought the network back
