"""Files of apt for packages that Debian does not have: a source, and a pin of the wanted version."""

from __future__ import annotations

CHOSEN = "`apt upgrade` keeps to the version that the site has chosen."


def apt_source(uri: str, suites: str, components: str, key: str, options: dict[str, str] | None = None) -> str:
    """The text of a file in /etc/apt/sources.list.d (sources.list(5), deb822-style format), with its own key.

    deb822_repository is not used, since it needs python3-debian on the host: check mode on an empty host could not show the
    file, and a first run would need one more transaction.

    Args:
        uri: of the repository.
        suites: separated by blanks; a path that ends in / for a flat repository.
        components: separated by blanks; "" for a flat repository.
        key: ASCII-armoured block of the one key that may sign it.
        options: more fields, such as {"Check-Valid-Until": "no"}.
    """
    fields = {"Types": "deb", "URIs": uri, "Suites": suites, "Components": components} | (options or {})
    lines = [f"{name}: {value}" for name, value in fields.items() if value]
    # In a field of several lines, an empty one is a dot.
    lines += ["Signed-By:", *(f" {line or '.'}" for line in key.strip().splitlines())]
    return "\n".join(["# Ansible managed", *lines, ""])


def apt_pin(package: str, pin: str, *, why: str = CHOSEN, priority: int = 995) -> str:
    """The text of a file in /etc/apt/preferences.d (apt_preferences(5)).

    Args:
        package: name, or several separated by blanks.
        pin: which of its versions, such as `version 1.*`.
        why: the explanation, in one line.
        priority: 995 comes before every other version that is newer than the installed one, 1001 also if it is older; -1 is
            never installed.
    """
    fields = {"Explanation": why, "Package": package, "Pin": pin, "Pin-Priority": priority}
    return "\n".join(["# Ansible managed", *(f"{name}: {value}" for name, value in fields.items()), ""])


class FilterModule:
    def filters(self) -> dict:
        return {"apt_source": apt_source, "apt_pin": apt_pin}
