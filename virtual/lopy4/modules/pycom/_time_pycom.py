# utime of Pycom's modutime.c: epoch 1970, ticks of 32 bits that are the wall clock's.
import _bitbang
import _hardware
from _unix import time as _time

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
