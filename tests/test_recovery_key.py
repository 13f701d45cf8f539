"""The recovery key: what people may type, what they may not, and what is derived from it."""

from __future__ import annotations

import random
import string
import subprocess

import pytest
from ansible.parsing.vault import VaultLib, VaultSecret
from ansible_collections.tig_pi.stack.plugins.lookup import site_description
from ansible_collections.tig_pi.stack.plugins.plugin_utils import recovery_key
from ansible_collections.tig_pi.stack.plugins.plugin_utils.recovery_key import KeyProblem
from project import REPOSITORY

KEY = recovery_key.generate(bytes(range(20)))


def test_a_key_may_be_typed_in_any_case_with_spaces_and_lookalikes():
    for typed in (KEY, KEY.lower(), KEY.replace("-", " "), KEY.replace("O", "0").replace("I", "1"), f" {KEY}\n"):
        assert recovery_key.parse(typed) == bytes(range(20))


def test_each_typing_error_of_one_character_is_noticed():
    letters = [place for place, letter in enumerate(KEY) if letter != "-"]
    for place in letters:
        for other in set(string.ascii_uppercase + "234567") - {KEY[place]}:
            with pytest.raises(KeyProblem, match="checksum"):
                recovery_key.parse(KEY[:place] + other + KEY[place + 1 :])


def test_two_letters_in_the_wrong_order_are_noticed():
    for place in range(len(KEY) - 1):
        typed = KEY[:place] + KEY[place + 1] + KEY[place] + KEY[place + 2 :]
        if typed.replace("-", "") != KEY.replace("-", ""):
            with pytest.raises(KeyProblem):
                recovery_key.parse(typed)


@pytest.mark.parametrize(
    ("typed", "problem"), [("", "letters"), (KEY[:-1], "letters"), (KEY[:-1] + "!", "digits 2 to 7")]
)
def test_what_is_no_key_is_refused_with_the_reason(typed, problem):
    with pytest.raises(KeyProblem, match=problem):
        recovery_key.parse(typed)


def test_keys_are_random_and_their_derivations_differ():
    assert recovery_key.generate() != recovery_key.generate()
    one, other = bytes(20), bytes(19) + b"\1"
    derived = [
        derive(key)
        for key in (one, other)
        for derive in (
            recovery_key.repository_password,
            recovery_key.description_password,
            recovery_key.ssh_private_key,
        )
    ]
    assert len(set(derived)) == len(derived)


def test_the_derivation_is_that_of_the_standard():
    """RFC 5869, as the library has it. What is derived must never change: it opens old archives."""
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    for length in (4, 32, 80):
        expected = HKDF(SHA256(), length, b"tig-pi", b"repository").derive(bytes(20))
        assert recovery_key.derive(bytes(20), "repository", length) == expected
    first = "b640af3a08a418ba1e11ab73335d4b4c42206cc6246c180b5c8bc27f771ed084"
    assert recovery_key.repository_password(bytes(20)) == first
    second = "25873523675282c27f421d79c99e38e9349aee6ade7bb94ac6625cfd1646d1aa"
    assert recovery_key.description_password(bytes(20)) == second


def test_ssh_takes_the_private_key_and_computes_the_public_one(tmp_path):
    for seed in range(5):
        key = random.Random(seed).randbytes(20)
        path = tmp_path / f"key{seed}"
        path.touch(mode=0o600)
        path.write_text(recovery_key.ssh_private_key(key))
        computed = subprocess.run(["ssh-keygen", "-y", "-f", path], capture_output=True, text=True, check=True).stdout
        assert computed.split()[:2] == recovery_key.ssh_public_key(key).split()[:2]


def test_the_description_has_the_inventory_and_its_secrets_and_not_the_recovery_key(tmp_path):
    (tmp_path / "secrets/backup").mkdir(parents=True)
    (tmp_path / "secrets/backup/recovery_key").write_text(KEY)
    (tmp_path / "secrets/wifi").write_text("sesame")
    (tmp_path / "hosts.yml").write_text("site: {}")
    (tmp_path / ".virtual").write_text("hidden")
    packed = site_description._packed(tmp_path)
    text = site_description._encrypted(packed, b"password")
    assert text == site_description._encrypted(site_description._packed(tmp_path), b"password")
    vault = VaultLib([("default", VaultSecret(b"password"))])
    assert vault.decrypt(text) == packed
    (tmp_path / "site.tar.gz").write_bytes(packed)
    listed = subprocess.run(["tar", "tzf", tmp_path / "site.tar.gz"], capture_output=True, text=True, check=True).stdout
    assert listed.split() == ["hosts.yml", "secrets/wifi"]


def test_a_site_without_backups_gets_no_recovery_key(tmp_path):
    """And one with backups gets it, printed once."""
    inventory = tmp_path / "site"
    inventory.mkdir()

    def passwords(targets: str) -> subprocess.CompletedProcess[str]:
        (inventory / "hosts.yml").write_text(
            "site: {children: {brokers: {hosts: {pi: {ansible_connection: local}}}}}\n"
        )
        (inventory / "host_vars").mkdir(exist_ok=True)
        (inventory / "host_vars/pi.yml").write_text(f"site_backup_targets: {targets}\n")
        module = [
            "-m",
            "ansible.builtin.debug",
            "-a",
            "msg=length={{ backup_password | length }}",
            "--playbook-dir",
            "playbooks",
        ]
        command = [REPOSITORY / ".venv/bin/ansible", "-i", inventory / "hosts.yml", "pi", *module]
        return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)

    without = passwords("[]")
    assert "length=0" in without.stdout, without.stdout + without.stderr
    assert not (inventory / "secrets/backup").exists()
    first = passwords("[{name: stick, kind: disk, label: BACKUP}]")
    assert "length=64" in first.stdout, first.stdout + first.stderr
    key = (inventory / "secrets/backup/recovery_key").read_text().strip()
    assert key in first.stdout
    assert "WRITE IT DOWN" in first.stdout
    assert (inventory / "secrets/backup/recovery_key").stat().st_mode & 0o777 == 0o600
    assert key not in passwords("[{name: stick, kind: disk, label: BACKUP}]").stdout
