"""Texts that a device can be given."""

from __future__ import annotations

import difflib
import re

TEXT = "a text (quote a number) without line ends, other control characters and lone surrogates"


def byte_size(text: object) -> int | None:
    """Bytes of a text as the device gets it; None where it cannot get it."""
    if not isinstance(text, str) or re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", text):
        return None
    return len(text.encode())


def perhaps(word: object, words) -> str:
    near = difflib.get_close_matches(str(word), list(words), n=1)
    return f" Did you mean {near[0]}?" if near else ""
