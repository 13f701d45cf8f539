"""MicroPython's `time`, running SPEED times as fast; at SPEED 0 time passes only where the program sleeps."""

import os

import utime
from utime import *  # noqa: F403

_speed = float(os.getenv("SPEED") or 1)
_start = utime.ticks_ms()
_start_us = utime.ticks_us()
_slept = 0


def now_us():
    """Microseconds since the start."""
    if not _speed:
        return _slept * 1000
    return int(utime.ticks_diff(utime.ticks_us(), _start_us) * _speed)


def ticks_ms():
    if not _speed:
        return _slept & 0x3FFFFFFF
    return int(utime.ticks_diff(utime.ticks_ms(), _start) * _speed) & 0x3FFFFFFF


def sleep_ms(ms):
    global _slept
    if _speed:
        utime.sleep_us(int(ms * 1000 / _speed))
    else:
        _slept += ms


def sleep(seconds):
    sleep_ms(int(seconds * 1000))
