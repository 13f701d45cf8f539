"""Virtual Raspberry Pis in containers. pi.py is the command."""

from __future__ import annotations

import sys

LABEL = "tig-pi"  # prefix of labels, networks and images


class Failure(Exception):
    """An error to show to the user as it is."""


def say(text: str) -> None:
    print(f"pi.py: {text}", file=sys.stderr, flush=True)
