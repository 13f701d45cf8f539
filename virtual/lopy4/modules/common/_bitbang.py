# Time as the pins see it, for protocols whose slots last microseconds. A sleep counts as what it says; what it and each call of a pin
# take beyond that on a board is added by hardware.py. The interpreter's own time between calls is not counted.
from _hardware import call

_sleeps = 0  # since the pins were last asked for something
_slept = 0  # us
_masked = False  # interrupts are off


def slept(us):
    global _sleeps, _slept
    _sleeps += 1
    _slept += us


def _passed():
    global _sleeps, _slept
    passed = [_sleeps, _slept, _masked]
    _sleeps = _slept = 0
    return passed


def drive(gpio, mode, value, pull):
    call("pin", gpio, mode, value, pull, _passed())


def read(gpio):
    return call("pin_read", gpio, _passed())


def disable_irq():
    global _masked
    before = _masked
    _masked = True
    return int(before)


def enable_irq(state=0):
    global _masked
    _masked = bool(state)
