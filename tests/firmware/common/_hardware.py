# The modules' way to the simulated hardware from a MicroPython that runs as an ordinary program: see ../board.py.
import os

import ujson
import usocket
from _unix import time

_stream = None
_page = None


def _board():
    """(port, where in the page it says whether Wi-Fi is up, path of the page)"""
    port, offset, path = os.getenv("BOARD").split(" ", 2)
    return int(port), int(offset), path


def call(function, *arguments):
    """Ask the hardware; raises OSError with its text or number where it says so."""
    global _stream
    if _stream is None:
        _stream = usocket.socket()
        _stream.connect(usocket.getaddrinfo("127.0.0.1", _board()[0])[0][-1])
    _stream.write(ujson.dumps([function, arguments, time.now_us()]) + "\n")
    answer = ujson.loads(_stream.readline())
    if "exit" in answer:
        raise SystemExit
    error = answer.get("error")
    if error is not None:
        raise OSError(error)
    return answer["value"]


def clock(operation, value):
    global _page
    if operation == 5:  # asked in every turn of the program
        if _page is None:
            _page = open(_board()[2], "rb")
        _page.seek(_board()[1])
        return _page.read(1)[0]
    if operation in (3, 4):
        return 0  # the watchdog: it bites on the virtual board only
    if operation == 12:
        return 0  # the time zone, which no program here sets
    return call("clock", operation, value)
