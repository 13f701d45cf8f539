# machine of Pycom's firmware on a LoPy4.
import _bitbang
import _hardware
import umachine as _machine
from _bitbang import disable_irq, enable_irq  # noqa: F401
from _hardware import call as _call

PWRON_RESET = 0
HARD_RESET = 1
WDT_RESET = 2
DEEPSLEEP_RESET = 3
SOFT_RESET = 4
BROWN_OUT_RESET = 5
PWRON_WAKE = 0
PIN_WAKE = 1
RTC_WAKE = 2
ULP_WAKE = 3
WAKEUP_ALL_LOW = 0
WAKEUP_ANY_HIGH = 1

mem8 = _machine.mem8
mem16 = _machine.mem16
mem32 = _machine.mem32

_GPIO = (3, 1, 0, 4, 15, 5, 27, 19, 2, 12, 13, 22, 21, 36, 37, 38, 39, 35, 34, 32, 33, 26, 25, 14)
_LABEL = (2, 1, 23, 24, 11, 12, 13, 14, 15, 16, 17, 22, 28, 5, 4, 0, 3, 31, 30, 6, 7, 8, 9, 10)
_pins = {}


def setup(configuration):
    module = type("module", (), {})
    board = type("exp_board", (), {})
    for n in range(24):
        pin = Pin("P%d" % n)
        setattr(module, "P%d" % n, pin)
        setattr(board, "G%d" % _LABEL[n], pin)
    Pin.module = module
    Pin.exp_board = board


