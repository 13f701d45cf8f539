"""What the cards of all releases have in common: how a Pi boots with one, who may log in, and what is left on it."""

from __future__ import annotations

import os
import pathlib
import subprocess

import pytest

EPHEMERAL = pathlib.Path(os.environ.get("MOLECULE_EPHEMERAL_DIRECTORY", "."))
BOOT = "/boot/firmware"
CONFIG = EPHEMERAL / "pis/ssh_config"


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
