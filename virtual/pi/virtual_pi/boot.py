"""When a virtual Pi has booted."""

from __future__ import annotations

import os
import pathlib
import select
import socket
import time
from typing import IO


class Boot:
    """Waits for a Pi to have booted, by the event that systemd itself announces (sd_notify(3)), without polling.

    PID 1 sends READY=1 to $NOTIFY_SOCKET when its first queue of jobs is empty, and sshd is one of them.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "notify"
        path.unlink(missing_ok=True)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        directory = os.open(folder, os.O_RDONLY)  # a socket's path may have 107 characters: use the descriptor's
        try:
            self.socket.bind(f"/proc/self/fd/{directory}/notify")
        finally:
            os.close(directory)
        path.chmod(0o666)

    def __enter__(self) -> Boot:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def wait(self, seconds: float, death: IO[bytes]) -> bool:
        """Whether READY=1 came within so many seconds. `death` becomes readable when the container ends before that."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            ready, _, _ = select.select([self.socket, death], [], [], left)
            if self.socket in ready:
                if b"READY=1" in self.socket.recv(4096).split(b"\n"):
                    return True
            elif ready:
                return False
        return False
