"""The hardware watchdog, fed only by progress: once per turn of the main loop, and only while readings are made on time.

A step that never returns starves it, and so does a loop that turns but no longer measures.
"""


class Watchdog:
    def __init__(self, board, seconds):
        self._arm = board.watchdog
        self._feed = self._arm(seconds * 1000)

    def progress(self, late_ms):
        """A turn is done; late_ms is how long the next reading is overdue."""
        if late_ms < 10000:
            self._feed()

    def release(self):
        """Somebody sits at the console: it cannot be stopped, but it can be given an hour."""
        self._feed = self._arm(3600000)
