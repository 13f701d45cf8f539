"""MicroPython for the ESP32 (1.22 or newer) on a LoPy4. tig.board describes the functions."""

import binascii

import dht as _dht
import machine
import network
from machine import ADC, I2C, WDT, Pin

from tig import buses

_GPIO = {  # the LoPy4's pins by Pycom's names
    "P0": 3, "P1": 1, "P2": 0, "P3": 4, "P4": 15, "P5": 5, "P6": 27, "P7": 19, "P8": 2, "P9": 12, "P10": 13, "P11": 22,
    "P12": 21, "P13": 36, "P14": 37, "P15": 38, "P16": 39, "P17": 35, "P18": 34, "P19": 32, "P20": 33, "P21": 26,
    "P22": 25, "P23": 14,
}  # fmt: skip
WATCHDOG_MS = 0x3FFFFFFF  # twelve days
_CAUSES = (
    ("PWRON_RESET", "power_on"),
    ("HARD_RESET", "hard"),
    ("WDT_RESET", "watchdog"),
    ("DEEPSLEEP_RESET", "deepsleep"),
    ("SOFT_RESET", "soft"),
)
_REASONS = (
    ("STAT_WRONG_PASSWORD", "wrong password"),
    ("STAT_NO_AP_FOUND", "no such network"),
    ("STAT_ASSOC_FAIL", "refused by the access point"),
    ("STAT_BEACON_TIMEOUT", "access point fell silent"),
    ("STAT_HANDSHAKE_TIMEOUT", "wrong password"),
)
_wlan = None
_led = None


def _gpio(pin):
    return _GPIO[pin] if pin in _GPIO else int(pin)


def uid():
    return binascii.hexlify(machine.unique_id()).decode()


def reset_cause():
    cause = machine.reset_cause()
    for name, word in _CAUSES:
        if cause == getattr(machine, name, None):
            return word
    return "unknown"


def watchdog(ms):
    return WDT(timeout=min(ms, WATCHDOG_MS)).feed


def led(colour):
    global _led
    if _led is None:
        from neopixel import NeoPixel

        _led = NeoPixel(Pin(_GPIO["P2"], Pin.OUT), 1)
    _led[0] = (colour >> 16 & 0xFF, colour >> 8 & 0xFF, colour & 0xFF)
    _led.write()


def power_safe():
    return True  # always a LittleFS


def quiet():
    access_point = network.WLAN(network.AP_IF)
    if access_point.active():
        access_point.active(False)


def output(pin):
    return Pin(_gpio(pin), Pin.OUT)


def open_drain(pin):
    return Pin(_gpio(pin), Pin.OPEN_DRAIN, value=1)


def adc(pin):
    channel = ADC(Pin(_gpio(pin)), atten=ADC.ATTN_11DB)
    return lambda: channel.read_uv() // 1000


def i2c(sda, scl, frequency):
    pair = (_gpio(sda), _gpio(scl))
    return I2C(buses.controller(pair, sda, scl), sda=Pin(pair[0]), scl=Pin(pair[1]), freq=frequency)


def dht(pin):
    sensor = _dht.DHT11(Pin(_gpio(pin)))
    try:
        sensor.measure()
    except OSError:
        raise
    except Exception:
        pass  # its own "checksum error": the driver here sees the same in the bytes
    return sensor.buf


def wifi_start():
    global _wlan
    _wlan = network.WLAN(network.STA_IF)
    _wlan.active(True)


def wifi_stop():
    if _wlan:
        _wlan.active(False)


def wifi_connect(ssid, password, timeout_ms):
    if _wlan.status() == getattr(network, "STAT_CONNECTING", None):
        _wlan.disconnect()  # it refuses a second attempt while the first one lasts
    _wlan.connect(ssid, password)


def wifi_connected():
    return _wlan.isconnected()


def wifi_reason():
    status = _wlan.status()
    for name, text in _REASONS:
        if status == getattr(network, name, None):
            return text
    return ""


def wifi_address():
    return _wlan.ifconfig()[0]
