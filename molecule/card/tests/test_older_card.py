"""A card with bookworm, which has no cloud-init: a blank Pi boots with its script, reboots, and is the declared host."""

from __future__ import annotations

import os
import pathlib

import blank_card
import pytest

EPHEMERAL = pathlib.Path(os.environ.get("MOLECULE_EPHEMERAL_DIRECTORY", "."))
testinfra_hosts = ["ansible://older"]
SECRET_FILES = ("firstrun.sh", "of-the-site")
CONNECTION = "/etc/NetworkManager/system-connections/firstrun.nmconnection"


@pytest.fixture(scope="module", autouse=True)
def booted(pis, boot_with) -> None:
    boot_with(pis["older"], "older.img", SECRET_FILES, "useradd --create-home --uid=1000 first")


def test_the_script_is_run_again_at_the_next_boot_if_a_command_fails(host):
    assert host.file("/root/failed").exists
    assert host.run("systemctl cat firstrun.service").rc
    assert host.file("/var/lib/firstrun.done").mode == 0o600


def test_the_script_ended_without_an_error(host):
    log = host.check_output("cat /var/log/firstrun.log")
    for word in ("error", "not found", "No such", "Failed", "usermod:", "cannot"):
        assert word not in log, log
    # Parameters that are meant for the first boot only are gone; that of the Wi-Fi stays.
    expected = blank_card.FILES["cmdline.txt"].strip() + " cfg80211.ieee80211_regdom=SE"
    assert host.check_output("cat /boot/firmware/cmdline.txt") == expected
    assert host.check_output("systemctl is-system-running --wait || systemctl --failed") == "running"


def test_no_secret_is_left_on_the_boot_partition(left_on_the_boot_partition):
    assert left_on_the_boot_partition(SECRET_FILES) == set(blank_card.OLDER_FILES)


def test_commands_of_the_site_are_run_before_its_secret_files_are_removed(host):
    assert host.check_output("cat '/root/of the site'") == "it's secret"


def test_only_the_declared_key_is_accepted(host, pi, refuses_all_but_the_key):
    refuses_all_but_the_key(pi)


def test_the_account_of_the_image_is_renamed_and_has_no_password(host):
    assert host.check_output("getent passwd 1000").split(":")[::5] == ["pi", "/home/pi"]
    assert host.check_output("getent shadow pi").split(":")[1] == "!"
    assert set(host.check_output("id -nG pi").split()) >= {"sudo", "dialout", "adm"}
    assert host.run("systemctl is-enabled userconfig.service").stdout.strip() == "disabled"
    assert not host.file("/etc/ssh/sshd_config.d/rename_user.conf").exists


def test_the_host_key_is_the_declared_one(host):
    """Although a service of Raspberry Pi OS replaces the keys at the first boot."""
    assert (
        host.check_output("cat /etc/ssh/ssh_host_*_key.pub").split()[:2]
        == (EPHEMERAL / "pis/host_ed25519.pub").read_text().split()[:2]
    )
    assert host.check_output("ls -l /etc/ssh/ssh_host_*_key").split()[::8] == [
        "-rw-------",
        "/etc/ssh/ssh_host_ed25519_key",
    ]


def test_name_time_zone_and_locale_are_those_of_the_variables(host):
    assert host.check_output("hostname") == "attic"
    # Its name is also written to /etc/hosts, but podman replaces that file at each start.
    assert host.check_output("date --date=2026-07-01T12:00Z +%z") == "+0000"
    assert host.check_output("su --login pi -c 'echo $LANG'") == "en_GB.UTF-8"
    assert "en_GB.utf8" in host.check_output("locale --all-locales").split()


def test_network_manager_has_the_wifi(host):
    assert host.file(CONNECTION).mode == 0o600
    host.run_expect([0], "systemctl start NetworkManager.service")
    shown = "nmcli --show-secrets --escape no --terse --get-values"
    fields = ("802-11-wireless.ssid", "802-11-wireless.hidden", "802-11-wireless-security.psk")
    found = [host.run(f"{shown} {field} connection show firstrun").stdout.removesuffix("\n") for field in fields]
    assert found == ['Mats’ nät; "2"\\', "yes", " xq7horse; \\battery'"]
    assert host.check_output("nmcli radio wifi") == "enabled"
    assert host.check_output("cat /var/lib/systemd/rfkill/*:wlan") == "0"


def test_the_next_boot_changes_nothing(host, pi):
    before = host.check_output("cat /etc/ssh/ssh_host_ed25519_key.pub")
    pi.reboot()
    assert host.check_output("cat /etc/ssh/ssh_host_ed25519_key.pub") == before
