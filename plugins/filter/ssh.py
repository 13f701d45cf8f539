"""How SSH reaches a host, and the keys by which it knows it."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterable


def ssh_endpoint(configuration: Iterable[str]) -> dict:
    """Where a host is reached, from the lines that `ssh -G` prints.

    Returns:
        host, port: of the connection.
        is_direct: whether it is reached without a proxy.
        name: its name in the file known_hosts.
    """
    found = dict(line.split(" ", 1) for line in configuration if " " in line)
    host, port = found["hostname"], int(found["port"])
    proxies = [found.get(option, "none") for option in ("proxyjump", "proxycommand")]
    return {
        "host": host,
        "port": port,
        "is_direct": proxies == ["none", "none"],
        "name": found.get("hostkeyalias") or (host if port == 22 else f"[{host}]:{port}"),
        "known_hosts": os.path.expanduser(found["userknownhostsfile"].split(" ")[0]),
    }


def host_keys(lines: Iterable[str]) -> list[str]:
    """Type and key in each line of ssh-keyscan or of a known_hosts file, without the names of the hosts."""
    parts = (line.split() for line in lines if line.strip() and not line.startswith(("#", "@")))
    return sorted({f"{words[1]} {words[2]}" for words in parts})


def fingerprints(keys: Iterable[str]) -> list[str]:
    """The fingerprints of host keys, as ssh-keygen prints them."""
    blobs = (base64.b64decode(key.split()[1]) for key in keys)
    return [f"SHA256:{base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip('=')}" for blob in blobs]


class FilterModule:
    def filters(self) -> dict:
        return {"fingerprints": fingerprints, "host_keys": host_keys, "ssh_endpoint": ssh_endpoint}
