"""Just enough of Pycom's `machine` for the board layer and the sensors, with the calls of firmware 1.20.2.r6."""

from chips import Controller, exists  # noqa: F401

PWRON_RESET, HARD_RESET, WDT_RESET, DEEPSLEEP_RESET, SOFT_RESET, BROWN_OUT_RESET = range(6)

pins = {}  # name -> level driven


def unique_id():
    return b"\x24\x0a\xc4\x01\x02\x03"


def reset_cause():
    """The file `watchdog.bit` says that it was the watchdog."""
    return WDT_RESET if exists("watchdog.bit") else PWRON_RESET


def reset():
    print("machine.reset")
    raise SystemExit


class Pin:
    IN, OUT, OPEN_DRAIN = 1, 2, 6

    def __init__(self, name, mode=-1, pull=None):
        if name[:1] != "P":
            raise ValueError("invalid argument(s) value")
        self.name = name

    def init(self, mode=-1, pull=None):
        pass

    def __call__(self, level):
        pins[self.name] = level


class WDT:
    feeds = 0

    def __init__(self, id=0, timeout=None):
        self.timeout = timeout

    def feed(self):
        WDT.feeds += 1


class ADC:
    ATTN_11DB = 3

    def channel(self, pin=None, attn=0):
        return Channel()


class Channel:
    def voltage(self):
        return 1680 if pins.get("P8") else 0


class I2C(Controller):
    MASTER = 0

    def __init__(self, bus, mode, *, pins, baudrate=100000):
        gpio = {"P6": 27, "P7": 19, "P9": 12, "P10": 13}
        super().__init__(bus, gpio.get(pins[0]), gpio.get(pins[1]))
