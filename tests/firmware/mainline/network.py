"""Just enough of `network` of MicroPython for the ESP32 to be imported."""
