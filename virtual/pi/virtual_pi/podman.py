"""Run podman."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
from typing import Any

from . import LABEL, Failure
from .files import replace_file
from .host import host_containers_conf


class Podman:
    """podman as root (other users through sudo), with the settings that this machine needs."""

    def __init__(self, cache: pathlib.Path) -> None:
        if not shutil.which("podman"):
            raise Failure("podman is not installed; run bin/prerequisites demo")
        self.prefix = ["env"] if os.geteuid() == 0 else ["sudo"]
        if not shutil.which(self.prefix[0]):
            raise Failure("podman must run as root, and sudo is not installed: run this as root")
        if settings := host_containers_conf():
            path = cache / "containers.conf"
            if not path.is_file() or path.read_text() != settings:
                path.parent.mkdir(parents=True, exist_ok=True)
                replace_file(path, settings)
            self.prefix.append(f"CONTAINERS_CONF={path}")  # sudo itself sets it; sudo env would need a rule in sudoers

    def run(self, *arguments: str, data: bytes | None = None, check: bool = True) -> str:
        """Return podman's standard output. If it fails and `check` is set, raise a Failure with its standard error."""
        command = [*self.prefix, "podman", *arguments]
        result = subprocess.run(
            command, input=data, stdin=None if data else subprocess.DEVNULL, capture_output=True, check=False
        )
        if check and result.returncode != 0:
            message = (result.stderr or result.stdout).decode(errors="replace").strip()
            raise Failure(f"podman {arguments[0]} failed: {message or result.returncode}")
        return result.stdout.decode(errors="replace")

    def succeeds(self, *arguments: str) -> bool:
        return subprocess.run([*self.prefix, "podman", *arguments], capture_output=True, check=False).returncode == 0

    def pis(self) -> dict[str, dict[str, Any]]:
        """All virtual Pis of this machine: {name: {"state": "running"|..., "labels": {...}}}, labels without prefix."""
        listed = json.loads(self.run("ps", "--all", f"--filter=label={LABEL}.state", "--format=json") or "[]") or []
        return {
            entry["Names"][0]: {
                "state": entry["State"],
                "labels": {k.removeprefix(f"{LABEL}."): v for k, v in entry["Labels"].items() if k.startswith(LABEL)},
            }
            for entry in listed
        }
