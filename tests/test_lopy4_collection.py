"""The role lopy4 as a part of the collection: by itself in another project, and the imports of its modules."""

from __future__ import annotations

import ast
import graphlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from lopy4_bench import Device
from project import REPOSITORY

pytestmark = pytest.mark.slow

INVENTORY = "devices: {hosts: {greenhouse: }}\n"
PLAYBOOK = """
- hosts: devices
  gather_facts: false
  roles: [tig_pi.stack.lopy4]
  vars:
    lopy4_port: PORT
    lopy4_wifi_ssid: virtual-network
    lopy4_wifi_password: eight-or-more
    lopy4_broker_host: 192.0.2.1
    lopy4_broker_password: secret
    lopy4_sensors: [{driver: dht11, pin: P11, fields: {temperature: outsidetemp}}]
"""


@pytest.fixture
def project(tmp_path):
    """run(): the playbook of a project with the installed collection, as somebody has it who never saw this repository."""
    galaxy = str(Path(sys.executable).with_name("ansible-galaxy"))
    build = [galaxy, "collection", "build", "--output-path", str(tmp_path / "built")]
    subprocess.run(build, cwd=REPOSITORY, check=True, capture_output=True)
    [artefact] = (tmp_path / "built").iterdir()
    install = [galaxy, "collection", "install", "--no-deps", "--offline", "-p", str(tmp_path / "collections")]
    subprocess.run([*install, str(artefact)], cwd=tmp_path, check=True, capture_output=True)
    (tmp_path / "ansible.cfg").write_text(f"[defaults]\ncollections_path = {tmp_path}/collections\n")
    (tmp_path / "hosts.yml").write_text(INVENTORY)

    def run(port: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "playbook.yml").write_text(PLAYBOOK.replace("PORT", port))
        environment = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
        command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "hosts.yml", "playbook.yml"]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    return run


def test_a_playbook_of_ten_lines_programs_a_device(project, tmp_path):
    # The clock runs fast: without a broker a program counts as working after a minute.
    with Device(tmp_path / "state", "pycom", paced=False, speed=5) as device:
        for changed in (1, 0):
            result = project(device.port)
            assert result.returncode == 0, result.stdout + result.stderr
            assert re.search(rf"^greenhouse .*changed={changed}\b", result.stdout, re.MULTILINE), result.stdout


def test_the_uploader_imports_one_way():
    """No module imports one that needs it, and none imports a plugin."""
    prefix = "ansible_collections.tig_pi.stack.plugins."
    imports: dict[str, set[str]] = {}
    for path in [*REPOSITORY.glob("plugins/*/lopy4*.py"), *REPOSITORY.glob("plugins/*/lopy4/*.py")]:
        name = prefix + ".".join(path.relative_to(REPOSITORY / "plugins").with_suffix("").parts)
        nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
        imports[name] = {node.module for node in nodes if node.module.startswith(prefix)}
    assert len(imports) > 20
    graphlib.TopologicalSorter(imports).prepare()  # a cycle is an error
    shared = {module.removeprefix(prefix).split(".")[0] for modules in imports.values() for module in modules}
    assert shared == {"module_utils", "plugin_utils"}
