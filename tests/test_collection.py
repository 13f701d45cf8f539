"""The repository as the collection tig_pi.stack: what is built of it, and that Ansible finds a clone under that name."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import ansible
import pytest
from project import PROBE, REPOSITORY

pytestmark = pytest.mark.slow

ROLE = "roles/where/tasks/main.yml"
WHERE = "- ansible.builtin.debug: {msg: 'It is {{ role_path }}'}\n"
PLAY = "- {hosts: localhost, gather_facts: false, roles: [tig_pi.stack.where]}\n"


def command(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


@pytest.fixture(scope="module")
def tarball(tmp_path_factory):
    """The collection, built."""
    folder = tmp_path_factory.mktemp("tarball")
    build = [command("ansible-galaxy"), "collection", "build", "--output-path", str(folder)]
    subprocess.run(build, cwd=REPOSITORY, check=True, capture_output=True)
    [path] = folder.iterdir()
    return path


@pytest.fixture(scope="module")
def built(tarball):
    """The paths in the tarball."""
    with tarfile.open(tarball) as archive:
        return set(archive.getnames())


@pytest.fixture(scope="module")
def project(tarball, tmp_path_factory):
    """An empty project in which the tarball is installed, and what it depends on."""
    folder = tmp_path_factory.mktemp("project")
    community = folder / "collections/ansible_collections/community"
    community.parent.mkdir(parents=True)
    community.symlink_to(Path(ansible.__file__).parents[1] / "ansible_collections/community")
    # By force, since this clone counts as installed where pip puts collections.
    options = ["--force", "--no-deps", "--collections-path", str(folder / "collections")]
    install = [command("ansible-galaxy"), "collection", "install", *options, str(tarball)]
    subprocess.run(install, cwd=folder, check=True, capture_output=True)
    return folder


def collection_alone(project) -> dict[str, str]:
    """The environment of a project that has no other copy of the collection than the installed one."""
    return {
        **{name: value for name, value in os.environ.items() if name != "ANSIBLE_CONFIG"},
        "HOME": str(project),
        "ANSIBLE_COLLECTIONS_PATH": str(project / "collections"),
        "ANSIBLE_COLLECTIONS_SCAN_SYS_PATH": "false",
    }


def test_only_what_roles_need_is_built(built):
    assert {name.partition("/")[0] for name in built} == {
        "CHANGELOG.md",
        "FILES.json",
        "LICENSE",
        "MANIFEST.json",
        "README.md",
        "contract.yml",
        "firmware",
        "meta",
        "plugins",
        "roles",
        "templates",
    }


def test_all_roles_and_plugins_are_built(built):
    listed = subprocess.run(["git", "ls-files", "roles", "plugins"], cwd=REPOSITORY, capture_output=True, text=True)
    assert {name for name in listed.stdout.splitlines() if (REPOSITORY / name).exists()} <= built


EXAMPLES = {
    path.parent.name: found[1]
    for path in REPOSITORY.glob("roles/*/README.md")
    if (found := re.search(r"```yaml\n(- hosts:.*?)```", path.read_text(), re.DOTALL))
}


@pytest.mark.parametrize("role", ["base", "grafana", "influxdb", "mosquitto", "node_red", "telegraf"])
def test_the_example_of_a_role_is_a_playbook_of_a_project_that_has_only_the_collection(role, project):
    (project / f"{role}.yml").write_text(EXAMPLES[role])
    check = [command("ansible-playbook"), "--syntax-check", "--inventory", "localhost,", f"{role}.yml"]
    result = subprocess.run(check, cwd=project, env=collection_alone(project), capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert f"role: tig_pi.stack.{role}" in EXAMPLES[role]


def test_the_contract_comes_from_the_installed_collection(project):
    """Changed there, to tell it from the one of this clone."""
    installed = project / "collections/ansible_collections/tig_pi/stack/contract.yml"
    text = installed.read_text()
    installed.write_text(text.replace(f"probe: {PROBE}", "probe: installed"))
    try:
        ask = [command("ansible"), "localhost", "-m", "ansible.builtin.debug"]
        ask += ["-a", "msg={{ lookup('tig_pi.stack.contract').probe }}"]
        result = subprocess.run(ask, cwd=project, env=collection_alone(project), capture_output=True, text=True)
    finally:
        installed.write_text(text)
    assert '"msg": "installed"' in result.stdout, result.stdout + result.stderr


@pytest.mark.parametrize("kind", ["module", "lookup", "callback"])
def test_every_plugin_is_documented(kind):
    """A module without documentation that can be parsed works, and ansible-doc has nothing to tell of it."""
    folder = {"module": "modules"}.get(kind, kind)
    names = {f"tig_pi.stack.{path.stem}" for path in (REPOSITORY / "plugins" / folder).glob("*.py")}
    ansible_doc = [command("ansible-doc"), "--json", "--type", kind, *names]
    result = subprocess.run(ansible_doc, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert json.loads(result.stdout).keys() == names, result.stderr


@pytest.fixture
def clone(tmp_path):
    """A clone with a role of its own; its path has a blank."""
    root = tmp_path / "a clone"
    for name in ("bin/venv", "ansible.cfg", "galaxy.yml", "meta/runtime.yml"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, root / name)
    (root / ROLE).parent.mkdir(parents=True)
    (root / ROLE).write_text(WHERE)
    (root / "playbook.yml").write_text(PLAY)
    return root


def test_a_clone_is_found_before_any_installed_copy(clone, tmp_path):
    installed = tmp_path / "home/.ansible/collections/ansible_collections/tig_pi/stack"
    (installed / ROLE).parent.mkdir(parents=True)
    (installed / ROLE).write_text(WHERE)
    environment = {
        **os.environ,
        "PYTHON": sys.executable,
        "HOME": str(tmp_path / "home"),
        "ANSIBLE_CONFIG": str(clone / "ansible.cfg"),
    }
    subprocess.run([clone / "bin/venv"], env=environment, check=True, capture_output=True)
    play = [command("ansible-playbook"), "--inventory", "localhost,", "playbook.yml"]
    result = subprocess.run(play, cwd=clone, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    said = " ".join(result.stdout.split())  # a long line is broken
    assert f"It is {clone}/.venv/ansible_collections/tig_pi/stack/roles/where" in said


def test_a_clone_is_linked_into_an_existing_environment(clone):
    environment = {**os.environ, "PYTHON": sys.executable}
    subprocess.run([clone / "bin/venv"], env=environment, check=True, capture_output=True)
    [link] = clone.glob(".venv/lib/python3.*/site-packages/ansible_collections/tig_pi/stack")
    link.unlink()
    subprocess.run([clone / "bin/venv", "--check"], env=environment, check=True)
    assert link.resolve() == clone.resolve()
