"""The last crash: a file keeps its traceback during the reset, and it is published once."""

import json
import os
import sys

FILE = "crash.txt"  # in the root of the file system, beside the slots; the loader writes there too
LARGEST = 2000  # characters


def save(error, time):
    """Keep a traceback; time in seconds since 1970 or None."""
    with open(FILE, "w") as f:
        f.write("%d\n" % (time or 0))
        sys.print_exception(error, f)


class CrashReport:
    """Sends it to the broker, and then forgets it."""

    BRANCH = "/crash"
    RETAINED = False
    REPEATABLE = True

    def __init__(self):
        self._waiting = report() is not None

    def welcome(self):
        pass

    def due(self):
        return self._waiting

    def message(self):
        message = report()
        if message is None:
            self._waiting = False
        return message

    def acknowledged(self):
        forget()
        self._waiting = False


def report():
    """The message about the last crash as JSON bytes, or None."""
    try:
        with open(FILE) as f:
            time = f.readline().strip()
            traceback = f.read(LARGEST)
    except (OSError, ValueError):
        return None
    message = {"traceback": traceback}
    if time.isdigit() and int(time):
        message["time"] = int(time)
    return json.dumps(message).encode()


def forget():
    try:
        os.remove(FILE)
    except OSError:
        pass
