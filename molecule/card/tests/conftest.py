"""What the cards of all releases have in common: how a Pi boots with one, who may log in, and what is left on it."""

from __future__ import annotations

import os
import pathlib

import pytest

EPHEMERAL = pathlib.Path(os.environ.get("MOLECULE_EPHEMERAL_DIRECTORY", "."))
BOOT = "/boot/firmware"
CONFIG = EPHEMERAL / "pis/ssh_config"


@pytest.fixture
def left_on_the_boot_partition(host):
    """The files that are left on the boot partition; those with secrets must have been overwritten before they were removed."""

    def files(secret_files: tuple[str, ...]) -> set[str]:
        for name in secret_files:  # a file that was only removed would have its content here
            assert set(host.file(f"/root/overwritten/{name}").content) <= {0}, name
        return set(host.check_output(f"ls {BOOT}").split())

    return files
