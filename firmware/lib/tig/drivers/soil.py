"""Soil moisture from an analogue probe: the median of several readings in mV, calibrated at two points.

A resistive probe corrodes under current: the pin `power` feeds it only while it is read. Without that pin the probe is always
on. Of `dry_mv` and `wet_mv` either may be the larger.
"""

import time

from tig.drivers import SensorError

QUANTITIES = {"moisture": (0, 1, 4), "millivolts": (0, 3600, 0)}
SETTINGS = {
    "pin": {"kind": "pin", "direction": "analogue", "example": "P17", "about": "its output"},
    "power": {"kind": "pin", "direction": "output", "optional": True, "example": "P8", "about": "its supply"},
    # What the converter can tell apart at 11 dB.
    "dry_mv": {
        "kind": "integer", "smallest": 100, "largest": 3100, "apart": {"wet_mv": 50}, "example": 2800,
        "about": "its reading in dry air in mV",
    },
    "wet_mv": {
        "kind": "integer", "smallest": 100, "largest": 3100, "example": 1200, "about": "its reading in a glass of water in mV",
    },
    "settle_ms": {
        "kind": "integer", "smallest": 0, "largest": 10000, "default": 1000, "takes_ms": 1, "with": "power",
        "about": "how long the probe is powered before it is read, in ms",
    },
    "samples": {
        "kind": "integer", "smallest": 1, "largest": 200, "default": 11, "takes_ms": 10,
        "about": "how many readings the median is of",
    },
}  # fmt: skip

# The ESP32's converter at 11 dB, the attenuation of tig.board's `adc`: what is below 100 mV reads as 0 (MicroPython's ESP32 quick
# reference; Espressif recommends 150 to 2450 mV), and its last step stands for little more than 3100 mV, whatever the input has.
LOWEST_MV = 100
HIGHEST_MV = 3100
MARGIN = 0.2  # how far beyond the calibrated points, in parts of their distance, a reading is still soil
SPREAD_MV = 100  # the middle half of the samples further apart than this: a loose wire, or nothing connected


def moisture(mv, dry_mv, wet_mv):
    """0 (dry) to 1 (wet); None where the reading is not soil: probe unplugged, in the air, shorted."""
    if not LOWEST_MV <= mv <= HIGHEST_MV:
        return None
    part = (mv - dry_mv) / (wet_mv - dry_mv)
    if not -MARGIN <= part <= 1 + MARGIN:
        return None
    return min(1, max(0, part))


def median(samples):
    """Median of a list of integers; raises SensorError where the samples disagree too much to mean anything."""
    ordered = sorted(samples)
    n = len(ordered)
    if ordered[n - 1 - n // 4] - ordered[n // 4] > SPREAD_MV:
        raise SensorError("unstable")
    return (ordered[(n - 1) // 2] + ordered[n // 2]) // 2


class Sensor:
    def __init__(self, board, config):
        self._millivolts = board.adc(config["pin"])
        self._power = board.output(config["power"]) if config.get("power") else None
        if self._power:
            self._power(0)
        self._settle_ms = config["settle_ms"]
        self._samples = config["samples"]
        self._dry = config["dry_mv"]
        self._wet = config["wet_mv"]
        if self._dry == self._wet:
            raise SensorError("dry_mv equals wet_mv")

    def read(self):
        samples = []
        try:
            if self._power:
                self._power(1)
                time.sleep_ms(self._settle_ms)
            self._millivolts()  # the first one after a pause is off
            for _ in range(self._samples):
                samples.append(self._millivolts())
                time.sleep_ms(10)
        finally:
            if self._power:
                self._power(0)
        mv = median(samples)
        values = {"millivolts": mv}
        part = moisture(mv, self._dry, self._wet)
        if part is not None:
            values["moisture"] = part
        return values
