"""A feed for a Pi without internet is checked on the controller, copied, and checked by apt before anything is installed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import deb
import pytest
import repository
from ansible.errors import AnsibleError
from ansible_collections.tig_pi.stack.plugins.filter.apt import apt_source
from ansible_collections.tig_pi.stack.plugins.filter.openpgp import openpgp_fingerprint
from ansible_collections.tig_pi.stack.plugins.plugin_utils.feed import CONTROLLER, INDEX, Feed
from interpreters import Interpreter
from project import REPOSITORY
from test_feed import make_deb
from wheels import Wheel

NO_DATES = {"Check-Valid-Until": "no", "Check-Date": "no"}


@pytest.fixture(scope="module")
def key(tmp_path_factory) -> repository.SigningKey:
    key = repository.SigningKey(tmp_path_factory.mktemp("key"))
    key.ensure()
    return key


@pytest.fixture
def published(tmp_path, key) -> Path:
    """The directory of a feed: server, which depends on library, and wheels of the controller and of esptool."""
    made = [make_deb(tmp_path, "server", "2.1", Depends="library"), make_deb(tmp_path, "library")]
    packages = [deb.Package.read(path, "built", "test") for path in made]
    for directory in ("python", "esptool", "python-esptool"):
        wheel = tmp_path / f"one-1.0-py3-none-{directory}.whl"
        wheel.write_text(directory)
        packages.append(Wheel.of(wheel, directory))
    (tmp_path / "LoPy4-1.20.2.r6.tar.gz").write_text("interpreter")
    packages.append(Interpreter.of(tmp_path / "LoPy4-1.20.2.r6.tar.gz"))
    repository.publish(tmp_path / "feed", packages, key, "trixie", "amd64", "")
    return tmp_path / "feed"


@pytest.fixture
def fingerprint(published) -> str:
    return openpgp_fingerprint((published / "feed.asc").read_text())


def opened(published: Path, release: str = "trixie", architecture: str = "amd64") -> Feed:
    return Feed(str(published), release, architecture)


# On the controller


def test_a_good_feed_is_accepted(published, fingerprint):
    feed = opened(published)
    assert openpgp_fingerprint(feed.verified(fingerprint)) == fingerprint
    feed.require(["server", "server=2.*", "library=*"])


def test_feeds_for_several_kinds_of_pi_in_one_directory(published, fingerprint, tmp_path):
    (tmp_path / "stick").mkdir()
    published.rename(tmp_path / "stick/trixie-amd64")
    opened(tmp_path / "stick").verified(fingerprint)
    with pytest.raises(AnsibleError, match="no feed for bookworm on armhf"):
        opened(tmp_path / "stick", "bookworm", "armhf")


@pytest.mark.parametrize(("release", "architecture"), [("bookworm", "amd64"), ("trixie", "arm64")])
def test_a_feed_for_another_host_is_refused(published, fingerprint, release, architecture):
    message = f"is for trixie on amd64, and the host has {release} on {architecture}.*feed_architecture={architecture}"
    with pytest.raises(AnsibleError, match=message):
        opened(published, release, architecture).verified(fingerprint)


@pytest.mark.parametrize(
    "name",
    [
        "server_2.1_amd64.deb",
        "python/one-1.0-py3-none-python.whl",
        "interpreters/LoPy4-1.20.2.r6.tar.gz",
        "Packages",
        "feed.lock.json",
    ],
)
def test_a_changed_file_is_named(published, fingerprint, name):
    content = (published / name).read_bytes()
    (published / name).unlink()  # it may be a hard link
    (published / name).write_bytes(
        content.replace(b'"2.1"', b'"2.2"') if name.endswith("json") else content[:-1] + b"!"
    )
    with pytest.raises(AnsibleError, match=f"{re.escape(name)} in the feed .* was changed after it was signed"):
        opened(published).verified(fingerprint)


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    path.unlink()  # it may be a hard link
    path.write_text(text.replace(old, new))
    assert path.read_text() != text


END = "-----END PGP SIGNATURE-----\n"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Label: tig-pi feed", "Label: tig-pi food"),
        (END, ""),
        (END, f"{END}\0"),
        ("-----BEGIN PGP SIGNED", "\n-----BEGIN PGP SIGNED"),
    ],
)
def test_an_invalid_signature_is_named(published, fingerprint, old, new):
    replace(published / "InRelease", old, new)
    message = r"The signature of the feed .*/feed \(InRelease\) is not valid\. Copy the feed again, or fill it again: make feed"
    with pytest.raises(AnsibleError, match=message):
        opened(published).verified(fingerprint)


def test_the_program_that_verifies_signatures_is_named_if_it_is_missing(published, fingerprint, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AnsibleError, match=r"this computer has neither gpgv nor sqv\. Install gpgv"):
        opened(published).verified(fingerprint)


def test_a_missing_file_is_named(published, fingerprint):
    (published / "library_1.0_amd64.deb").unlink()
    with pytest.raises(AnsibleError, match=r"lacks the file library_1\.0_amd64\.deb"):
        opened(published).verified(fingerprint)


@pytest.mark.parametrize("expected", ["", "AB" * 20])
def test_a_feed_that_somebody_else_signed_is_refused(published, expected):
    with pytest.raises(AnsibleError, match=f"is signed by the key .*, and {expected or 'none'} is expected"):
        opened(published).verified(expected)


def test_missing_packages_and_versions_are_named(published):
    with pytest.raises(AnsibleError, match=r"lacks restic, server=3\.\* \(it has 2\.1\)\. Fill it again: make feed"):
        opened(published).require(["restic", "server=3.*", "library"])


# Where it is


@pytest.mark.parametrize(
    ("options", "directory"),
    [
        ([], "cache/feed/mine"),
        (["--extra-vars={site_feed: STICK}"], "STICK"),
        (["--extra-vars={site_feed: STICK, feed_directory: OTHER}"], "OTHER"),
    ],
)
def test_make_feed_fills_the_feed_that_the_site_uses(published, fingerprint, tmp_path, options, directory):
    """Also if the inventory is a file."""
    shutil.copytree(REPOSITORY / "playbooks/group_vars", tmp_path / "playbooks/group_vars")
    shutil.copy(REPOSITORY / "playbooks/feed.yml", tmp_path / "playbooks")
    (tmp_path / "packaging").mkdir()
    (tmp_path / "packaging/feed.py").write_text(
        f"import pathlib, sys\npathlib.Path({str(tmp_path / 'arguments')!r}).write_text(' '.join(sys.argv))\nprint({str(published)!r})\n"
    )
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/hosts.yml").write_text(
        "site: {hosts: {pi: }, children: {devices: {hosts: {one: {lopy4_interpreter: a.tar.gz}, two: {lopy4_interpreter: a.tar.gz}, three: }}}}\n"
    )
    command = [
        Path(sys.executable).with_name("ansible-playbook"),
        "playbooks/feed.yml",
        "-i",
        "mine/hosts.yml",
        *options,
    ]
    environment = os.environ | {
        "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"),
        "TIG_PI_CACHE": "cache",
    }
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    arguments = (tmp_path / "arguments").read_text().split()
    assert f"--directory={directory}" in arguments
    assert [each for each in arguments if each.startswith("--interpreter")] == ["--interpreter=a.tar.gz"]
    assert (tmp_path / "mine/secrets/feed_fingerprint").read_text().strip() == fingerprint


# esptool, on the host of a node


def make_wheel(directory: Path, platform: str) -> Path:
    """A wheel of esptool 1.0 with nothing in it."""
    directory.mkdir()
    path = directory / f"esptool-1.0-py3-none-{platform}.whl"
    files = {"METADATA": "Metadata-Version: 2.1\nName: esptool\nVersion: 1.0\n", "RECORD": ""}
    files["WHEEL"] = f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-{platform}\n"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(f"esptool-1.0.dist-info/{name}", content)
    return path


@pytest.fixture
def esptool(ansible_playbook, tmp_path):
    """Install esptool from a feed for a node that is connected to the controller, as role lopy4 does."""

    def run() -> str:
        variables = {
            "lopy4_serial_host": "localhost",
            "lopy4_name": "attic",
            "lopy4_prepare_serial_host": False,
            "lopy4_esptool_directory": str(tmp_path / "esptool"),
            "lopy4_esptool_feed": str(tmp_path / "stick"),
            "lopy4_feed_command": "make feed",
        }
        role = {"name": "tig_pi.stack.lopy4", "tasks_from": "esptool"}
        task = {"ansible.builtin.include_role": role, "vars": variables}
        result = ansible_playbook(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": [task]}]))
        return " ".join((result.stdout + result.stderr).split())

    return run


def test_a_missing_feed_is_named_before_esptool_is_installed(esptool, tmp_path):
    assert f"localhost has no feed in {tmp_path}/stick, from which esptool is installed. Run `make feed`" in esptool()
    assert not (tmp_path / "esptool").exists()


def test_a_feed_without_esptool_is_named(esptool, published, tmp_path):
    """There are no wheels for armhf."""
    published.rename(tmp_path / "stick")
    assert f"The feed {tmp_path}/stick has no esptool for localhost. There is none for armhf" in esptool()
    assert not (tmp_path / "esptool").exists()


def test_esptool_is_installed_from_the_controller_s_feed(esptool, tmp_path, key):
    """Which has wheels for several kinds of computers."""
    made = [make_wheel(tmp_path / "wheels", "any"), make_wheel(tmp_path / "other", "manylinux_2_17_s390x")]
    packages = [Wheel.of(path, "python-esptool") for path in made]
    repository.publish(tmp_path / "stick/trixie-amd64", packages, key, "trixie", "amd64", "")
    said = esptool()
    assert list((tmp_path / "esptool").glob("lib/python*/site-packages/esptool-1.0.dist-info")), said


# On the host, with its apt


@pytest.fixture
def copied(published, tmp_path):
    """Run the module as the action does, on this machine: missing files are in a tar file."""

    def run(*names: str, sent: tuple[str, ...] | None = None, check: bool = False) -> dict:
        target = tmp_path / "copy"
        files = [name for name in opened(published).files if not name.startswith(CONTROLLER)] + list(INDEX)
        with tarfile.open(tmp_path / "feed.tar", "w") as tar:
            for name in files if sent is None else sent:
                tar.add(published / name, arcname=name)
        key = (published / "feed.asc").read_text()
        arguments = {
            "path": str(target),
            "hashes": {name: deb.sha256(published / name) for name in files},
            "source": apt_source(f"file://{target}", "./", "", key, NO_DATES),
            "name": names,
            "archive": str(tmp_path / "feed.tar"),
            "_ansible_check_mode": check,
            "_ansible_remote_tmp": str(tmp_path),
        }
        result = subprocess.run(
            [sys.executable, REPOSITORY / "plugins/modules/apt_feed.py"],
            input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}),
            env=os.environ | {"_ANSIBLE_PROFILE": "legacy"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.stdout, result.stderr
        return json.loads(result.stdout)

    return run


def test_a_feed_is_copied_once_without_what_only_the_controller_needs(copied, tmp_path):
    result = copied("server=2.*")
    assert result["changed"], result
    assert (tmp_path / "copy/esptool/one-1.0-py3-none-esptool.whl").exists()
    assert [path.name for path in (tmp_path / "copy").iterdir() if path.is_dir()] == ["esptool"]
    assert copied("server")["changed"] is False
    (tmp_path / "copy/library_1.0_amd64.deb").unlink()
    assert copied("server")["missing"] == ["library_1.0_amd64.deb"]
    # The card has changed a byte, but that matters only if packages will be installed.
    content = (tmp_path / "copy/library_1.0_amd64.deb").read_bytes()
    (tmp_path / "copy/library_1.0_amd64.deb").write_bytes(content[:-1] + b"!")
    assert copied(check=True)["missing"] == []
    assert copied("server")["missing"] == ["library_1.0_amd64.deb"]


def test_check_mode_copies_nothing(copied, tmp_path):
    assert copied("server", check=True)["changed"]
    assert not (tmp_path / "copy").exists()


def test_a_feed_that_lacks_a_dependency_is_refused_before_anything_is_installed(copied, published, tmp_path, key):
    server = deb.Package.read(published / "server_2.1_amd64.deb", "built", "test")
    repository.publish(published, [server], key, "trixie", "amd64", "")
    result = copied("server")
    assert result["failed"]
    assert re.search(
        r"It may lack some; fill it again: .*server : Depends: library but it is not installable", result["msg"]
    )
    # It is checked again, although nothing has to be copied any more.
    assert copied("server")["failed"]


def test_a_feed_with_an_invalid_signature_is_refused(copied, published):
    """It may have been damaged on its way."""
    replace(published / "InRelease", "Label: tig-pi feed", "Label: tig-pi food")
    for _ in range(2):
        result = copied()
        assert result["failed"]
        assert "apt refuses the feed" in result["msg"]


def test_a_copy_has_no_other_files(copied, published, tmp_path):
    (published / "evil").write_text("x")
    result = copied("server", sent=("evil",))
    assert "the archive has evil, which is no file of the feed" in result["msg"]
    assert not (tmp_path / "copy/evil").exists()


def test_packages_that_the_feed_no_longer_has_are_removed_from_the_copy(copied, published, tmp_path, key):
    copied("server")
    kept = deb.Package.read(published / "library_1.0_amd64.deb", "built", "test")
    repository.publish(published, [kept], key, "trixie", "amd64", "")
    assert copied("library")["changed"]
    assert [path.name for path in (tmp_path / "copy").glob("*.deb")] == ["library_1.0_amd64.deb"]
