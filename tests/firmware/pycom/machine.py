"""Just enough of Pycom's `machine` for the board layer and the sensors, with the calls of firmware 1.20.2.r6."""

import os

PWRON_RESET, HARD_RESET, WDT_RESET, DEEPSLEEP_RESET, SOFT_RESET, BROWN_OUT_RESET = range(6)

pins = {}  # name -> level driven
registers = {  # the BMP180 of the data sheet's example
    0xD0: b"\x55",
    0xAA: b"\x01\x98\xff\xb8\xc7\xd1\x7f\xe5\x7f\xf5\x5a\x71\x18\x2e\x00\x04\x80\x00\xdd\xf9\x0b\x34",
}


def exists(name):
    try:
        os.stat(name)
        return True
    except OSError:
        return False


def unique_id():
    return b"\x24\x0a\xc4\x01\x02\x03"


def reset_cause():
    return PWRON_RESET


def reset():
    raise SystemExit("machine.reset")


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


class I2C:
    MASTER = 0

    def __init__(self, bus, mode, *, pins=None, baudrate=100000):
        self._command = 0

    def readfrom_mem(self, address, register, length):
        if address != 0x77 or exists("bmp180.gone"):
            raise OSError("I2C bus error")
        if register == 0xF6:
            if self._command == 0x2E:
                return (27898).to_bytes(2, "big")
            return (23843 << 8).to_bytes(3, "big")[:length]
        if register == 0xF4:
            return bytes([self._command & 0x1F])
        return registers[register][:length]

    def writeto_mem(self, address, register, data):
        self._command = data[0]
