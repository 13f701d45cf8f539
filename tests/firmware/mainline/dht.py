"""Just enough of `dht` of MicroPython for the ESP32 to be imported."""
