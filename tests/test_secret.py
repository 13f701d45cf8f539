"""The secret lookup: made once, kept to its owner, and never written by a run that only looks."""

from __future__ import annotations

import stat

import pytest
from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import lookup_loader
from ansible.template import Templar

PLAY = """
- hosts: localhost
  gather_facts: false
  tasks:
    - ansible.builtin.debug:
        msg: "got {{ lookup('tig_pi.stack.secret', 'mosquitto/telegraf') }}"
"""


def secret(tmp_path):
    return tmp_path / "inventory/secrets/mosquitto/telegraf"


@pytest.fixture
def lookup(tmp_path):
    """Look a secret up without a run of Ansible, which takes a second."""
    (tmp_path / "inventory").mkdir()

    def run(name: str = "mosquitto/telegraf", site_secrets: dict | None = None, **options) -> str:
        variables = {"inventory_dir": str(tmp_path / "inventory"), "site_secrets": site_secrets or {}}
        plugin = lookup_loader.get("tig_pi.stack.secret", loader=DataLoader(), templar=Templar(loader=DataLoader()))
        [value] = plugin.run([name], variables, **options)
        return value

    return run


def test_a_secret_is_generated_once(ansible_playbook, tmp_path):
    first = ansible_playbook(PLAY).stdout
    value = secret(tmp_path).read_text().strip()
    assert len(value) == 32
    assert f"got {value}" in first
    assert f"got {value}" in ansible_playbook(PLAY).stdout


def test_a_secret_does_not_look_like_a_number(lookup, tmp_path):
    """Grafana would take it for one, so that it could not be kept apart from the provisioning file."""
    lookup(chars="0123456789a")
    assert secret(tmp_path).read_text().startswith("a")


def test_only_its_owner_can_read_a_secret(lookup, tmp_path):
    lookup()
    assert stat.S_IMODE(secret(tmp_path).stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "inventory/secrets").stat().st_mode) == 0o700
    assert [path.name for path in secret(tmp_path).parent.iterdir()] == ["telegraf"]


def test_check_mode_writes_nothing(ansible_playbook, tmp_path):
    result = ansible_playbook(PLAY, "--check")
    assert "got " in result.stdout
    assert not (tmp_path / "inventory/secrets").exists()


def test_a_secret_from_a_vault_takes_precedence(lookup, tmp_path):
    assert lookup(site_secrets={"mosquitto/telegraf": "from-the-vault"}) == "from-the-vault"
    assert not secret(tmp_path).exists()


def test_a_secret_that_cannot_be_generated_is_requested(lookup, tmp_path):
    with pytest.raises(AnsibleError, match="mosquitto/telegraf is missing, and only you know it"):
        lookup(create=False)
    assert not secret(tmp_path).exists()


def test_an_empty_file_is_an_error(lookup, tmp_path):
    secret(tmp_path).parent.mkdir(parents=True)
    secret(tmp_path).write_text("\n")
    with pytest.raises(AnsibleError, match="is empty"):
        lookup()


def test_a_name_outside_of_the_folder_is_refused(lookup):
    with pytest.raises(AnsibleError, match="is not a valid name of a secret"):
        lookup("../outside")


def test_an_error_names_a_file_in_another_encoding_without_its_content(ansible_playbook, tmp_path):
    secret(tmp_path).parent.mkdir(parents=True)
    secret(tmp_path).write_bytes("Grüße-aus-Køge\n".encode("latin-1"))
    result = ansible_playbook(PLAY, "-vvv")
    assert result.returncode != 0
    assert "mosquitto/telegraf is not in UTF-8" in result.stdout + result.stderr
    assert "aus-K" not in result.stdout + result.stderr
