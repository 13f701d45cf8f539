"""The recovery key of a site, which people write down, and the keys that are derived from it.

It has 160 random bits in groups of base32, which has no 0, 1, 8 and 9, and a checksum that notices a typing error. The Pi gets
the password of the repository, from which neither the recovery key nor the key of the site's description can be computed.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
import struct

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

KEY_BYTES, CHECK_BYTES, GROUP = 20, 5, 5
# Characters that people read for one another.
LOOKALIKES = str.maketrans("0189", "OIBG")


class KeyProblem(Exception):
    """The text is not a recovery key; the message says why."""


def generate(seed: bytes | None = None) -> str:
    """A new recovery key; of a seed always the same one."""
    return _text((seed or secrets.token_bytes(KEY_BYTES))[:KEY_BYTES])


def _text(key: bytes) -> str:
    letters = base64.b32encode(key + _check(key)).decode()
    return "-".join(letters[start : start + GROUP] for start in range(0, len(letters), GROUP))


def _check(key: bytes) -> bytes:
    return hashlib.sha256(b"tig-pi recovery key" + key).digest()[:CHECK_BYTES]


def parse(text: str) -> bytes:
    """The bytes of a recovery key as somebody types it: in lower case, with spaces, with 0 for O."""
    letters = re.sub(r"[\s-]", "", text).upper().translate(LOOKALIKES)
    length = (KEY_BYTES + CHECK_BYTES) * 8 // 5
    if len(letters) != length:
        raise KeyProblem(f"a recovery key has {length} letters and digits, and this text has {len(letters)}")
    try:
        data = base64.b32decode(letters)
    except ValueError as error:
        raise KeyProblem("a recovery key has letters and the digits 2 to 7 only") from error
    if _check(data[:KEY_BYTES]) != data[KEY_BYTES:]:
        raise KeyProblem("the recovery key has a typing error: its checksum is wrong")
    return data[:KEY_BYTES]


def derive(key: bytes, purpose: str, length: int = 32) -> bytes:
    """HKDF with SHA-256 (RFC 5869)."""
    return HKDF(SHA256(), length, salt=b"tig-pi", info=purpose.encode()).derive(key)


def repository_password(key: bytes) -> str:
    return derive(key, "repository").hex()


def description_password(key: bytes) -> str:
    return derive(key, "description").hex()


def ssh_public_key(key: bytes) -> str:
    """The line for authorized_keys."""
    private = Ed25519PrivateKey.from_private_bytes(derive(key, "ssh"))
    return private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode() + " tig-pi-backup"


def ssh_private_key(key: bytes) -> str:
    """The private key in OpenSSH's format, the same each time. (The library writes random numbers into it.)"""
    seed = derive(key, "ssh")
    public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    def field(data: bytes) -> bytes:
        return struct.pack(">L", len(data)) + data

    kind = field(b"ssh-ed25519") + field(public)
    check = derive(key, "ssh check", 4)
    private = check * 2 + kind + field(seed + public) + field(b"tig-pi-backup")
    private += bytes(range(1, 8 - len(private) % 8 + 1)) if len(private) % 8 else b""
    content = (
        b"openssh-key-v1\0"
        + field(b"none")
        + field(b"none")
        + field(b"")
        + struct.pack(">L", 1)
        + field(kind)
        + field(private)
    )
    text = base64.b64encode(content).decode()
    lines = [text[start : start + 70] for start in range(0, len(text), 70)]
    return "\n".join(["-----BEGIN OPENSSH PRIVATE KEY-----", *lines, "-----END OPENSSH PRIVATE KEY-----", ""])
