"""The SSH host key of a Pi: generated on the controller, so that the first connection needs no question."""

from __future__ import annotations

DOCUMENTATION = r"""
name: ssh_host_key
short_description: Read the SSH host key of a host, and generate it on first use
description:
  - The private key is the secret C(ssh_host_key/<host>) of M(tig_pi.stack.secret#lookup), an Ed25519 key in the format of OpenSSH.
  - A card that is written again for the same host has the same key.
options:
  _terms:
    description: Names of hosts.
    required: true
  public:
    description: Whether to return the public key, as in a file known_hosts, instead of the private one.
    type: bool
    default: false
  create:
    description: Whether to generate a key that is missing.
    type: bool
    default: true
"""

EXAMPLES = r"""
card_host_key: "{{ lookup('tig_pi.stack.ssh_host_key', inventory_hostname) }}"
"""

RETURN = r"""
_raw:
  description: The keys.
  type: list
  elements: str
"""

import hashlib

from ansible.errors import AnsibleError
from ansible_collections.tig_pi.stack.plugins.lookup import secret
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
)

FOLDER = "ssh_host_key"


class LookupModule(secret.LookupModule):
    def run(self, terms, variables=None, **kwargs):
        names = [f"{FOLDER}/{term}" for term in terms]
        texts = [f"{text}\n" for text in super().run(names, variables, **kwargs)]
        keys = [self._parse(name, text) for name, text in zip(names, texts, strict=True)]
        if not self.get_option("public"):
            return texts
        return [key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode() for key in keys]

    @staticmethod
    def _parse(name: str, text: str) -> Ed25519PrivateKey:
        try:
            key = load_ssh_private_key(text.encode(), password=None)
        except (ValueError, TypeError):
            key = None  # without the original error, which may contain the secret
        if not isinstance(key, Ed25519PrivateKey):
            raise AnsibleError(
                f"ssh_host_key: the secret {name} is not an Ed25519 key without a password, in the format of OpenSSH; "
                "remove it to have a new one generated."
            )
        return key

    def _new(self, name: str, check: bool) -> str:
        if check:  # the same throughout the run
            key = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(secret._RUN + name.encode()).digest())
        else:
            key = Ed25519PrivateKey.generate()
        return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode().rstrip("\n")
