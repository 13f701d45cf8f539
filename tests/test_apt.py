"""Sources and pins of apt: what the filters render, apt itself has to understand."""

from __future__ import annotations

import subprocess

import pytest
from ansible_collections.tig_pi.stack.plugins.filter.apt import apt_pin, apt_source

KEY = "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmDMEZ\n=abcd\n-----END PGP PUBLIC KEY BLOCK-----\n"


def test_the_key_is_in_the_source_and_its_empty_line_a_dot():
    text = apt_source("https://example.org/debian", "stable", "main", KEY)
    assert text.splitlines() == [
        "# Ansible managed",
        "Types: deb",
        "URIs: https://example.org/debian",
        "Suites: stable",
        "Components: main",
        "Signed-By:",
        " -----BEGIN PGP PUBLIC KEY BLOCK-----",
        " .",
        " mDMEZ",
        " =abcd",
        " -----END PGP PUBLIC KEY BLOCK-----",
    ]


def test_a_flat_repository_has_no_components():
    assert "Components" not in apt_source("file:///srv/tig-pi-feed", "./", "", KEY)


@pytest.mark.parametrize(
    ("suites", "components", "expected"),
    [
        ("stable", "main", "https://example.org/debian/dists/stable/InRelease"),
        ("./", "", "https://example.org/debian/./InRelease"),
    ],
)
def test_apt_reads_the_source(tmp_path, suites, components, expected):
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts/vendor.sources").write_text(apt_source("https://example.org/debian", suites, components, KEY))
    options = [
        f"-oDir::Etc::SourceList={tmp_path}/none",
        f"-oDir::Etc::SourceParts={tmp_path}/parts",
        "-oDir::State=/dev/null",
    ]
    said = subprocess.run(
        ["apt-get", *options, "indextargets", "--format=$(REPO_URI)"], capture_output=True, text=True, check=False
    )
    assert said.stderr == ""  # no complaint about the file
    uris = subprocess.run(["apt-get", *options, "update", "--print-uris"], capture_output=True, text=True, check=False)
    assert expected.replace("/./", "/") in uris.stdout.replace("/./", "/"), uris


@pytest.mark.parametrize(
    ("package", "pin", "options", "priority"),
    [
        ("dpkg", "version *", {}, "995"),
        ("apt dpkg", "version *", {"priority": 1001}, "1001"),
        ("dpkg", "version 0.*", {}, None),  # no such version, so none is held
        ("apt dpkg", "version *", {"priority": -1}, "-1"),
    ],
)
def test_apt_keeps_the_pinned_version(tmp_path, package, pin, options, priority):
    (tmp_path / "pin").write_text(apt_pin(package, pin, **options))
    options = ["-oDir::Etc::Preferences=/dev/null", f"-oDir::Etc::PreferencesParts={tmp_path}"]
    said = subprocess.run(["apt-cache", "policy", "dpkg", *options], capture_output=True, text=True, check=True)
    assert said.stderr == ""  # no complaint about the file
    found = set(said.stdout.partition("Version table:")[2].split())
    assert {"995", "1001", "-1"} & found == ({priority} if priority else set()), said.stdout
