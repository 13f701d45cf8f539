"""BME280: air pressure, humidity and temperature over I2C, after Bosch's data sheet BST-BME280-DS002.

Two of them may share a bus: the pin SDO chooses the address, 0x76 (to ground) or 0x77.
"""

import struct
import time

from tig.drivers import SensorError

QUANTITIES = {"pressure": (300, 1100, 2), "humidity": (0, 100, 1), "temperature": (-40, 85, 2)}
SETTINGS = {
    "sda": {"kind": "pin", "direction": "both", "bus": "i2c", "default": "P6", "about": "the bus's data line"},
    "scl": {"kind": "pin", "direction": "both", "bus": "i2c", "default": "P7", "about": "the bus's clock"},
    "address": {"kind": "integer", "choices": (0x76, 0x77), "default": 0x76, "about": "its I2C address"},
}
TAKES_MS = 100

CHIP_ID = 0x60
_FORCED = 0x25  # temperature and pressure once, then sleep
_NOTHING = 0x80000  # what the registers have before the first measurement


class Calibration:
    def __init__(self, low, high):
        """low: the registers 0x88 to 0xA1, high: 0xE1 to 0xE7."""
        self.t1, self.t2, self.t3 = struct.unpack("<Hhh", low[:6])
        self.p1, self.p2, self.p3, self.p4, self.p5, self.p6, self.p7, self.p8, self.p9 = struct.unpack("<H8h", low[6:24])
        self.h1 = low[25]
        self.h2, self.h3, middle, shared, last, self.h6 = struct.unpack("<hBbBbb", high)
        self.h4 = middle << 4 | shared & 0x0F
        self.h5 = last << 4 | shared >> 4


def fine(cal, raw):
    """The data sheet's t_fine: the temperature that the other quantities are worked out with."""
    first = ((raw >> 3) - (cal.t1 << 1)) * cal.t2 >> 11
    second = (((raw >> 4) - cal.t1) * ((raw >> 4) - cal.t1) >> 12) * cal.t3 >> 14
    return first + second


def celsius(t_fine):
    return (t_fine * 5 + 128 >> 8) / 100


def pascal256(cal, t_fine, raw):
    """1/256 Pa"""
    first = t_fine - 128000
    second = first * first * cal.p6 + (first * cal.p5 << 17) + (cal.p4 << 35)
    first = (first * first * cal.p3 >> 8) + (first * cal.p2 << 12)
    first = ((1 << 47) + first) * cal.p1 >> 33
    if first <= 0:
        raise SensorError("calibration")
    p = ((1048576 - raw << 31) - second) * 3125 // first
    return (p + (cal.p9 * (p >> 13) * (p >> 13) >> 25) + (cal.p8 * p >> 19) >> 8) + (cal.p7 << 4)


def percent1024(cal, t_fine, raw):
    """1/1024 % of relative humidity"""
    t = t_fine - 76800
    scale = ((t * cal.h6 >> 10) * ((t * cal.h3 >> 11) + 32768) >> 10) + 2097152
    h = ((raw << 14) - (cal.h4 << 20) - cal.h5 * t + 16384 >> 15) * (scale * cal.h2 + 8192 >> 14)
    h -= ((h >> 15) * (h >> 15) >> 7) * cal.h1 >> 4
    return min(max(h, 0), 419430400) >> 12


class Sensor:
    def __init__(self, board, config):
        self._bus = board.i2c(config["sda"], config["scl"], 100000)
        self._address = config["address"]
        self._check_id()
        low = self._read(0x88, 26)
        high = self._read(0xE1, 7)
        for part in (low[:24], high):
            if part in (bytes(len(part)), b"\xff" * len(part)):
                raise SensorError("bus")
        self._cal = Calibration(low, high)

    def read(self):
        self._check_id()
        self._bus.writeto_mem(self._address, 0xF2, b"\x01")  # humidity once; counts from the next line on
        self._bus.writeto_mem(self._address, 0xF4, bytes([_FORCED]))
        for _ in range(3):
            time.sleep_ms(10)  # at most 9.3 ms
            if not self._read(0xF3, 1)[0] & 0x08:  # still measuring
                break
        else:
            raise SensorError("conversion")
        raw = self._read(0xF7, 8)
        if raw in (bytes(8), b"\xff" * 8):
            raise SensorError("bus")
        pressure = raw[0] << 12 | raw[1] << 4 | raw[2] >> 4
        temperature = raw[3] << 12 | raw[4] << 4 | raw[5] >> 4
        if _NOTHING in (pressure, temperature):
            raise SensorError("not measured")
        t_fine = fine(self._cal, temperature)
        values = {"temperature": celsius(t_fine)}
        smallest, largest, _ = QUANTITIES["temperature"]
        if smallest <= values["temperature"] <= largest:  # the others are worked out from it
            values["pressure"] = (pascal256(self._cal, t_fine, pressure) + 128 >> 8) / 100
            values["humidity"] = percent1024(self._cal, t_fine, raw[6] << 8 | raw[7]) / 1024
        return values

    def _check_id(self):
        chip = self._read(0xD0, 1)[0]
        if chip in (0, 0xFF):
            raise SensorError("bus")
        if chip != CHIP_ID:
            raise SensorError("chip id 0x%02x" % chip)

    def _read(self, register, length):
        return self._bus.readfrom_mem(self._address, register, length)
