# utime of Pycom's modutime.c: epoch 1970, ticks of 32 bits that are the wall clock's, a time zone offset.
import _bitbang
import _hardware
from _unix import time as _time

_offset = _hardware.clock(12, 0)
ticks_ms = _time.ticks_ms
ticks_us = _time.ticks_us
_real_gmtime = getattr(_time, "gmtime", _time.localtime)  # a Unix port of 1.11 has the latter only, in UTC


def time():
    return _hardware.clock(1, 0) // 1000000


def ticks_cpu():
    return _hardware.clock(7, 0) & 0xFFFFFFFF


def ticks_add(start, delta):
    return (start + delta) & 0xFFFFFFFF


def ticks_diff(end, start):
    return ((end - start + 0x80000000) & 0xFFFFFFFF) - 0x80000000


def sleep_ms(ms):
    _bitbang.slept(ms * 1000)
    _time.sleep_ms(ms)
    while ms:  # a board raises KeyboardInterrupt out of the sleep; here it waits for the next jump, which this is
        ms = 0


def sleep(seconds):
    sleep_ms(int(seconds * 1000))


def sleep_us(us):
    if us >= 1000:
        sleep_ms(us // 1000)
        us %= 1000
    if us:
        _bitbang.slept(us)
        _time.sleep_us(us)


def _tuple(seconds):
    return tuple(_real_gmtime(seconds)[:8])


def gmtime(seconds=None):
    return _tuple(time() if seconds is None else int(seconds))


def localtime(seconds=None):
    return _tuple((time() if seconds is None else int(seconds)) + _offset)


def mktime(value):
    if not 8 <= len(value) <= 9:
        raise TypeError("mktime needs a tuple of length 8 or 9 (%d given)" % len(value))
    year, month, day, hour, minute, second = value[:6]
    year += (month - 1) // 12
    month = (month - 1) % 12 + 1
    y = year - (month <= 2)
    era = y // 400
    yoe = y - era * 400
    doy = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    days = era * 146097 + yoe * 365 + yoe // 4 - yoe // 100 + doy - 719468
    return days * 86400 + hour * 3600 + minute * 60 + second - _offset


def timezone(seconds=None):
    global _offset
    if seconds is None:
        return _offset
    _offset = int(seconds)
    _hardware.clock(11, _offset)
