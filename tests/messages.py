"""The table of messages and what becomes of each, to which Telegraf and Node-RED are both held."""

from __future__ import annotations

import base64
import time

import yaml
from project import REPOSITORY

TABLE = yaml.safe_load((REPOSITORY / "tests/data/messages.yml").read_text(encoding="utf-8"))


def payload_of(row: dict) -> bytes:
    if "base64" in row:
        return base64.b64decode(row["base64"])
    if "digits" in row:
        return row["payload"].replace("DIGITS", "9" * row["digits"]).encode()
    text = row["payload"].replace("AHEAD", str(int(time.time()) + row.get("ahead", 0)))
    return text.encode() * row.get("repeat", 1)
