"""Arguments that an action plugin passes to its module as one encoded text, so that they are not readable in the host's log."""

from __future__ import annotations

import base64
import json
import zlib


def pack(value: list | dict) -> str:
    return base64.b64encode(zlib.compress(json.dumps(value).encode())).decode()


def unpack(text: str) -> list | dict:
    return json.loads(zlib.decompress(base64.b64decode(text)))
