"""Ports of this machine on which ports of a virtual Pi are published."""

from __future__ import annotations

import argparse
import re
import socket
from collections.abc import Callable, Iterable


def is_free(port: int, protocol: str) -> bool:
    """Whether a port of the loopback address is free now."""
    kind = socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def parse_publish(text: str) -> tuple[int | None, str]:
    """Parse `[HOST:]GUEST[/udp]` into (HOST or None, "GUEST" or "GUEST/udp")."""
    match = re.fullmatch(r"(?:(\d+):)?(\d+)(?:/(tcp|udp))?", text)
    if not match or not 0 < int(match[2]) < 65536 or (match[1] and not 0 < int(match[1]) < 65536):
        raise argparse.ArgumentTypeError(f"{text!r} is not [HOST:]GUEST[/udp] with ports from 1 to 65535")
    return int(match[1]) if match[1] else None, match[2] + ("/udp" if match[3] == "udp" else "")


def choose_ports(
    wanted: Iterable[tuple[int | None, str]], taken: set[int], free: Callable[[int, str], bool] = is_free
) -> dict[str, int]:
    """A port of this machine for each wanted port of the Pi: the preferred one if it is free, else any free one.

    `taken`: the ports of all virtual Pis, including those that are not running.
    """
    chosen: dict[str, int] = {}
    for preferred, guest in wanted:
        protocol = "udp" if guest.endswith("/udp") else "tcp"
        unavailable = taken | set(chosen.values())
        if preferred and preferred not in unavailable and free(preferred, protocol):
            chosen[guest] = preferred
            continue
        while True:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM) as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
            if port not in unavailable:
                chosen[guest] = port
                break
    return chosen
