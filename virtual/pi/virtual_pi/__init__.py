"""Virtual Raspberry Pis in containers; pi.py is the command."""

from __future__ import annotations

import sys

LABEL = "tig-pi"  # prefix of our labels, networks and images


class Failure(Exception):
    """Something that the user can understand and act on; its text is the whole message."""


def say(text: str) -> None:
    print(f"pi.py: {text}", file=sys.stderr, flush=True)
