"""Wait until a virtual Pi has booted."""

from __future__ import annotations

import os
import pathlib
import select
import socket
import time
from typing import IO


class Boot:
    """Wait for systemd's own notification (sd_notify(3)) that the Pi has booted, without polling.

    PID 1 sends READY=1 to $NOTIFY_SOCKET when its initial jobs, which include sshd, have finished.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "notify"
        path.unlink(missing_ok=True)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        directory = os.open(
            folder, os.O_RDONLY
        )  # the path of a socket is limited to 107 characters: use this shorter one
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
        """Whether READY=1 arrives within this time. `death` becomes readable if the container ends before that."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            ready, _, _ = select.select([self.socket, death], [], [], left)
            if self.socket in ready:
                if b"READY=1" in self.socket.recv(4096).split(b"\n"):
                    return True
            elif ready:
                return False
        return False
