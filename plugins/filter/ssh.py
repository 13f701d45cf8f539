"""Host keys of SSH, and the command that reaches a host."""

from __future__ import annotations

import base64
import hashlib
import os
import shlex
from collections.abc import Iterable, Mapping


def host_keys(lines: Iterable[str]) -> list[str]:
    """Type and key in each line of ssh-keyscan or of a known_hosts file, without the names of the hosts."""
    parts = (line.split() for line in lines if line.strip() and not line.startswith(("#", "@")))
    return sorted({f"{words[1]} {words[2]}" for words in parts})


def fingerprints(keys: Iterable[str]) -> list[str]:
    """The fingerprints of host keys, as ssh-keygen prints them."""
    blobs = (base64.b64decode(key.split()[1]) for key in keys)
    return [f"SHA256:{base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip('=')}" for blob in blobs]


def ssh_command(variables: Mapping, host: str) -> list[str]:
    """The command that runs another one on a host as root, with the host's connection variables.

    The controller passes a stream through it, which Ansible's modules cannot. So there is nobody who types a password.
    """
    command = ["ssh", "-o", "BatchMode=yes", "-o", "ControlPath=none"]
    if variables.get("ansible_port"):
        command += ["-p", str(variables["ansible_port"])]
    if key := variables.get("ansible_ssh_private_key_file") or variables.get("ansible_private_key_file"):
        command += ["-i", os.path.expanduser(key)]
    for arguments in ("ansible_ssh_args", "ansible_ssh_common_args", "ansible_ssh_extra_args"):
        command += shlex.split(variables.get(arguments) or "")
    user = variables.get("ansible_ssh_user") or variables.get("ansible_user")
    if user:
        command += ["-l", user]
    command += [variables.get("ansible_ssh_host") or variables.get("ansible_host") or host]
    return command if user == "root" else [*command, "sudo", "--non-interactive"]


class FilterModule:
    def filters(self) -> dict:
        return {
            "fingerprints": fingerprints,
            "host_keys": host_keys,
            "ssh_command": ssh_command,
        }
