"""Two BMP180s with the calibration of the data sheet's example, on two pairs of pins, and the ESP32's two I2C controllers.

A controller has one pair of pins: whoever constructs it anew routes it elsewhere, for all who hold it. The file
`bmp180.gone` unplugs the chips.
"""

import os

CALIBRATION = b"\x01\x98\xff\xb8\xc7\xd1\x7f\xe5\x7f\xf5\x5a\x71\x18\x2e\x00\x04\x80\x00\xdd\xf9\x0b\x34"


def exists(name):
    try:
        os.stat(name)
        return True
    except OSError:
        return False


class Bmp180:
    def __init__(self, pressure):
        self._pressure = pressure  # raw, at oversampling 0
        self._command = 0

    def read(self, register, length):
        if register == 0xF6:
            if self._command == 0x2E:
                return (27898).to_bytes(2, "big")
            return (self._pressure << 8).to_bytes(3, "big")[:length]
        if register == 0xF4:
            return bytes([self._command & 0x1F])
        return {0xD0: b"\x55", 0xAA: CALIBRATION}[register][:length]

    def write(self, register, data):
        self._command = data[0]


chips = {(27, 19): Bmp180(23843), (12, 13): Bmp180(24843)}  # by (SDA, SCL) as GPIO
_routes = {}  # controller -> (SDA, SCL)


class Controller:
    def __init__(self, number, sda, scl):
        if number not in (0, 1):
            raise ValueError("I2C(%d) doesn't exist" % number)
        self._number = number
        _routes[number] = (sda, scl)

    def _chip(self, address):
        chip = chips.get(_routes[self._number])
        if chip is None or address != 0x77 or exists("bmp180.gone"):
            raise OSError("I2C bus error")
        return chip

    def readfrom_mem(self, address, register, length):
        return self._chip(address).read(register, length)

    def writeto_mem(self, address, register, data):
        self._chip(address).write(register, data)