class Pin:
    IN = 0
    OUT = 1
    OPEN_DRAIN = 2
    PULL_UP = 0
    PULL_DOWN = 1
    IRQ_FALLING = 2
    IRQ_RISING = 1
    IRQ_LOW_LEVEL = 4
    IRQ_HIGH_LEVEL = 5

    def __new__(cls, id, *arguments, **keywords):
        if isinstance(id, Pin):
            return id
        if not isinstance(id, str):
            raise ValueError("invalid argument(s) value")
        number = -1
        if id[0] == "P" and id[1:].isdigit() and int(id[1:]) < 24:
            number = int(id[1:])
        elif id[0] == "G" and id[1:].isdigit() and int(id[1:]) in _LABEL:
            number = _LABEL.index(int(id[1:]))
        elif id[:4] == "GPIO" and id[4:].isdigit() and int(id[4:]) in _GPIO:
            number = _GPIO.index(int(id[4:]))
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

    def toggle(self):
        self.value(1 - self._value)

    def id(self):
        return "P%d" % self._number

    def mode(self, mode=None):
        if mode is None:
            return self._mode
        self._mode = mode
        self._tell()

    def pull(self, *pull):
        if not pull:
            return self._pull
        self._pull = pull[0]
        self._tell()

    def hold(self, *value):
        return False

    def callback(self, trigger, handler=None, arg=None):
        pass

    def __repr__(self):
        return "Pin('P%d', mode=%s, pull=%s, alt=-1)" % (
            self._number,
            ("Pin.IN", "Pin.OUT", "Pin.OPEN_DRAIN")[self._mode],
            "None" if self._pull is None else ("Pin.PULL_UP", "Pin.PULL_DOWN")[self._pull],
        )


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

    def scan(self):
        return _call("i2c_scan", _buses[self._id] or ())

    def readfrom(self, addr, nbytes):
        return self._do(addr, b"", nbytes)

    def readfrom_into(self, addr, buf):
        buf[:] = self._do(addr, b"", len(buf))
        return len(buf)

    def writeto(self, addr, buf, *, stop=True):
        if isinstance(buf, int):
            buf = bytes([buf])
        self._do(addr, buf, 0)
        return len(buf)

    def readfrom_mem(self, addr, memaddr, nbytes, *, addrsize=8):
        return self._do(addr, memaddr.to_bytes(addrsize // 8, "big"), nbytes)

    def readfrom_mem_into(self, addr, memaddr, buf, *, addrsize=8):
        buf[:] = self._do(addr, memaddr.to_bytes(addrsize // 8, "big"), len(buf))
        return len(buf)

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

    def init(self):
        pass

    def deinit(self):
        pass

    def value(self):
        return _call("adc", self._gpio, self._attn)[0] >> (12 - self._adc._bits)

    def __call__(self):
        return self.value()

    def voltage(self):
        return _call("adc", self._gpio, self._attn)[1]

    def value_to_voltage(self, value):
        return int(value * (1100, 1500, 2200, 3300)[self._attn] / ((1 << self._adc._bits) - 1))


class ADC:
    ATTN_0DB = 0
    ATTN_2_5DB = 1
    ATTN_6DB = 2
    ATTN_11DB = 3

    def __init__(self, id=0, *, bits=12):
        if id != 0:
            raise OSError("resource not available")
        self._bits = 12
        self.init(bits=bits)

    def init(self, *, bits=12):
        if not 9 <= bits <= 12:
            raise ValueError("invalid argument(s) value")
        self._bits = bits
        self._vref = 1100

    def deinit(self):
        pass

    def channel(self, id=None, *, attn=0, pin=None):
        if pin is None:
            raise ValueError("resource not available")
        gpio = _name(pin)
        if gpio not in (36, 37, 38, 39, 32, 33, 34, 35):
            raise ValueError("invalid argument(s) value")
        return _Channel(self, gpio, attn)

    def vref(self, mv=None):
        if mv is None:
            return self._vref
        self._vref = mv

    def vref_to_pin(self, pin):
        pass


class RTC:
    INTERNAL_RC = 0
    XTAL_32KHZ = 1

    def __init__(self, id=0, datetime=None, source=0):
        if datetime is not None:
            self.init(datetime)

    def init(self, datetime=None, source=0):
        import time

        values = list(datetime or (1970, 1, 1)) + [0] * 5
        micro = values[6] if len(datetime or ()) > 6 and values[6] is not None else 0
        old = time.timezone()
        time.timezone(0)
        seconds = time.mktime((values[0], values[1], values[2], values[3], values[4], values[5], 0, 0))
        time.timezone(old)
        _hardware.clock(2, seconds * 1000000 + micro)

    def now(self):
        import time

        us = _hardware.clock(1, 0)
        return time.gmtime(us // 1000000)[:6] + (us % 1000000, None)

    def ntp_sync(self, server, update_period=3600, backup_server=None):
        if update_period < 15:
            raise ValueError("update period cannot be shorter than 15 s")
        _call("ntp_sync", server, update_period, backup_server)

    def synced(self):
        if not _hardware.clock(6, 0):
            return bool(_call("ntp_synced"))
        return True

    def memory(self, data=None):
        import binascii

        if data is None:
            return binascii.unhexlify(_call("rtc_memory"))
        if len(data) > 2048:
            raise ValueError("buffer too long")
        _call("rtc_memory", str(binascii.hexlify(data), "ascii"))


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


class UART:
    def __init__(self, id, baudrate=115200, *arguments, **keywords):
        if id not in (0, 1, 2):
            raise OSError("resource not available")
        self._id = id

    def init(self, *arguments, **keywords):
        pass

    def deinit(self):
        pass

    def any(self):
        return 0

    def read(self, *size):
        return None

    def write(self, data):
        if self._id == 0:
            import sys

            sys.stdout.write(data)
        return len(data)

    def __repr__(self):
        return "UART(%d, baudrate=115200, bits=8, parity=None, stop=1)" % self._id


class Timer:
    class Chrono:
        def __init__(self):
            self._sum = 0
            self._since = None

        def start(self):
            if self._since is None:
                self._since = _hardware.clock(0, 0)

        def stop(self):
            if self._since is not None:
                self._sum += _hardware.clock(0, 0) - self._since
                self._since = None

        def reset(self):
            self._sum = 0
            if self._since is not None:
                self._since = _hardware.clock(0, 0)

        def read_us(self):
            return self._sum + (0 if self._since is None else _hardware.clock(0, 0) - self._since)

        def read_ms(self):
            return self.read_us() // 1000

        def read(self):
            return self.read_us() / 1000000


def reset():
    _call("reset")


def reset_cause():
    return _call("reset_cause")


def wake_reason():
    return (PWRON_WAKE, None)


def unique_id():
    import binascii

    return binascii.unhexlify(_call("mac"))


def freq():
    return 160000000


def rng():
    import os

    data = os.urandom(3)
    return data[0] | data[1] << 8 | data[2] << 16


def idle():
    import time

    time.sleep_ms(1)


def sleep(ms=0, *arguments):
    import time

    time.sleep_ms(ms)


def deepsleep(ms=0):
    _call("deepsleep", ms)


def remaining_sleep_time():
    return 0


def main(path):
    _call("main", path)


def info():
    print("Boot reset cause", reset_cause())


def temperature():
    return 128


def flash_encrypt():
    return False


def secure_boot():
    return False
