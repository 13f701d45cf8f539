"""The hash of a password of Node-RED's editor, which is the same in every run."""

from __future__ import annotations

import base64
import hashlib

import bcrypt
from ansible.errors import AnsibleFilterError

ROUNDS = 10
STANDARD = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
BCRYPT = b"./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


def node_red_password_hash(password: str, host: str, user: str) -> str:
    """bcrypt hash ($2b$) of a password of at most 72 bytes, with a salt derived from host and user."""
    secret = str(password).encode()
    if not secret or len(secret) > 72:
        raise AnsibleFilterError(
            f"node_red_admin_password has {len(secret)} bytes; it must have 1 to 72, the limit of bcrypt, which Node-RED uses."
        )
    digest = hashlib.sha256(f"node-red:{host}:{user}".encode()).digest()[:16]
    salt = base64.b64encode(digest).rstrip(b"=").translate(bytes.maketrans(STANDARD, BCRYPT))
    return bcrypt.hashpw(secret, b"$2b$%02d$%s" % (ROUNDS, salt)).decode()


class FilterModule:
    def filters(self):
        return {"node_red_password_hash": node_red_password_hash}
