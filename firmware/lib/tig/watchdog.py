"""The hardware watchdog, fed only by progress: once per turn of the main loop, and only while readings are made on time.

It bites when a step never returns, and when the loop runs but no longer measures. Whoever takes long on purpose feeds it directly.
"""


class Watchdog:
    def __init__(self, board, seconds):
        self.feed = board.watchdog(seconds * 1000)

    def progress(self, late_ms):
        """One turn is done; late_ms is how long the next reading is overdue."""
        if late_ms < 10000:
            self.feed()
