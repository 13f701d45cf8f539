# machine of the ESP32 port.
import _bitbang
import _hardware
from _bitbang import disable_irq, enable_irq  # noqa: F401
from _hardware import call as _call

PWRON_RESET = 1
HARD_RESET = 2
WDT_RESET = 3
DEEPSLEEP_RESET = 4
SOFT_RESET = 5


_pins = {}


class Pin:
    IN = 1
    OUT = 3
    OPEN_DRAIN = 7
    PULL_UP = 2
    PULL_DOWN = 1

    def __new__(cls, id, *arguments, **keywords):
        if isinstance(id, Pin):
            return id
        if isinstance(id, str):
            raise ValueError("invalid pin")
        # 6..11 are the flash's, 16 and 17 the PSRAM's
        if not 0 <= id < 40 or id in (6, 7, 8, 9, 10, 11, 16, 17, 20, 24, 28, 29, 30, 31):
            raise ValueError("invalid pin")
        if id not in _pins:
            pin = object.__new__(cls)
            pin._gpio = id
            pin._mode = 1
            pin._pull = None
            pin._value = 0
            _pins[id] = pin
        return _pins[id]

    def __init__(self, id, mode=None, pull=-1, *, value=None, drive=None, hold=None):
        if mode is not None or value is not None:
            self.init(-1 if mode is None else mode, pull, value=value)

    def init(self, mode=-1, pull=-1, *, value=None, drive=None, hold=None):
        if mode is not None and mode != -1:
            if mode != 1 and self._gpio >= 34:
                raise ValueError("pin can only be input")
            self._mode = mode
        if pull != -1:
            self._pull = pull
        if value is not None:
            self._value = 1 if value else 0
        self._tell()

    def _tell(self):
        pull = {2: 0, 1: 1}.get(self._pull)
        _bitbang.drive(self._gpio, {1: 0, 3: 1, 7: 2}[self._mode], self._value, pull)

    def value(self, *value):
        if value:
            self._value = 1 if value[0] else 0
            self._tell()
            return None
        return _bitbang.read(self._gpio)

    def __call__(self, *value):
        return self.value(*value)


def _number(pin):
    return pin._gpio if isinstance(pin, Pin) else Pin(pin)._gpio


_routes = {}  # I2C controller -> (SDA, SCL): constructing one again changes its pins for everybody who uses it


class I2C:
    def __init__(self, id=-1, *, scl=None, sda=None, freq=400000, timeout=50000):
        if id not in (0, 1, -1):
            raise ValueError("I2C(%d) doesn't exist" % id)
        defaults = ((18, 19), (25, 26))[max(0, id)]
        scl = defaults[0] if scl is None else _number(scl)
        sda = defaults[1] if sda is None else _number(sda)
        self._id = max(0, id)
        _routes[self._id] = (sda, scl)

    @property
    def _pins(self):
        return _routes[self._id]

    def _do(self, address, out, count):
        got = _call("i2c", self._pins, address, list(out), count)
        if got is None:
            raise OSError(19)  # ENODEV: nobody acknowledged
        return bytes(got)

    def readfrom(self, addr, nbytes, stop=True):
        return self._do(addr, b"", nbytes)

    def writeto(self, addr, buf, stop=True):
        self._do(addr, buf, 0)
        return len(buf)

    def readfrom_mem(self, addr, memaddr, nbytes, *, addrsize=8):
        return self._do(addr, memaddr.to_bytes(addrsize // 8, "big"), nbytes)

    def writeto_mem(self, addr, memaddr, buf, *, addrsize=8):
        self._do(addr, memaddr.to_bytes(addrsize // 8, "big") + bytes(buf), 0)


class ADC:
    ATTN_0DB = 0
    ATTN_2_5DB = 1
    ATTN_6DB = 2
    ATTN_11DB = 3

    def __init__(self, pin, *, atten=0):
        self._gpio = _number(pin)
        if self._gpio not in (36, 37, 38, 39, 32, 33, 34, 35):
            raise ValueError("invalid pin")
        self._atten = atten

    def read_uv(self):
        return _call("adc", self._gpio, self._atten)[1] * 1000


class WDT:
    def __init__(self, id=0, timeout=5000):
        if id != 0:
            raise ValueError
        if timeout <= 0:
            raise ValueError("WDT timeout too short")
        _hardware.clock(3, int(timeout) * 1000)

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


def bitstream(pin, encoding, timing, data):
    if len(data) >= 3:
        _call("neopixel", _number(pin), data[1] << 16 | data[0] << 8 | data[2])


def dht_readinto(pin, buffer):
    got = _call("dht_readinto", _number(pin))
    if got is None:
        raise OSError(110)
    buffer[:] = bytes(got)
