"""The inventory of the site with its secrets, encrypted for its backups."""

from __future__ import annotations

DOCUMENTATION = r"""
name: site_description
short_description: Return the inventory of the site with its secrets, encrypted
description:
  - Packs the directory of the inventory, without the recovery key itself, hidden files and links, and encrypts it in the format of
    Ansible Vault with the key that M(tig_pi.stack.backup_key#lookup) derives for it.
  - The same inventory gives the same text.
options:
  _terms:
    description: The password.
    required: true
"""

EXAMPLES = r"""
backup_description: "{{ lookup('tig_pi.stack.site_description', lookup('tig_pi.stack.backup_key', 'description')) }}"
"""

RETURN = r"""
_raw:
  description: The encrypted description.
  type: list
  elements: str
"""

import hmac
from pathlib import Path

from ansible.errors import AnsibleError
from ansible.parsing.vault import VaultAES256, VaultSecret, format_vaulttext_envelope
from ansible.plugins.lookup import LookupBase
from ansible_collections.tig_pi.stack.plugins.plugin_utils.description import is_left_out, packed, read


class LookupModule(LookupBase):
    def run(self, terms, variables=None, **kwargs):
        self.set_options(var_options=variables, direct=kwargs)
        directory = (variables or {}).get("inventory_dir")
        if not directory:
            raise AnsibleError("site_description: there is no inventory directory; run with -i inventories/<site>.")
        return [_encrypted(_packed(Path(directory)), term.encode()) for term in terms]


def _packed(directory: Path) -> bytes:
    """The files of a directory."""
    paths = {path.relative_to(directory): path for path in sorted(directory.rglob("*")) if path.is_file()}
    return packed({str(name): read(path) for name, path in paths.items() if not is_left_out(name)})


def _encrypted(content: bytes, password: bytes) -> str:
    # A salt made of the content, so that an unchanged description is an unchanged file on the Pi.
    salt = hmac.digest(password, content, "sha256")
    text = VaultAES256.encrypt(content, VaultSecret(password), salt)
    return format_vaulttext_envelope(text, "AES256").decode()
