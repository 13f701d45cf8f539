"""The ports of a host that programs listen on, from proc(5)."""

from __future__ import annotations

from pathlib import Path

# States in the kernel's include/net/tcp_states.h: a listening TCP socket, a bound UDP socket.
LISTENING = {"tcp": "0A", "udp": "07"}


def sockets(protocol: str) -> dict[tuple[str, int], set[str]]:
    """Inodes of the listening sockets, by protocol and port; read from /proc/net/{tcp,udp}{,6}."""
    found: dict[tuple[str, int], set[str]] = {}
    for family in ("", "6"):
        path = Path(f"/proc/net/{protocol}{family}")
        if not path.exists():
            continue
        for line in path.read_text(encoding="ascii").splitlines()[1:]:
            columns = line.split()
            address, state, inode = columns[1], columns[3], columns[9]
            if state == LISTENING[protocol]:
                found.setdefault((protocol, int(address.rsplit(":", 1)[1], 16)), set()).add(inode)
    return found
