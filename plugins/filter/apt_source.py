"""Sources of apt."""

from __future__ import annotations


def apt_source(uri: str, suites: str, components: str, key: str) -> str:
    """The text of a file in /etc/apt/sources.list.d (sources.list(5), deb822-style format), with its own key.

    Rendered here, not with deb822_repository: that module needs python3-debian on the host, so that a dry run on an empty
    host could not say what would be written, and a first run would install it in a transaction of its own.

    Args:
        uri: of the repository.
        suites: separated by blanks; a path that ends in / for a flat repository.
        components: separated by blanks; "" for a flat repository.
        key: ASCII-armoured block of the one key that may sign it.
    """
    fields = {"Types": "deb", "URIs": uri, "Suites": suites, "Components": components}
    lines = [f"{name}: {value}" for name, value in fields.items() if value]
    # In a field of several lines, an empty one is a dot.
    lines += ["Signed-By:", *(f" {line or '.'}" for line in key.strip().splitlines())]
    return "\n".join(["# Ansible managed", *lines, ""])


class FilterModule:
    def filters(self) -> dict:
        return {"apt_source": apt_source}
