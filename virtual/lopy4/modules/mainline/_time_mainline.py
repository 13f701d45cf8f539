# time of the ESP32 port: epoch 2000, ticks of 30 bits since the reset.
import _bitbang
import _hardware
from _unix import time as _time

EPOCH = 946684800

ticks_ms = _time.ticks_ms
ticks_us = _time.ticks_us


def time():
    return _hardware.clock(1, 0) // 1000000 - EPOCH


def time_ns():
    return (_hardware.clock(1, 0) - EPOCH * 1000000) * 1000


def ticks_cpu():
    return ticks_us() * 160 & 0x3FFFFFFF


def ticks_add(ticks, delta):
    return (ticks + delta) & 0x3FFFFFFF


def ticks_diff(end, start):
    return ((end - start + 0x20000000) & 0x3FFFFFFF) - 0x20000000


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


def gmtime(seconds=None):
    return tuple(_time.gmtime((time() if seconds is None else int(seconds)) + EPOCH)[:8])
