"""A secret of the site: read from the inventory's secrets directory, generated there on first use."""

from __future__ import annotations

DOCUMENTATION = r"""
name: secret
short_description: Read a secret of the site, and generate it on first use
description:
  - Secrets are kept in C(<inventory_dir>/secrets/), one file each, readable by their owner only. Keep the folder out of git, and
    out of the inventory with C(inventory_ignore_patterns = ^secrets$) in C(ansible.cfg).
  - If the variable C(site_secrets) has a value under the name of a secret (from a vault, for example), that value is used.
  - In check mode nothing is written. A secret that does not exist yet gets a temporary value, the same throughout the run.
options:
  _terms:
    description: Names of secrets, such as V(mosquitto/telegraf).
    required: true
  length:
    description: Number of characters of a new secret.
    type: int
    default: 32
  chars:
    description: The characters of a new secret. It begins with a letter if there is one among them.
    type: str
    default: abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789
  create:
    description: Whether to generate a secret that is missing. Set it to V(false) for those that only you know, such as that of the Wi-Fi.
    type: bool
    default: true
"""

EXAMPLES = r"""
mosquitto_accounts:
  - name: telegraf
    password: "{{ lookup('tig_pi.stack.secret', 'mosquitto/telegraf') }}"
"""

RETURN = r"""
_raw:
  description: The secrets.
  type: list
  elements: str
"""

import contextlib
import hashlib
import os
import re
import secrets
import tempfile
from pathlib import Path

from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase

# The processes of one run share this value, since it is drawn before they are forked.
_RUN = secrets.token_bytes(32)


class LookupModule(LookupBase):
    def run(self, terms, variables=None, **kwargs):
        self.set_options(var_options=variables, direct=kwargs)
        folder = Path(self._folder(variables or {}))
        check = bool((variables or {}).get("ansible_check_mode"))
        own = self._templar.template((variables or {}).get("site_secrets", {})) or {}
        return [own[term] if term in own else self._secret(folder, term, check) for term in terms]

    @staticmethod
    def _folder(variables: dict) -> str:
        inventory = variables.get("inventory_dir")
        if not inventory:
            raise AnsibleError(
                "secret: there is no inventory directory to keep secrets in; run with -i inventories/<site>."
            )
        return os.path.join(inventory, "secrets")

    def _secret(self, folder: Path, name: str, check: bool) -> str:
        if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*(/[A-Za-z0-9_-][A-Za-z0-9_.-]*)*", name):
            raise AnsibleError(
                f"secret: {name!r} is not a valid name of a secret; use letters, digits, '.', '_', '-' and '/'."
            )
        path = folder / name
        try:
            if not path.exists():
                if not self.get_option("create"):
                    raise AnsibleError(
                        f"secret: {name} is missing, and only you know it: write it to {path} (or set it in site_secrets) and run again."
                    )
                value = self._new(name, check)
                if check:
                    return value
                self._keep(folder, path, value)
            value = path.read_text(encoding="utf-8").rstrip("\n")
        except OSError as error:
            raise AnsibleError(f"secret: {path}: {error.strerror}.") from error
        except UnicodeDecodeError:
            # Without the original error, which contains the secret.
            raise AnsibleError(f"secret: {path} is not in UTF-8; save it in that encoding and run again.") from None
        if not value:
            raise AnsibleError(
                f"secret: {path} is empty; write the secret to it, or remove it to have a new one generated."
            )
        return value

    def _new(self, name: str, check: bool) -> str:
        chars, length = self.get_option("chars"), self.get_option("length")
        # A program that guesses types, such as Grafana's provisioning, must not read it as a number.
        letters = "".join(char for char in chars if char.isalpha()) or chars
        choices = [letters, *[chars] * (length - 1)]
        if not check:
            return "".join(secrets.choice(choice) for choice in choices)
        stream = hashlib.shake_256(_RUN + name.encode()).digest(length)
        return "".join(choice[byte % len(choice)] for choice, byte in zip(choices, stream, strict=True))

    @staticmethod
    def _keep(folder: Path, path: Path, value: str) -> None:
        """Write a new secret atomically. If another process was faster, its secret is kept."""
        for parent in [folder, *reversed(path.relative_to(folder).parents[:-1])]:
            (folder / parent).mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent)  # mode 0600
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(value + "\n")
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):
                os.link(temporary, path)
        finally:
            os.remove(temporary)
