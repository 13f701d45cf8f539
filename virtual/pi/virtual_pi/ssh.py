"""SSH to the virtual Pis of one state directory: keys, ssh_config and known_hosts."""

from __future__ import annotations

import json
import os
import pathlib
import stat
import subprocess
import tempfile

from . import LABEL, Failure
from .files import archive, replace_file

USER_KEY, HOST_KEY = "id_ed25519", "host_ed25519"
KEYS = tuple(key + end for key in (USER_KEY, HOST_KEY) for end in ("", ".pub"))


class Ssh:
    """The SSH files of a state directory; all its Pis share the keys."""

    def __init__(self, state: pathlib.Path) -> None:
        self.state = state

    @property
    def has_keys(self) -> bool:
        return all((self.state / name).is_file() for name in KEYS)

    def identity(self) -> bytes:
        """The host key and the authorized key of a Pi, as an archive for `podman cp`. Creates missing keys."""
        user_key, host_key = self.state / USER_KEY, self.state / HOST_KEY
        for key in (user_key, host_key):
            if not key.is_file():
                command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", LABEL, "-f", str(key)]
                subprocess.run(command, stdin=subprocess.DEVNULL, check=True)
        return archive(
            {
                "etc/ssh/ssh_host_ed25519_key": (host_key.read_text(), 0o600),
                "etc/ssh/ssh_host_ed25519_key.pub": (host_key.with_suffix(".pub").read_text(), 0o644),
                "home/pi/.ssh/authorized_keys": (user_key.with_suffix(".pub").read_text(), 0o644),
            }
        )

    def write_config(self) -> None:
        """Write ssh_config and known_hosts for all Pis of the directory."""
        blocks = []
        for path in sorted(self.state.glob("*.json")):
            pi = json.loads(path.read_text())
            names = dict.fromkeys([pi["name"], pi["alias"]])
            blocks.append(f"Host {' '.join(names)}\n  Port {pi['ports']['22']}\n")
        common = (
            "Host *\n  HostName 127.0.0.1\n  User pi\n"
            f'  IdentityFile "{self.state}/{USER_KEY}"\n  IdentitiesOnly yes\n'
            f'  HostKeyAlias virtual-pi\n  UserKnownHostsFile "{self.state}/known_hosts"\n'
            "  GlobalKnownHostsFile /dev/null\n  StrictHostKeyChecking yes\n"
            "  ServerAliveInterval 5\n  ServerAliveCountMax 3\n"  # a power cut does not close the connection
            f'  ControlMaster auto\n  ControlPersist 60\n  ControlPath "{control_directory()}/%C"\n'
        )
        public = (self.state / f"{HOST_KEY}.pub").read_text()
        replace_file(self.state / "known_hosts", f"virtual-pi {public}")
        replace_file(self.state / "ssh_config", "\n".join([*blocks, common]))

    def hang_up(self, name: str) -> None:
        """Close the shared connection before the Pi stops, so that no client waits on it."""
        command = ["ssh", "-F", str(self.state / "ssh_config"), "-O", "exit", name]
        subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)

    def remove(self) -> None:
        for name in ("ssh_config", "known_hosts", *KEYS):
            (self.state / name).unlink(missing_ok=True)


def control_directory() -> pathlib.Path:
    """The directory of ssh's control sockets: private, and short, because the path of a socket is limited to 107 characters."""
    path = pathlib.Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()) / f"{LABEL}-{os.getuid()}"
    path.mkdir(mode=0o700, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise Failure(f"{path} must be a directory that only this user can access; remove it")
    return path
