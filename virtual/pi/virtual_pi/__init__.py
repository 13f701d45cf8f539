"""Virtual Raspberry Pis in containers. pi.py is the command."""

from __future__ import annotations

import sys
from collections.abc import Callable

LABEL = "tig-pi"  # prefix of labels, networks and images


class Failure(Exception):
    """An error to show to the user as it is."""


def say(text: str) -> None:
    print(f"pi.py: {text}", file=sys.stderr, flush=True)


def run_command(name: str, main: Callable[[], None]) -> None:
    """Run a command; a failure is a line for the user, and no traceback."""
    try:
        main()
    except Failure as failure:
        sys.exit(f"{name}: {failure}")
    except KeyboardInterrupt:
        sys.exit(130)
