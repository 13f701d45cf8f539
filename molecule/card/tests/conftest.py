"""What the cards of all releases have in common: how a Pi boots with one, who may log in, and what is left on it."""

from __future__ import annotations

import io
import os
import pathlib
import shlex
import subprocess
import sys
import tarfile

import pytest

PROJECT = pathlib.Path(__file__).resolve().parents[3]
EPHEMERAL = pathlib.Path(os.environ.get("MOLECULE_EPHEMERAL_DIRECTORY", "."))
sys.path.insert(0, str(PROJECT / "tests"))
import blank_card  # noqa: E402

BOOT = "/boot/firmware"
CONFIG = EPHEMERAL / "pis/ssh_config"


@pytest.fixture(scope="session")
def boot_with():
    """The Pi gets the card's files as its boot partition, forgets what only the tests gave it, and boots."""

    def boot(pi, card: str, secret_files: tuple[str, ...], then: str = ":") -> None:
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as tar:
            for name, content in blank_card.read(EPHEMERAL / card).items():
                member = tarfile.TarInfo(name)
                member.size, member.mode = len(content), 0o755  # as FAT has it
                tar.addfile(member, io.BytesIO(content))
        blank = f"""set -e
        tar --extract --directory={BOOT} --no-same-owner
        mkdir /root/overwritten
        for file in {" ".join(secret_files)}; do ln {BOOT}/$file /root/overwritten/; done
        userdel --force --remove pi 2>/dev/null || :
        rm -f /etc/sudoers.d/* /etc/ssh/ssh_host_*
        ! getent passwd pi
        {then}"""
        command = ["ssh", "-F", CONFIG, pi.name, "sudo sh -c " + shlex.quote(blank)]
        subprocess.run(command, input=packed.getvalue(), check=True)
        pi.reboot()

    return boot


@pytest.fixture
def refuses_all_but_the_key(tmp_path):
    """Account pi lets the declared key in, and neither another one nor a password."""

    def check(pi) -> None:
        accepted = ["ssh", "-F", CONFIG, "-o", "ControlPath=none", pi.name, "id -un"]
        quiet = {"capture_output": True, "text": True, "stdin": subprocess.DEVNULL}
        assert subprocess.run(accepted, **quiet, check=True).stdout == "pi\n"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "other"], check=True)
        common = ["ssh", "-F", "/dev/null", "-p", str(pi.port(22)), "-o", "BatchMode=yes"]
        common += ["-o", "StrictHostKeyChecking=no", "-o", f"UserKnownHostsFile={tmp_path}/known"]
        for options in (["-i", str(tmp_path / "other"), "-o", "IdentitiesOnly=yes"], ["-o", "PubkeyAuthentication=no"]):
            refused = subprocess.run([*common, *options, f"pi@{pi.address}", "true"], **quiet, check=False)
            assert refused.returncode == 255
            assert "Permission denied (publickey)." in refused.stderr

    return check


@pytest.fixture
def left_on_the_boot_partition(host):
    """The files that are left on the boot partition; those with secrets must have been overwritten before they were removed."""

    def files(secret_files: tuple[str, ...]) -> set[str]:
        for name in secret_files:  # a file that was only removed would have its content here
            assert set(host.file(f"/root/overwritten/{name}").content) <= {0}, name
        return set(host.check_output(f"ls {BOOT}").split())

    return files
