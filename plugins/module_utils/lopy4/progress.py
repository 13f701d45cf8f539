"""How far a module is, for the controller to show while the module works."""

from __future__ import annotations

import contextlib
import os
import time


class Progress:
    """A line of text in a file, for the action plugin on the controller to show while the module works."""

    def __init__(self, path: str | None) -> None:
        self.path = path
        self.next = 0.0
        if path:
            with contextlib.suppress(OSError):
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))

    def __call__(self, text: str, done: int = 0, total: int = 0) -> None:
        now = time.monotonic()
        if not self.path or now < self.next:
            return
        self.next = now + 0.3
        share = f" {100 * done // total} % of {total // 1024} kB" if total else ""
        with contextlib.suppress(OSError), open(self.path, "w", encoding="utf-8") as file:
            file.write(text + share)

    def end(self) -> None:
        if self.path:
            with contextlib.suppress(OSError):
                os.unlink(self.path)
