"""The keys of the site's backups, derived from its recovery key, which is generated on first use."""

from __future__ import annotations

DOCUMENTATION = r"""
name: backup_key
short_description: Derive a key of the backups from the site's recovery key, and generate that one on first use
description:
  - The recovery key is the secret C(backup/recovery_key) of M(tig_pi.stack.secret#lookup). When it is generated it is printed once,
    to be written down.
  - Nobody who has a derived key can compute the recovery key or another derived key from it.
options:
  _terms:
    description:
      - V(repository) is the password of the repositories, V(description) that of the site's description in the archives.
      - V(ssh_private_key) and V(ssh_public_key) are the key with which the Pi logs in to a host that keeps backups.
    required: true
    choices: [repository, description, ssh_private_key, ssh_public_key]
  create:
    description: Whether to generate a recovery key if there is none.
    type: bool
    default: true
"""

EXAMPLES = r"""
backup_password: "{{ lookup('tig_pi.stack.backup_key', 'repository') }}"
"""

RETURN = r"""
_raw:
  description: The derived keys.
  type: list
  elements: str
"""

import hashlib
from pathlib import Path

from ansible.errors import AnsibleError
from ansible.utils.display import Display
from ansible_collections.tig_pi.stack.plugins.lookup import secret
from ansible_collections.tig_pi.stack.plugins.plugin_utils import recovery_key

NAME = "backup/recovery_key"
DERIVED = {
    "repository": recovery_key.repository_password,
    "description": recovery_key.description_password,
    "ssh_private_key": recovery_key.ssh_private_key,
    "ssh_public_key": recovery_key.ssh_public_key,
}
WRITE_DOWN = """The recovery key of this site was generated. WRITE IT DOWN, and keep it away from this computer and from the Pi:

    {}

With it and a backup everything can be restored, even if this computer is lost. Without it no backup can be read.
It is also in {}."""


class LookupModule(secret.LookupModule):
    def run(self, terms, variables=None, **kwargs):
        unknown = set(terms) - DERIVED.keys()
        if unknown:
            raise AnsibleError(
                f"backup_key: there is no key {', '.join(sorted(unknown))}; there are {', '.join(DERIVED)}."
            )
        path = Path(self._folder(variables or {})) / NAME
        is_new = not path.exists()
        text = super().run([NAME], variables, **kwargs)[0]
        if is_new and path.exists():
            Display().display(WRITE_DOWN.format(text, path), color="bright yellow")
        try:
            key = recovery_key.parse(text)
        except recovery_key.KeyProblem as problem:
            raise AnsibleError(f"backup_key: the secret {NAME}: {problem}.") from problem
        return [DERIVED[term](key) for term in terms]

    def _new(self, name: str, check: bool) -> str:
        # In check mode the same one throughout the run.
        return recovery_key.generate(hashlib.sha256(secret._RUN).digest() if check else None)
