"""SHT31 (also SHT30, SHT35): temperature and humidity over I2C, after Sensirion's data sheet SHT3x-DIS.

Two of them may share a bus: the pin ADDR chooses the address, 0x44 (to ground) or 0x45.
"""

import struct
import time

from tig.drivers import SensorError

QUANTITIES = {"temperature": (-40, 125, 2), "humidity": (0, 100, 1)}
SETTINGS = {
    "sda": {"kind": "pin", "direction": "both", "bus": "i2c", "default": "P6", "about": "the bus's data line"},
    "scl": {"kind": "pin", "direction": "both", "bus": "i2c", "default": "P7", "about": "the bus's clock"},
    "address": {"kind": "integer", "choices": (0x44, 0x45), "default": 0x44, "about": "its I2C address"},
}
TAKES_MS = 50

_MEASURE = b"\x24\x00"  # once, high repeatability, without stretching the clock
_WAIT_MS = 16  # at most 15.5 ms


def checksum(data):
    """CRC-8 of the data sheet: polynomial 0x31, initial value 0xFF."""
    crc = 0xFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ (0x31 if crc & 0x80 else 0)) & 0xFF
    return crc


class Sensor:
    def __init__(self, board, config):
        self._bus = board.i2c(config["sda"], config["scl"], 100000)
        self._address = config["address"]

    def read(self):
        self._bus.writeto(self._address, _MEASURE)
        time.sleep_ms(_WAIT_MS)
        data = self._bus.readfrom(self._address, 6)
        if checksum(data[:2]) != data[2] or checksum(data[3:5]) != data[5]:
            raise SensorError("checksum")
        temperature, _, humidity, _ = struct.unpack(">HBHB", data)
        return {"temperature": 175 * temperature / 65535 - 45, "humidity": 100 * humidity / 65535}
