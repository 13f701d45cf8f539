"""The steps of a long run: each is announced when it begins, and at the end their durations are printed."""

from __future__ import annotations

import time


class Steps:
    def __init__(self) -> None:
        self.durations: list[tuple[float, str]] = []
        self.title = ""
        self._began = 0.0

    def begin(self, title: str) -> str:
        """The line that announces the step. The one before it ends."""
        self.end()
        self.title, self._began = title, time.monotonic()
        return f"\n==> {title}"

    def end(self) -> None:
        if self.title:
            self.durations.append((time.monotonic() - self._began, self.title))
        self.title = ""

    def summary(self) -> str:
        """A line for each step, and one for all of them. The last step ends."""
        self.end()
        lines = [*self.durations, (sum(seconds for seconds, _ in self.durations), "together")]
        return "\n" + "\n".join(f"{seconds:6.0f} s  {title}" for seconds, title in lines)
