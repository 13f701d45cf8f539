"""One line on the console per change of state. It never gets a secret."""

import time

_start = time.ticks_ms()


def say(what):
    print("[%8d ms] %s" % (time.ticks_diff(time.ticks_ms(), _start), what))
