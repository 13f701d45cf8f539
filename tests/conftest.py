"""Fixtures of the unit tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from ansible.plugins.loader import init_plugin_loader
from project import REPOSITORY

init_plugin_loader()  # so that tests can import plugins by their collection
# These variables would make the make of a test part of the make that runs the tests.
for variable in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL"):
    os.environ.pop(variable, None)


@pytest.fixture
def repository() -> Path:
    return REPOSITORY


@pytest.fixture
def ansible_playbook(tmp_path):
    """Run a playbook on this machine with the project's ansible.cfg, and with an inventory of its own."""

    def run(playbook: str, *options: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess:
        inventory = tmp_path / "inventory"
        inventory.mkdir(exist_ok=True)
        hosts = inventory / "hosts.yml"
        if not hosts.exists():
            hosts.write_text("all: {hosts: {localhost: {ansible_connection: local}}}\n")
        (tmp_path / "playbook.yml").write_text(playbook)
        command = [
            str(Path(sys.executable).with_name("ansible-playbook")),
            "-i",
            str(hosts),
            str(tmp_path / "playbook.yml"),
        ]
        variables = {
            **os.environ,
            "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"),
            "ANSIBLE_LOCAL_TEMP": str(tmp_path / "local"),
            "ANSIBLE_REMOTE_TEMP": str(tmp_path / "remote"),
            "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
            "ANSIBLE_NOCOLOR": "1",
            **(environment or {}),
        }
        return subprocess.run(
            [*command, *options], cwd=REPOSITORY, env=variables, capture_output=True, text=True, check=False
        )

    return run
