# machine of Pycom's firmware on a LoPy4.
import _bitbang
import _hardware
from _bitbang import disable_irq, enable_irq  # noqa: F401
from _hardware import call as _call

PWRON_RESET = 0
HARD_RESET = 1
WDT_RESET = 2
DEEPSLEEP_RESET = 3
SOFT_RESET = 4
BROWN_OUT_RESET = 5


_GPIO = (3, 1, 0, 4, 15, 5, 27, 19, 2, 12, 13, 22, 21, 36, 37, 38, 39, 35, 34, 32, 33, 26, 25, 14)
_pins = {}


class Pin:
    IN = 0
    OUT = 1
    OPEN_DRAIN = 2
    PULL_UP = 0
    PULL_DOWN = 1

    def __new__(cls, id, *arguments, **keywords):
        if isinstance(id, Pin):
            return id
        if not isinstance(id, str):
            raise ValueError("invalid argument(s) value")
        number = -1
        if id[0] == "P" and id[1:].isdigit() and int(id[1:]) < 24:
            number = int(id[1:])
        if number < 0:
            raise ValueError("invalid argument(s) value")
        if number not in _pins:
            pin = object.__new__(cls)
            pin._number = number
            pin._gpio = _GPIO[number]
            pin._mode = 0
            pin._pull = 1
            pin._value = 0
            _pins[number] = pin
        return _pins[number]

    def __init__(self, id, mode=None, pull=None, *, value=None, alt=None):
        if mode is not None or value is not None:
            self.init(0 if mode is None else mode, pull, value=value, alt=alt)

    def init(self, mode, pull=None, *, value=None, alt=None):
        if mode not in (0, 1, 2):
            raise ValueError("invalid argument(s) value")
        if mode and self._gpio >= 34:
            raise ValueError("pin can only be used as input")
        self._mode = mode
        self._pull = pull
        if value is not None:
            self._value = 1 if value else 0
        self._tell()

    def _tell(self):
        _bitbang.drive(self._gpio, self._mode, self._value, self._pull)

    def value(self, *value):
        if value:
            self._value = 1 if value[0] else 0
            self._tell()
            return None
        return _bitbang.read(self._gpio)

    def __call__(self, *value):
        return self.value(*value)


def _name(pin):
    return pin._gpio if isinstance(pin, Pin) else Pin(pin)._gpio


_buses = {}  # what a bus has, for all who hold it: its pins (None: closed)


class I2C:
    MASTER = 0

    def __init__(self, id=0, mode=0, *, baudrate=100000, pins=None):
        if id not in (0, 1, 2):
            raise OSError("resource not available")
        self._id = id
        self.init(mode, baudrate=baudrate, pins=pins)

    def init(self, mode=0, *, baudrate=100000, pins=None):
        if mode != 0:
            raise ValueError("invalid argument(s) value")
        if pins is None:
            pins = ("P9", "P10")
        _buses[self._id] = (_name(pins[0]), _name(pins[1]))

    def deinit(self):
        _buses[self._id] = None

    def _do(self, address, out, count):
        if _buses[self._id] is None:
            raise OSError("I2C bus error")
        got = _call("i2c", _buses[self._id], address, list(out), count)
        if got is None:
            raise OSError("I2C bus error")
        return bytes(got)

    def readfrom(self, addr, nbytes):
        return self._do(addr, b"", nbytes)

    def writeto(self, addr, buf, *, stop=True):
        if isinstance(buf, int):
            buf = bytes([buf])
        self._do(addr, buf, 0)
        return len(buf)

    def readfrom_mem(self, addr, memaddr, nbytes, *, addrsize=8):
        return self._do(addr, memaddr.to_bytes(addrsize // 8, "big"), nbytes)

    def writeto_mem(self, addr, memaddr, buf, *, addrsize=8):
        if isinstance(buf, int):
            buf = bytes([buf])
        self._do(addr, memaddr.to_bytes(addrsize // 8, "big") + bytes(buf), 0)
        return len(buf)


class _Channel:
    def __init__(self, adc, gpio, attn):
        self._adc = adc
        self._gpio = gpio
        self._attn = attn

    def voltage(self):
        return _call("adc", self._gpio, self._attn)[1]


class ADC:
    ATTN_0DB = 0
    ATTN_2_5DB = 1
    ATTN_6DB = 2
    ATTN_11DB = 3

    def __init__(self, id=0, *, bits=12):
        if id != 0:
            raise OSError("resource not available")
        if not 9 <= bits <= 12:
            raise ValueError("invalid argument(s) value")

    def channel(self, id=None, *, attn=0, pin=None):
        if pin is None:
            raise ValueError("resource not available")
        gpio = _name(pin)
        if gpio not in (36, 37, 38, 39, 32, 33, 34, 35):
            raise ValueError("invalid argument(s) value")
        return _Channel(self, gpio, attn)


class RTC:
    def ntp_sync(self, server, update_period=3600, backup_server=None):
        if update_period < 15:
            raise ValueError("update period cannot be shorter than 15 s")
        _call("ntp_sync")

    def synced(self):
        if not _hardware.clock(6, 0):
            return bool(_call("ntp_synced"))
        return True


class WDT:
    def __init__(self, id=0, timeout=None):
        if timeout is None:
            raise TypeError("'timeout' argument required")
        if id != 0:
            raise OSError("resource not available")
        self.init(timeout)

    def init(self, timeout):
        _hardware.clock(3, max(1, int(timeout)) * 1000)

    def feed(self):
        _hardware.clock(4, 0)


def reset():
    _call("reset")


def reset_cause():
    return _call("reset_cause")


def unique_id():
    import binascii

    return binascii.unhexlify(_call("mac"))


def deepsleep(ms=0):
    _call("deepsleep", ms)


def main(path):
    _call("main", path)
