"""Repositories of restic that open at once.

restic makes the derivation of a key from a password so expensive that it takes half a second of this computer, at each start.
The tests start it a thousand times, with passwords that are no secrets.
Source: https://restic.readthedocs.io/en/stable/100_references.html#keys-encryption-and-mac
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
from pathlib import Path

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.poly1305 import Poly1305


def create(repository: Path, password: str) -> None:
    """Have restic create a repository, and make its key a cheap one."""
    environment = {**os.environ, "RESTIC_PASSWORD": password}
    subprocess.run(["restic", "init", "--quiet", "--no-cache", "--repo", repository], env=environment, check=True)
    (file,) = (repository / "keys").iterdir()
    about = json.loads(file.read_text())
    master = _decrypt(about, password)
    about.update(N=2, r=1, p=1)
    about["data"] = base64.b64encode(_encrypt(about, password, master)).decode()
    content = json.dumps(about).encode()
    file.unlink()
    (file.parent / hashlib.sha256(content).hexdigest()).write_bytes(content)


def _decrypt(about: dict, password: str) -> bytes:
    data = base64.b64decode(about["data"])
    return _cipher(_derive(about, password), data[:16]).update(data[16:-16])


def _encrypt(about: dict, password: str, content: bytes) -> bytes:
    """Nonce, ciphertext and the signature of both: Poly1305-AES."""
    key, nonce = _derive(about, password), os.urandom(16)
    text = _cipher(key, nonce).update(content)
    mask = Cipher(algorithms.AES(key[32:48]), modes.ECB()).encryptor().update(nonce)
    return nonce + text + Poly1305.generate_tag(key[48:] + mask, text)


def _cipher(key: bytes, nonce: bytes):
    return Cipher(algorithms.AES(key[:32]), modes.CTR(nonce)).encryptor()


def _derive(about: dict, password: str) -> bytes:
    """32 bytes for the encryption, 16 for the mask of the signature, 16 for the signature."""
    salt = base64.b64decode(about["salt"])
    memory = 256 * about["N"] * about["r"] + (1 << 20)
    return hashlib.scrypt(
        password.encode(), salt=salt, n=about["N"], r=about["r"], p=about["p"], dklen=64, maxmem=memory
    )
