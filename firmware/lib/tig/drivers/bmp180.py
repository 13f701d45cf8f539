"""BMP180: air pressure and temperature over I2C, after Bosch's data sheet BST-BMP180-DS000.

P6 and P7 are the LoRa radio's data lines on a LoPy4: other pins, such as P9 and P10, leave the radio usable.

On a bus that is stuck every word reads 0x0000 or 0xFFFF; no register of a working BMP180 does.
"""

import struct
import time

from tig.drivers import SensorError

QUANTITIES = {"pressure": (300, 1100, 2), "temperature": (-40, 85, 1), "altitude": (-500, 9000, 1)}
SETTINGS = {
    "sda": {"kind": "pin", "direction": "both", "bus": "i2c", "default": "P6", "about": "the bus's data line"},
    "scl": {"kind": "pin", "direction": "both", "bus": "i2c", "default": "P7", "about": "the bus's clock"},
    "oversampling": {
        "kind": "integer", "smallest": 0, "largest": 3, "default": 3, "about": "the data sheet's setting, a whole number",
    },
    "sealevel": {
        "kind": "number", "smallest": 800, "largest": 1100, "default": 1013.25, "about": "the pressure at sea level in hPa",
    },
}  # fmt: skip
TAKES_MS = 200
ADDRESS = 0x77

CHIP_ID = 0x55
_WAIT_MS = (5, 8, 14, 26)  # conversion time by oversampling, rounded up


def compensate(cal, ut, up, oss):
    """(temperature in 0.1 C, pressure in Pa) from the calibration words AC1..MD and the raw readings, in integers."""
    ac1, ac2, ac3, ac4, ac5, ac6, b1, b2, _mb, mc, md = cal
    x1 = (ut - ac6) * ac5 >> 15
    if x1 + md == 0:
        raise SensorError("calibration")
    b5 = x1 + (mc << 11) // (x1 + md)
    temperature = b5 + 8 >> 4
    b6 = b5 - 4000
    x1 = b2 * (b6 * b6 >> 12) >> 11
    x2 = ac2 * b6 >> 11
    b3 = ((ac1 * 4 + x1 + x2 << oss) + 2) // 4
    x1 = ac3 * b6 >> 13
    x2 = b1 * (b6 * b6 >> 12) >> 16
    b4 = ac4 * ((x1 + x2 + 2 >> 2) + 32768) >> 15
    if b4 <= 0:
        raise SensorError("calibration")
    b7 = (up - b3) * (50000 >> oss)
    p = b7 * 2 // b4 if b7 < 0x80000000 else b7 // b4 * 2
    x1 = (p >> 8) * (p >> 8) * 3038 >> 16
    x2 = -7357 * p >> 16
    return temperature, p + (x1 + x2 + 3791 >> 4)


def altitude(pascal, sealevel_hpa):
    """Metres above the level at which the pressure is `sealevel_hpa`."""
    return 44330 * (1 - (pascal / (sealevel_hpa * 100)) ** (1 / 5.255))


class Sensor:
    def __init__(self, board, config):
        self._oss = config["oversampling"]
        self._sealevel = config["sealevel"]
        self._bus = board.i2c(config["sda"], config["scl"], 100000)
        self._check_id()
        raw = self._bus.readfrom_mem(ADDRESS, 0xAA, 22)
        for word in struct.unpack(">11H", raw):
            if word in (0, 0xFFFF):
                raise SensorError("bus")
        self._cal = struct.unpack(">hhhHHHhhhhh", raw)

    def read(self):
        self._check_id()
        ut = self._convert(0x2E, _WAIT_MS[0], 2)
        up = self._convert(0x34 + (self._oss << 6), _WAIT_MS[self._oss], 3) >> 8 - self._oss
        temperature, pressure = compensate(self._cal, ut, up, self._oss)
        values = {"temperature": temperature / 10}
        smallest, largest, _ = QUANTITIES["temperature"]
        if not smallest <= values["temperature"] <= largest:
            return values  # the others are worked out from it
        values["pressure"] = pressure / 100
        if pressure > 0:
            values["altitude"] = altitude(pressure, self._sealevel)
        return values

    def _check_id(self):
        chip = self._bus.readfrom_mem(ADDRESS, 0xD0, 1)[0]
        if chip in (0, 0xFF):
            raise SensorError("bus")
        if chip != CHIP_ID:
            raise SensorError("chip id 0x%02x" % chip)

    def _convert(self, command, wait_ms, length):
        self._bus.writeto_mem(ADDRESS, 0xF4, bytes([command]))
        for _ in range(3):
            time.sleep_ms(wait_ms)
            if not self._bus.readfrom_mem(ADDRESS, 0xF4, 1)[0] & 0x20:  # still converting
                break
        else:
            raise SensorError("conversion")
        raw = self._bus.readfrom_mem(ADDRESS, 0xF6, length)
        if raw[:2] in (b"\x00\x00", b"\xff\xff"):
            raise SensorError("bus")
        value = 0
        for byte in raw:
            value = value << 8 | byte
        return value
