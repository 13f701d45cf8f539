"""Which of the ESP32's two I2C controllers serves which pair of pins.

A controller that is constructed again with other pins changes its pins for everybody who uses it.
"""

from tig.drivers import SensorError

_pairs = []  # the index is the controller's id


def controller(pair, sda, scl):
    """The id for a pair of pins, always the same one; `sda` and `scl` are the pins as the settings name them."""
    if pair not in _pairs:
        if len(_pairs) == 2:
            raise SensorError("SDA %s and SCL %s: the two I2C controllers have other pins" % (sda, scl))
        _pairs.append(pair)
    return _pairs.index(pair)
