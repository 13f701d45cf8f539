"""Fingerprints of OpenPGP keys of apt repositories, computed on the controller without gpg."""

from __future__ import annotations

import base64
import binascii
import hashlib

from ansible.errors import AnsibleFilterError

PUBLIC_KEY = 6  # packet tag, RFC 9580 section 5
BEGIN = "-----BEGIN PGP PUBLIC KEY BLOCK-----"
END = "-----END PGP PUBLIC KEY BLOCK-----"


def openpgp_fingerprint(key: str) -> str:
    """Fingerprint of the first primary key in an ASCII-armoured public key block, in upper-case hexadecimal.

    Raises:
        AnsibleFilterError: the text contains no such key.
    """
    for fingerprint in openpgp_keys(key):
        return fingerprint
    raise AnsibleFilterError("The text contains no OpenPGP public key.")


def openpgp_keys(text: str) -> dict[str, str]:
    """The keys in a text of one or several ASCII-armoured blocks, each as its own block, by the fingerprint of its
    primary key.
    """
    data = dearmoured(text)
    starts, position = [], 0
    while position < len(data):
        start = position
        tag, body, position = _packet(data, position)
        if tag == PUBLIC_KEY:
            starts.append((start, _fingerprint(body)))
    ends = [start for start, _ in starts[1:]] + [len(data)]
    return {name: _armoured(data[start:end]) for (start, name), end in zip(starts, ends, strict=True)}


def _armoured(data: bytes) -> str:
    text = base64.b64encode(data).decode()
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    checksum = base64.b64encode(_crc24(data).to_bytes(3, "big")).decode()
    return "\n".join([BEGIN, "", *lines, f"={checksum}", END, ""])


def _crc24(data: bytes) -> int:
    """RFC 9580, section 6.1.1."""
    crc = 0xB704CE
    for byte in data:
        crc ^= byte << 16
        for _ in range(8):
            crc <<= 1
            if crc & 0x1000000:
                crc ^= 0x1864CFB
    return crc


def dearmoured(text: str) -> bytes:
    """The packets of all blocks of a text."""
    lines = [line.strip() for line in text.splitlines()]
    data, end = b"", 0
    try:
        while BEGIN in lines[end:] or not data:
            start = lines.index(BEGIN, end)
            end = lines.index(END, start)
            body = lines[start + 1 : end]
            if "" in body:  # the armour's headers end with an empty line
                body = body[body.index("") + 1 :]
            data += base64.b64decode("".join(line for line in body if not line.startswith("=")), validate=True)
    except (ValueError, binascii.Error) as error:
        raise AnsibleFilterError(f"This is not an ASCII-armoured OpenPGP public key: {text[:60]!r}") from error
    return data


def _packet(data: bytes, position: int) -> tuple[int, bytes, int]:
    """Tag and body of the packet at a position, and the position of the next one."""
    try:
        header, position = data[position], position + 1
        if header & 0x40:  # the newer format of packet headers
            tag = header & 0x3F
            length, position = data[position], position + 1
            if 192 <= length < 224:
                length, position = ((length - 192) << 8) + data[position] + 192, position + 1
            elif length == 255:
                length, position = int.from_bytes(data[position : position + 4], "big"), position + 4
        else:
            tag, size = (header >> 2) & 0x0F, 1 << (header & 3)
            length, position = int.from_bytes(data[position : position + size], "big"), position + size
        return tag, data[position : position + length], position + length
    except IndexError as error:
        raise AnsibleFilterError("The OpenPGP key ends in the middle of a packet.") from error


def _fingerprint(body: bytes) -> str:
    version = body[0]
    if version == 4:
        return hashlib.sha1(b"\x99" + len(body).to_bytes(2, "big") + body).hexdigest().upper()
    if version == 6:
        return hashlib.sha256(b"\x9b" + len(body).to_bytes(4, "big") + body).hexdigest().upper()
    raise AnsibleFilterError(f"OpenPGP keys of version {version} are not supported.")


class FilterModule:
    def filters(self) -> dict:
        return {"openpgp_fingerprint": openpgp_fingerprint, "openpgp_keys": openpgp_keys}
