"""The programs that write a card, and what can go wrong."""

from __future__ import annotations

import subprocess


class CardProblem(Exception):
    """Why a card cannot be written; the message says what to do."""


def run(command: list[str]) -> str:
    """Run a program and return its output. If it fails, raise a CardProblem with what it printed."""
    try:
        result = subprocess.run(command, capture_output=True, check=False, env=ENVIRONMENT)
    except FileNotFoundError:
        raise CardProblem(
            f"The program {command[0]} is not installed on this computer: run bin/prerequisites card."
        ) from None
    if result.returncode != 0:
        said = result.stderr.decode(errors="replace").strip()
        raise CardProblem(f"{command[0]} failed: {said or result.returncode}.")
    return result.stdout.decode(errors="replace")


# MTOOLSRC: without the user's own settings for mtools.
ENVIRONMENT = {"LC_ALL": "C.UTF-8", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "MTOOLSRC": "/dev/null"}


def size_text(size: int) -> str:
    """A size as manufacturers of cards count it: 31.9 GB."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} bytes"
