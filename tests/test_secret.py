"""The secret lookup: made once, kept to its owner, and never written by a run that only looks."""

from __future__ import annotations

import stat

PLAY = """
- hosts: localhost
  gather_facts: false
  tasks:
    - ansible.builtin.debug:
        msg: "got {{ lookup('tig_pi.stack.secret', 'mosquitto/telegraf' %s) }}"
"""


def secret(tmp_path):
    return tmp_path / "inventory/secrets/mosquitto/telegraf"


def test_a_secret_is_generated_once(ansible_playbook, tmp_path):
    first = ansible_playbook(PLAY % "").stdout
    value = secret(tmp_path).read_text().strip()
    assert len(value) == 32
    assert f"got {value}" in first
    assert f"got {value}" in ansible_playbook(PLAY % "").stdout


def test_a_secret_does_not_look_like_a_number(ansible_playbook, tmp_path):
    """Grafana would take it for one, so that it could not be kept apart from the provisioning file."""
    ansible_playbook(PLAY % ", chars='0123456789a'")
    assert secret(tmp_path).read_text().startswith("a")


def test_only_its_owner_can_read_a_secret(ansible_playbook, tmp_path):
    ansible_playbook(PLAY % "")
    assert stat.S_IMODE(secret(tmp_path).stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "inventory/secrets").stat().st_mode) == 0o700
    assert [path.name for path in secret(tmp_path).parent.iterdir()] == ["telegraf"]


def test_check_mode_writes_nothing(ansible_playbook, tmp_path):
    result = ansible_playbook(PLAY % "", "--check")
    assert "got " in result.stdout
    assert not (tmp_path / "inventory/secrets").exists()


def test_a_secret_from_a_vault_takes_precedence(ansible_playbook, tmp_path):
    result = ansible_playbook(PLAY % "", "-e", '{"site_secrets": {"mosquitto/telegraf": "from-the-vault"}}')
    assert "got from-the-vault" in result.stdout
    assert not secret(tmp_path).exists()


def test_a_secret_that_cannot_be_generated_is_requested(ansible_playbook, tmp_path):
    result = ansible_playbook(PLAY % ", create=false")
    assert result.returncode != 0
    assert "mosquitto/telegraf is missing, and only you know it" in result.stdout + result.stderr
    assert not secret(tmp_path).exists()


def test_an_empty_file_is_an_error(ansible_playbook, tmp_path):
    secret(tmp_path).parent.mkdir(parents=True)
    secret(tmp_path).write_text("\n")
    result = ansible_playbook(PLAY % "")
    assert result.returncode != 0
    assert "is empty" in result.stdout + result.stderr


def test_a_name_outside_of_the_folder_is_refused(ansible_playbook):
    result = ansible_playbook(PLAY.replace("mosquitto/telegraf", "../outside") % "")
    assert result.returncode != 0
    assert "is not a valid name of a secret" in result.stdout + result.stderr


def test_an_error_names_a_file_in_another_encoding_without_its_content(ansible_playbook, tmp_path):
    secret(tmp_path).parent.mkdir(parents=True)
    secret(tmp_path).write_bytes("Grüße-aus-Køge\n".encode("latin-1"))
    result = ansible_playbook(PLAY % "", "-vvv")
    assert result.returncode != 0
    assert "mosquitto/telegraf is not in UTF-8" in result.stdout + result.stderr
    assert "aus-K" not in result.stdout + result.stderr
