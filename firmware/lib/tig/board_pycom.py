"""Pycom's firmware 1.20.2.r6 on a LoPy4. tig.board describes the functions."""

import time

import machine
import pycom
import ubinascii
from machine import ADC, I2C, WDT, Pin
from network import WLAN, Server

from tig import buses, pulses

WATCHDOG_MS = 0x3FFFFFFF  # twelve days
_CAUSES = (
    ("PWRON_RESET", "power_on"),
    ("HARD_RESET", "hard"),
    ("WDT_RESET", "watchdog"),
    ("DEEPSLEEP_RESET", "deepsleep"),
    ("SOFT_RESET", "soft"),
    ("BROWN_OUT_RESET", "brownout"),
)
_wlan = None
_reset_wanted = None


def uid():
    return ubinascii.hexlify(machine.unique_id()).decode()


def reset_cause():
    cause = machine.reset_cause()
    if cause == machine.WDT_RESET and _wanted():
        return "hard"
    for name, word in _CAUSES:
        if cause == getattr(machine, name, None):
            return word
    return "unknown"


def _wanted():
    """machine.reset() is a starved watchdog to this platform: the loader notes that the reset is wanted."""
    global _reset_wanted
    if _reset_wanted is None:
        try:
            _reset_wanted = bool(pycom.nvs_get("tig_reset"))
            if _reset_wanted:
                pycom.nvs_erase("tig_reset")
        except Exception:
            _reset_wanted = False  # no such key: which exception that is depends on the release
    return _reset_wanted


def watchdog(ms):
    return WDT(timeout=min(ms, WATCHDOG_MS)).feed


def led(colour):
    pycom.rgbled(colour)


def power_safe():
    try:
        return pycom.bootmgr()[1] == "LittleFS"  # the other one is FAT
    except Exception:
        return False  # a release that does not say


def quiet():
    pycom.heartbeat(False)
    # These are in the flash: write them only if they differ.
    for name in ("wifi_on_boot", "pybytes_on_boot", "smart_config_on_boot"):
        setting = getattr(pycom, name, None)
        if setting and setting():
            setting(False)
    Server().deinit()


def output(pin):
    return Pin(pin, mode=Pin.OUT)


def open_drain(pin):
    return Pin(pin, mode=Pin.OPEN_DRAIN, value=1)


def adc(pin):
    # 11 dB: up to about 3.2 V, nearly linear from 150 to 2450 mV.
    return ADC().channel(pin=pin, attn=ADC.ATTN_11DB).voltage


def i2c(sda, scl, frequency):
    return I2C(buses.controller((sda, scl), sda, scl), I2C.MASTER, pins=(sda, scl), baudrate=frequency)


def dht(pin):
    line = open_drain(pin)
    line(0)
    time.sleep_ms(20)
    # Recording makes the pin an input, which lets the line go: that is what the sensor answers to.
    recorded = pycom.pulses_get(pin, 100)
    line.init(Pin.OPEN_DRAIN)
    line(1)
    return pulses.decode(recorded)


def wifi_start():
    global _wlan
    _wlan = WLAN(mode=WLAN.STA)


def wifi_stop():
    if _wlan:
        _wlan.deinit()


def wifi_connect(ssid, password, timeout_ms):
    if password:
        _wlan.connect(ssid, auth=(WLAN.WPA2, password), timeout=timeout_ms)
    else:
        _wlan.connect(ssid, timeout=timeout_ms)


def wifi_connected():
    try:
        return _wlan.isconnected()
    except OSError:
        return False  # it says once, as a TimeoutError, that the attempt is over


def wifi_reason():
    return ""


def wifi_address():
    return _wlan.ifconfig()[0]
