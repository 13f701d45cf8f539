"""`make card`: a blank Pi boots with the files of the card, is the declared host, and keeps no secret on its boot partition."""

from __future__ import annotations

import json
import subprocess

import blank_card
import pytest

testinfra_hosts = ["ansible://pi"]
PASSWORD = 'a "xq7horse": battery'
SECRET_FILES = ("vendor-data", "network-config")


@pytest.fixture(scope="module", autouse=True)
def booted(pis, boot_with) -> None:
    boot_with(pis["pi"], "card.img", SECRET_FILES)


def test_cloud_init_did_everything_without_an_error(host):
    status = json.loads(host.run("cloud-init status --wait --format=json").stdout)
    assert (status["status"], status["errors"], status["recoverable_errors"]) == ("done", [], {})


def test_the_files_are_valid_for_the_cloud_init_of_the_pi(host):
    result = host.run("cloud-init schema --system")
    assert result.rc == 0, result.stdout + result.stderr


def test_only_the_declared_key_is_accepted(host, pi, refuses_all_but_the_key):
    refuses_all_but_the_key(pi)


def test_the_account_has_no_password_and_may_use_sudo(host):
    assert host.check_output("getent shadow pi").split(":")[1].startswith("!")
    assert set(host.check_output("id -nG pi").split()) >= {"sudo", "dialout", "gpio", "adm"}


def test_the_host_key_is_the_one_of_the_controller(host, inventory):
    """Although a service of Raspberry Pi OS replaces the keys at the first boot."""
    private = inventory / "secrets/ssh_host_key/pi"
    made = subprocess.run(
        ["ssh-keygen", "-y", "-f", private], capture_output=True, text=True, check=True
    ).stdout.split()
    assert host.check_output("cat /etc/ssh/ssh_host_*_key.pub").split()[:2] == made[:2]
    assert host.check_output("ls /etc/ssh/ssh_host_*_key") == "/etc/ssh/ssh_host_ed25519_key"


def test_name_time_zone_and_locale_are_those_of_the_inventory(host):
    assert host.check_output("hostname") == "greenhouse"
    assert host.check_output("getent hosts greenhouse").split()[0].startswith("127.")
    assert host.check_output("date --date=2026-07-01T12:00Z +%z") == "+0200"
    assert host.check_output("su --login pi -c 'echo $LANG'") == "en_GB.UTF-8"
    assert "en_GB.utf8" in host.check_output("locale --all-locales").split()


def test_commands_of_the_site_are_run(host):
    assert host.file("/etc/of-the-site").exists


def test_the_wifi_is_configured_and_its_password_readable_by_root_only(host):
    found = host.check_output("grep -rlF %s /run/NetworkManager/system-connections", "ssid=")
    connection = host.file(found)
    assert connection.mode == 0o600
    assert "psk=" + PASSWORD.replace("\\", "\\\\") in connection.content_string


def test_no_secret_is_left_on_the_boot_partition(left_on_the_boot_partition):
    assert left_on_the_boot_partition(SECRET_FILES) == set(blank_card.FILES) - set(SECRET_FILES)


def test_no_other_account_can_read_a_secret(host, inventory):
    host.run_expect([0], "useradd --no-create-home nosy")
    key = (inventory / "secrets/ssh_host_key/pi").read_text().splitlines()[2]
    for secret in ("xq7horse", key):
        search = "grep -rlsIF -e %s /boot /etc /home /run /tmp /var"
        assert host.run(f"runuser -u nosy -- {search}", secret).stdout == ""
        assert host.run(search, secret).stdout != ""  # which root finds


def test_the_next_boot_changes_nothing(host, pi):
    before = host.check_output("cat /etc/ssh/ssh_host_ed25519_key.pub; readlink /var/lib/cloud/instance")
    pi.reboot()
    status = json.loads(host.run("cloud-init status --wait --format=json").stdout)
    assert (status["status"], status["errors"]) == ("done", [])
    assert host.check_output("cat /etc/ssh/ssh_host_ed25519_key.pub; readlink /var/lib/cloud/instance") == before
    assert host.check_output("hostname") == "greenhouse"


def test_the_playbooks_reach_the_pi_without_a_question(playbook):
    run = playbook("reach.yml")
    assert run.returncode == 0, run.stdout
    assert "Ask whether the new key" not in run.stdout
    assert "unreachable=0" in run.stdout
