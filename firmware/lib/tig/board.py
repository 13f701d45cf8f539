"""The platform behind one set of functions: `from tig.board import board`.

A platform module has

    uid()                           the chip's id, hexadecimal
    reset_cause()                   power_on, hard, watchdog, deepsleep, soft, brownout or unknown
    WATCHDOG_MS                     the longest time that its watchdog takes (RP2: 8388, ESP8266: 5000)
    watchdog(ms)                    arm it, or arm it again with another time, for WATCHDOG_MS at most; returns the
                                    function that feeds it
    led(colour)                     0xRRGGBB; 0 is off
    power_safe()                    whether the file system stays whole when power fails during a write, and spreads its writes (LittleFS)
    quiet()                         switch off what the platform starts by itself: access point, telnet, FTP, Pybytes
    output(pin)                     a function of 0 or 1 that drives the pin
    open_drain(pin)                 a pin with an open drain: pin(0) pulls the line low, pin(1) lets it go, pin() reads its level
    adc(pin)                        a function that reads the pin in mV
    i2c(sda, scl, frequency)        an object with readfrom_mem(address, register, length), writeto_mem(address, register, bytes),
                                    readfrom(address, length), writeto(address, bytes); for at most two pairs of pins, a
                                    third one raises SensorError
    dht(pin)                        the five bytes of a DHT11's answer; raises SensorError or OSError
    wifi_start() wifi_stop()        switch the station interface on, and off altogether
    wifi_connect(ssid, password, timeout_ms)   begin; returns at once; a hidden network is found by its name
    wifi_connected()                True or False, never an exception
    wifi_reason()                   why not, if the platform knows it; may be ""
    wifi_address()                  the IPv4 address

Pins are named as on Pycom's boards ("P11"); on MicroPython for the ESP32 also by GPIO number (22 or "22").
"""

try:
    import pycom  # noqa: F401
except ImportError:
    from tig import board_esp32 as board  # noqa: F401
else:
    from tig import board_pycom as board  # noqa: F401
