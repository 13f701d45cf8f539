"""Where readings are missing: pairs of times, of the reading before and of the one after."""

_MOST = 16


class Gaps:
    def __init__(self, longest):
        """longest: seconds between two readings without a gap; 0: do not look for gaps."""
        self.longest = longest
        self._found = []

    def look(self, before, after):
        """Look at two readings that follow each other; before 0: there is none."""
        if before and self.longest and after - before > self.longest:
            self._found.append([before, after])
            if len(self._found) > _MOST:
                # The two oldest become one.
                self._found.sort()
                self._found[:2] = [[self._found[0][0], self._found[1][1]]]

    def since(self, time):
        """Those that end after a time, the oldest first; the others are forgotten."""
        self._found = sorted(gap for gap in self._found if gap[1] > time)
        return self._found
