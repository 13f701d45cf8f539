"""A secret of the site: read from the inventory's secrets directory, made there on first use."""

from __future__ import annotations

DOCUMENTATION = r"""
name: secret
short_description: Read a secret of the site, and generate it on first use
description:
  - Secrets are kept in C(<inventory_dir>/secrets/), one file each, readable by their owner only. Keep the folder out of git, and
    out of the inventory with C(inventory_ignore_patterns = ^secrets$) in C(ansible.cfg).
  - A secret that the variable C(site_secrets) holds under its name (from a vault, say) is taken from there.
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
    description: The characters that a new secret is made of; it begins with a letter if there is one among them.
    type: str
    default: abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789
  create:
    description: Whether a secret that is missing is made. One that only you know, such as the Wi-Fi's, is not.
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

# The processes of one run share what is drawn here before they are forked.
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
            raise AnsibleError(f"secret: {name!r} is no name of a secret; use letters, digits, '.', '_', '-' and '/'.")
        path = folder / name
        try:
            if not path.exists():
                if not self.get_option("create"):
                    raise AnsibleError(
                        f"secret: only you know {name}: put it into {path} (or site_secrets) and run again."
                    )
                value = self._new(name, check)
                if check:
                    return value
                self._keep(folder, path, value)
            value = path.read_text(encoding="utf-8").rstrip("\n")
        except OSError as error:
            raise AnsibleError(f"secret: {path}: {error.strerror}.") from error
        except UnicodeDecodeError:
            # Not from the error, which has the secret in it.
            raise AnsibleError(f"secret: {path} is not in UTF-8; save it in that encoding and run again.") from None
        if not value:
            raise AnsibleError(f"secret: {path} is empty; put the secret into it, or remove it to have a new one made.")
        return value

    def _new(self, name: str, check: bool) -> str:
        chars, length = self.get_option("chars"), self.get_option("length")
        # A program that guesses types (Grafana's provisioning does) shall not take it for a number.
        letters = "".join(char for char in chars if char.isalpha()) or chars
        choices = [letters, *[chars] * (length - 1)]
        if not check:
            return "".join(secrets.choice(choice) for choice in choices)
        stream = hashlib.shake_256(_RUN + name.encode()).digest(length)
        return "".join(choice[byte % len(choice)] for choice, byte in zip(choices, stream, strict=True))

    @staticmethod
    def _keep(folder: Path, path: Path, value: str) -> None:
        """Write a new secret so that it is there whole or not at all; whoever comes second takes the first one's."""
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
