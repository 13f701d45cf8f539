"""The Unix port's clock, SPEED times as fast; at SPEED 0 time passes only while the program sleeps."""

import os

import utime
from utime import *  # noqa: F403

_speed = float(os.getenv("SPEED") or 1)
_start_us = utime.ticks_us()
_slept = 0
_mask = 0x3FFFFFFF if os.getenv("PROFILE") == "mainline" else 0xFFFFFFFF


def now_us():
    """Microseconds since the start."""
    if not _speed:
        return _slept * 1000
    return int(utime.ticks_diff(utime.ticks_us(), _start_us) * _speed)


def ticks_us():
    return now_us() & _mask


def ticks_ms():
    return now_us() // 1000 & _mask


def sleep_ms(ms):
    global _slept
    if _speed:
        utime.sleep_us(int(ms * 1000 / _speed))
    else:
        _slept += ms


def sleep_us(us):
    sleep_ms(us // 1000)
