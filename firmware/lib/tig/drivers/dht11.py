"""DHT11: temperature and humidity over one wire.

Frame: humidity, its decimals, temperature, its decimals, checksum. The ranges are
those of Aosong's newer DHT11 (5 to 95 %, -20 to 60 C); the older one's (20 to 90 %, 0 to 50 C) lie within.
"""

import time

from tig.drivers import SensorError

QUANTITIES = {"humidity": (5, 95, 0), "temperature": (-20, 60, 1)}
SETTINGS = {"pin": {"kind": "pin", "direction": "both", "example": "P11", "about": "its data line"}}
TAKES_MS = 1500
ATTEMPTS = 2
PAUSE_MS = 1200  # the sensor wants a second between two readings


def decode(frame):
    """(humidity in %, temperature in C) from the five bytes; raises SensorError."""
    if (frame[0] + frame[1] + frame[2] + frame[3]) & 0xFF != frame[4]:
        raise SensorError("checksum")
    if not frame[0] and not frame[2]:
        raise SensorError("empty answer")  # its checksum is right, and 0 % is nothing that the sensor measures
    temperature = frame[2] + (frame[3] & 0x7F) / 10
    return frame[0], -temperature if frame[3] & 0x80 else temperature


class Sensor:
    def __init__(self, board, config):
        self._frame = board.dht
        self._pin = config["pin"]

    def read(self):
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep_ms(PAUSE_MS)
            try:
                humidity, temperature = decode(self._frame(self._pin))
                return {"humidity": humidity, "temperature": temperature}
            except (SensorError, OSError) as e:
                fault = e
        raise fault
