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

import gzip
import hmac
import io
import tarfile
from pathlib import Path

from ansible.errors import AnsibleError
from ansible.parsing.vault import VaultAES256, VaultSecret, format_vaulttext_envelope
from ansible.plugins.lookup import LookupBase

LEFT_OUT = {"secrets/backup/recovery_key"}


class LookupModule(LookupBase):
    def run(self, terms, variables=None, **kwargs):
        self.set_options(var_options=variables, direct=kwargs)
        directory = (variables or {}).get("inventory_dir")
        if not directory:
            raise AnsibleError("site_description: there is no inventory directory; run with -i inventories/<site>.")
        return [_encrypted(_packed(Path(directory)), term.encode()) for term in terms]


def _packed(directory: Path) -> bytes:
    """The files of a directory as a tar file that depends on their names, contents and permissions only."""
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(directory.rglob("*")):
            name = path.relative_to(directory)
            is_hidden = any(part.startswith(".") for part in name.parts)
            if is_hidden or str(name) in LEFT_OUT or not path.is_file():
                continue
            content = path.read_bytes()
            member = tarfile.TarInfo(str(name))
            member.size, member.mode = len(content), path.stat().st_mode & 0o777
            tar.addfile(member, io.BytesIO(content))
    return gzip.compress(output.getvalue(), mtime=0)


def _encrypted(content: bytes, password: bytes) -> str:
    # A salt made of the content, so that an unchanged description is an unchanged file on the Pi.
    salt = hmac.digest(password, content, "sha256")
    text = VaultAES256.encrypt(content, VaultSecret(password), salt)
    return format_vaulttext_envelope(text, "AES256").decode()
