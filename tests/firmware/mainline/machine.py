"""Just enough of `machine` of MicroPython for the ESP32 for the board layer and the I2C sensors."""

from chips import Controller


class Pin:
    OUT = 3

    def __init__(self, gpio, mode=None):
        self.gpio = gpio


class I2C(Controller):
    def __init__(self, id, *, scl, sda, freq=400000):
        super().__init__(id, sda.gpio, scl.gpio)


class ADC:
    pass


class WDT:
    pass
