"""A card boots with a real kernel, the Pi is set up, and its power is cut: during the installation of packages, and during writes.

These tests follow one after the other: each begins where the one before it has left the machine.
"""

from __future__ import annotations

import json
import time

import pytest
from virtual_machine import BOOT_SIZE, BOOT_START

testinfra_hosts = ["ansible://pi"]
pytestmark = pytest.mark.timeout(1200)  # seconds: a run takes minutes here

# The declared moment of the first cut: dpkg has unpacked some packages, and is writing the files of this one.
DURING = "half-installed telegraf"
SECONDS = 25  # of readings before the second cut
# Of readings that the broker has acknowledged, those of the last seconds before the power cut may be lost: they may not have been
# written yet. `site_write_interval_seconds` is 1, and the machine is slow.
LAST_MOMENTS = 5


def test_the_first_boot_ended_without_an_error(host):
    status = json.loads(host.run("cloud-init status --wait --format=json").stdout)
    assert (status["status"], status["errors"], status["recoverable_errors"]) == ("done", [], {})
    assert host.check_output("systemctl --failed --quiet --no-legend") == ""


def test_only_the_declared_key_is_accepted(pi, refuses_all_but_the_key):
    refuses_all_but_the_key(pi)


def test_the_root_fills_the_card(host, card):
    size = int(host.check_output("findmnt --noheadings --bytes --output=SIZE /"))
    assert size > 0.9 * card.stat().st_size - BOOT_SIZE


def test_the_file_system_survives_a_power_cut_while_packages_are_installed(
    host, playbook_in_background, dpkg_logs, power, starts_as_before
):
    run = playbook_in_background("site.yml", "--limit=pi")
    dpkg_logs(DURING, run)
    power.cut()
    assert run.wait() != 0
    starts_as_before()
    # dpkg was interrupted, so apt refuses to work: it has left its journal, numbered files. And the next test is about the file that
    # Ansible has left.
    journal = host.check_output("ls /var/lib/dpkg/updates").split()
    assert [name for name in journal if name.isdigit()], journal
    assert host.file("/usr/sbin/policy-rc.d").exists


def test_the_next_run_completes_the_one_that_was_cut(host, playbook):
    again = playbook("site.yml", "--limit=pi")
    assert again.returncode == 0, again.stdout
    assert host.check_output("dpkg --audit") == ""
    assert not host.file("/usr/sbin/policy-rc.d").exists  # which would keep later upgrades from restarting services


def test_no_secret_is_left_on_the_boot_partition(host, card, inventory):
    """The card is read from outside, since a file that was only removed would still have its content there."""
    key = (inventory / "secrets/ssh_host_key/pi").read_text().splitlines()[2]
    assert key in host.file("/etc/ssh/ssh_host_ed25519_key").content_string
    with card.open("rb") as file:
        file.seek(BOOT_START)
        assert key.encode() not in file.read(BOOT_SIZE)


def test_readings_that_were_acknowledged_are_there_after_a_power_cut(readings, power, starts_as_before):
    with readings.arriving():
        time.sleep(SECONDS)
        stored = readings.stored()
        power.cut()
        cut_at = time.time()
    last = readings.last_acknowledgement()
    assert cut_at - last < LAST_MOMENTS / 2, "no reading arrived when the power was cut"
    starts_as_before()
    acknowledged, kept = readings.acknowledged(cut_at - LAST_MOMENTS), readings.stored()
    lost = readings.acknowledged(cut_at) - kept
    print(f"of {len(readings.sent)} readings: {len(acknowledged)} to be kept, {len(lost)} lost")
    assert len(stored) > 100
    assert stored - kept == set()
    assert acknowledged - kept == set()
