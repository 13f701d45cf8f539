"""The key that signs an apt repository: downloaded once, and trusted only for its fingerprint."""

from __future__ import annotations

DOCUMENTATION = r"""
name: repository_key
short_description: Return the key of an apt repository, verified by its fingerprint
description:
  - Returns the one key of a key file that has the recorded fingerprint, and ignores all other keys in the file.
  - A key from a URL is kept in the user's cache directory, so that a later run does not need the vendor's server.
    Nothing is written in check mode.
options:
  _terms:
    description: An ASCII-armoured public key block, or the URL of one.
    required: true
  fingerprint:
    description: Fingerprint of the primary key, in hexadecimal; spaces are ignored.
    type: str
    required: true
  variable:
    description: The inventory's variable of the fingerprint, for error messages.
    type: str
    required: true
"""

EXAMPLES = r"""
signed_by: >-
  {{ lookup('tig_pi.stack.repository_key', grafana_repository.key, fingerprint=grafana_repository.fingerprint,
            variable='grafana_repository.fingerprint') }}
"""

RETURN = r"""
_raw:
  description: The key, as an ASCII-armoured block.
  type: list
  elements: str
"""

import os
import tempfile
from pathlib import Path
from urllib.error import URLError

from ansible.errors import AnsibleError
from ansible.module_utils.urls import open_url
from ansible.plugins.lookup import LookupBase
from ansible_collections.tig_pi.stack.plugins.filter.openpgp import openpgp_keys


class LookupModule(LookupBase):
    def run(self, terms, variables=None, **kwargs):
        self.set_options(var_options=variables, direct=kwargs)
        self._check = bool((variables or {}).get("ansible_check_mode"))
        self._variable = self.get_option("variable")
        self._wanted = "".join(self.get_option("fingerprint").split()).upper()
        return [self._key(term) for term in terms]

    def _key(self, term: str) -> str:
        if not term.startswith(("http://", "https://")):
            return self._chosen(term, "The key of the repository")
        kept = self._kept()
        if self._wanted and kept.exists():
            return self._chosen(kept.read_text(encoding="ascii"), str(kept))
        key = self._chosen(fetched(term), f"The key at {term}")
        if not self._check:
            keep(kept, key)
        return key

    def _chosen(self, text: str, where: str) -> str:
        keys = openpgp_keys(text)
        if self._wanted in keys:
            return keys[self._wanted]
        there = " and ".join(keys) or "no key"
        if not self._wanted:
            raise AnsibleError(
                f"{self._variable} is not set, and an unverified key is not used. {where} has the "
                f"fingerprint {there}. Compare it with the vendor's installation guide, over another connection if "
                f"possible, and set it in the inventory: {self._variable}: <fingerprint>"
            )
        raise AnsibleError(
            f"{where} has the fingerprint {there}, but {self._variable} is {self._wanted}. If the vendor has announced "
            "a new key, set its fingerprint there; if not, do not continue."
        )

    def _kept(self) -> Path:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        return Path(os.environ.get("TIG_PI_CACHE") or Path(base, "tig-pi"), "keys", f"{self._wanted}.asc")


def fetched(url: str) -> str:
    try:
        return open_url(url, timeout=30).read().decode("ascii")
    except (URLError, OSError) as error:
        raise AnsibleError(f"The key of the repository cannot be downloaded from {url}: {error}.") from error
    except UnicodeError as error:
        raise AnsibleError(f"The answer of {url} is not an ASCII-armoured key.") from error


def keep(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write(text)
    os.replace(temporary, path)
