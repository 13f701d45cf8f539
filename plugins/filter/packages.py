"""Which packages a host has, and in which version, from the package facts."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase

# A package that the feed builds because its vendor is out of reach has such a version, which sorts before the vendor's own.
MADE_HERE = re.compile(r"~(standin|tigpi)\d+")


def absent_packages(wanted: list[str], facts: dict) -> list[str]:
    """The packages of which no version is installed. Each is given as for apt: `name`, or `name=version` with
    `*` for the rest (apt-get(8))."""
    return [package for package in wanted if not _versions(package, facts)]


def unmet_packages(wanted: list[str], facts: dict) -> list[str]:
    """The packages of which the wanted version is not installed. A package that was built in place of the vendor's only meets its
    exact version: apt installs the vendor's as soon as it is available."""
    return [
        package
        for package in wanted
        if not any(
            version == _pattern(package) or (_fits(version, package) and not MADE_HERE.search(version))
            for version in _versions(package, facts)
        )
    ]


def newer_packages(wanted: list[str], facts: dict) -> list[str]:
    """The packages of which a newer version than the wanted one is installed, so that installing that is a downgrade."""
    return [
        package
        for package in wanted
        if any(
            not _fits(version, package) and _is_newer(version, _pattern(package).partition("*")[0])
            for version in _versions(package, facts)
        )
    ]


def installed_version(facts: dict, package: str) -> str:
    """Version of an installed package; empty if it is not installed."""
    return next(iter(_versions(package, facts)), "")


def _pattern(package: str) -> str:
    return package.partition("=")[2] or "*"


def _versions(package: str, facts: dict) -> list[str]:
    return [found["version"] for found in facts.get("packages", {}).get(package.partition("=")[0], [])]


def _fits(version: str, package: str) -> bool:
    return fnmatchcase(version, _pattern(package))


def _is_newer(version: str, wanted: str) -> bool:
    if "-" not in wanted:  # no revision of the package is wanted
        version = version.rpartition("-")[0] or version
    return debian_version(version) > debian_version(wanted)


def debian_version(version: str) -> tuple:
    """A key that sorts versions of packages as dpkg does (deb-version(7)), which a controller may lack."""
    epoch, _, rest = version.rpartition(":")
    upstream, dash, revision = rest.rpartition("-")
    return int(epoch or 0), _part(upstream if dash else rest), _part(revision if dash else "")


def _part(text: str) -> tuple:
    """Non-digits and numbers in turn. The end sorts after a tilde and before everything else."""
    end = ((0,), 0)
    pairs = [
        ((*(_rank(character) for character in letters), 0), int(digits or 0))
        for letters, digits in re.findall(r"([^0-9]*)([0-9]*)", text)
    ]
    while pairs and pairs[-1] == end:
        pairs.pop()
    return (*pairs, end)


def _rank(character: str) -> int:
    return -1 if character == "~" else ord(character) + (0 if character.isalpha() else 256)


class FilterModule:
    def filters(self) -> dict:
        return {
            "absent_packages": absent_packages,
            "unmet_packages": unmet_packages,
            "newer_packages": newer_packages,
            "installed_version": installed_version,
        }
