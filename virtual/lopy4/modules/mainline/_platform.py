# MicroPython for the ESP32 of today: its modules, and what its sys, time and os say.
path = ["", ".frozen", "/lib"]


def modules(configuration):

    import _os_mainline
    import _socket_mainline
    import _sys_mainline
    import _time_mainline
    import dht
    import machine_mainline
    import neopixel
    import network
    import ntptime

    _os_mainline.setup(configuration)
    _sys_mainline.setup(configuration)
    found = {
        "dht": dht,
        "neopixel": neopixel,
        "network": network,
        "ntptime": ntptime,
        "sys": _sys_mainline,
    }
    for name, module in (
        ("machine", machine_mainline),
        ("socket", _socket_mainline),
        ("time", _time_mainline),
        ("os", _os_mainline),
    ):
        found[name] = module
        found["u" + name] = module
    for name in found:
        module = found[name]
        if getattr(module, "__name__", "").endswith("_mainline"):
            module.__name__ = name
    return found


def prepare(fresh, root):
    with open("boot.py", "w") as file:
        file.write(
            "# This file is executed on every boot (including wake-boot from deepsleep)\n"
            "#import esp\n#esp.osdebug(None)\n#import webrepl\n#webrepl.start()\n"
        )


def restrict(limit):
    pass
