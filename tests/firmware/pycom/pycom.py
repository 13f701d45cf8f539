"""Just enough of `pycom`. The file `dht11.gone` unplugs the sensor."""

import os

import machine

lamp = None
on_boot = {"wifi": True}


def heartbeat(on):
    pass


def rgbled(colour):
    global lamp
    lamp = colour


def wifi_on_boot(value=None):
    if value is None:
        return on_boot["wifi"]
    on_boot["wifi"] = value


def nvs_set(key, value):
    with open(key + ".nvs", "w") as f:
        f.write(str(value))


def nvs_get(key):
    with open(key + ".nvs") as f:
        return int(f.read())


def nvs_erase(key):
    os.remove(key + ".nvs")


def pulses_get(pin, timeout):
    if machine.exists("dht11.gone"):
        return []
    pulses = [(1, 25), (0, 80), (1, 80)]
    for byte in (53, 0, 25, 0, 78):
        for bit in range(8):
            pulses += [(0, 50), (1, 70 if byte & 0x80 >> bit else 27)]
    return pulses + [(0, 54), (1, 0)]  # noqa: RUF005
