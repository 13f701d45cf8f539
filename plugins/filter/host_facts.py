"""What a host has, from the facts about its packages and services (package_facts and service_facts give their form)."""

from __future__ import annotations

from fnmatch import fnmatchcase

from ansible.module_utils.compat.version import LooseVersion


def absent_packages(wanted: list[str], facts: dict) -> list[str]:
    """Those packages of which no version is installed. Each is given as apt takes it: `name`, or `name=version` with
    `*` for the rest (apt-get(8))."""
    return [package for package in wanted if not _versions(package, facts)]


def unmet_packages(wanted: list[str], facts: dict) -> list[str]:
    """Those packages of which the wanted version is not installed."""
    return [
        package
        for package in wanted
        if not any(fnmatchcase(version, _pattern(package)) for version in _versions(package, facts))
    ]


def newer_packages(wanted: list[str], facts: dict) -> list[str]:
    """Those packages of which a newer version than the wanted one is installed, so that to meet it is to go back."""
    return [
        package
        for package in unmet_packages(wanted, facts)
        if any(_is_newer(version, _pattern(package).partition("*")[0]) for version in _versions(package, facts))
    ]


def service_is_up(facts: dict, unit: str) -> bool:
    """Whether a service runs and is enabled. Where nobody has looked, it is not known to be."""
    service = facts.get("services", {}).get(unit, {})
    return service.get("state") == "running" and service.get("status") == "enabled"


def _pattern(package: str) -> str:
    return package.partition("=")[2] or "*"


def _versions(package: str, facts: dict) -> list[str]:
    return [found["version"] for found in facts.get("packages", {}).get(package.partition("=")[0], [])]


def _is_newer(version: str, wanted: str) -> bool:
    if "-" not in wanted:  # no revision of the package was asked for
        version = version.rpartition("-")[0] or version
    try:
        return LooseVersion(version) > LooseVersion(wanted)
    except TypeError:  # a letter against a number: whoever has it shall say what is to become of it
        return True


class FilterModule:
    def filters(self) -> dict:
        return {
            "absent_packages": absent_packages,
            "unmet_packages": unmet_packages,
            "newer_packages": newer_packages,
            "service_is_up": service_is_up,
        }
