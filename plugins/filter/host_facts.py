"""What a host has, from the facts that the module host_facts gathers."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase

# What the feed makes where a vendor is out of reach has such a version, which sorts before the vendor's own.
MADE_HERE = re.compile(r"~(standin|tigpi)\d+")


def absent_packages(wanted: list[str], facts: dict) -> list[str]:
    """Those packages of which no version is installed. Each is given as apt takes it: `name`, or `name=version` with
    `*` for the rest (apt-get(8))."""
    return [package for package in wanted if not _versions(package, facts)]


def unmet_packages(wanted: list[str], facts: dict) -> list[str]:
    """Those packages of which the wanted version is not installed. A package that was made in place of the vendor's is wanted
    only where its exact version is: apt takes the vendor's as soon as it can be had."""
    return [
        package
        for package in wanted
        if not any(
            version == _pattern(package) or (_fits(version, package) and not MADE_HERE.search(version))
            for version in _versions(package, facts)
        )
    ]


def newer_packages(wanted: list[str], facts: dict) -> list[str]:
    """Those packages of which a newer version than the wanted one is installed, so that to meet it is to go back."""
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


def service_is_up(facts: dict, service: dict) -> bool:
    """Whether a service, with its unit and ports, is enabled, runs and listens. Without facts it is not known to."""
    found = facts.get("services", {}).get(service["unit"], {})
    listening = {(listener["protocol"], listener["port"]) for listener in facts.get("listeners", [])}
    ports = {(port.get("protocol", "tcp"), int(port["port"])) for port in service.get("ports", [])}
    return found.get("state") == "running" and found.get("status") == "enabled" and ports <= listening


def host_problems(
    system: dict, facts: dict, *, releases: list[str], architectures: list[str], free_mb: int, ports: list[dict]
) -> list[str]:
    """What keeps the services from running on a host.

    Args:
        system: the system, as the module host_facts returns it.
        facts: the host's facts, with what listens there.
        releases: code names of the Debian releases that are supported.
        architectures: that are supported, as dpkg calls them.
        free_mb: free space that /var needs, in MB.
        ports: that the services will listen on, each with the unit that may hold it already.
    """
    problems = []
    if system["distribution"] not in ("debian", "raspbian") or system["release"] not in releases:
        problems.append(
            f"This is {system['name']}; the stack runs on Raspberry Pi OS and Debian {' and '.join(releases)}."
        )
    if system["machine"].startswith("armv6"):
        problems.append(
            "This Pi has an ARMv6 processor (Pi 1, Zero, Zero W); the stack needs ARMv7 or newer: a Pi 2, 3, 4, 5 or Zero 2 W."
        )
    elif system["architecture"] not in architectures:
        problems.append(f"The architecture is {system['architecture']}; the stack runs on {', '.join(architectures)}.")
    if system["free_mb"] < free_mb:
        problems.append(
            f"/var has {system['free_mb']} MB left, and the stack needs {free_mb} MB: "
            "make room (sudo apt-get clean), or use a larger card."
        )
    return problems + [problem for port in ports for problem in _port_problems(port, facts.get("listeners", []))]


def _port_problems(wanted: dict, listeners: list[dict]) -> list[str]:
    """That a port is used by another program than the service's, once."""
    number, protocol = int(wanted["port"]), wanted.get("protocol", "tcp")
    others = [
        listener
        for listener in listeners
        if (listener["protocol"], listener["port"]) == (protocol, number) and wanted["unit"] not in listener["units"]
    ]
    return [
        f"Port {number}/{protocol} is needed by {wanted['unit']}, but used by "
        f"{other['program'] or 'a program'} (process {other['pid'] or 'unknown'}): stop that program, or choose another port."
        for other in others[:1]
    ]


def _pattern(package: str) -> str:
    return package.partition("=")[2] or "*"


def _versions(package: str, facts: dict) -> list[str]:
    return [found["version"] for found in facts.get("packages", {}).get(package.partition("=")[0], [])]


def _fits(version: str, package: str) -> bool:
    return fnmatchcase(version, _pattern(package))


def _is_newer(version: str, wanted: str) -> bool:
    if "-" not in wanted:  # no revision of the package was asked for
        version = version.rpartition("-")[0] or version
    return debian_version(version) > debian_version(wanted)


def debian_version(version: str) -> tuple:
    """A key that sorts versions of packages as dpkg does (deb-version(7)), which a controller need not have."""
    epoch, _, rest = version.rpartition(":")
    upstream, dash, revision = rest.rpartition("-")
    return int(epoch or 0), _part(upstream if dash else rest), _part(revision if dash else "")


def _part(text: str) -> tuple:
    """Characters that are no digits, and numbers, in turn; the end comes after a tilde, and before all else."""
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
            "service_is_up": service_is_up,
            "host_problems": host_problems,
        }
