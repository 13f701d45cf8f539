import sys as _sys

import _stdio

for _key in dir(_sys):
    if not _key.startswith("__"):
        globals()[_key] = getattr(_sys, _key)

platform = "esp32"
maxsize = 0x7FFFFFFF
stdin = _stdio.Stdin(_sys.stdin, True)


class _Stdout:
    pass


def setup(configuration):
    global implementation, version, stdout
    from collections import namedtuple

    release = configuration["release"]
    numbers = release.split("-")[0].split(".")
    kind = namedtuple("implementation", ("name", "version", "_machine", "_mpy", "_build", "_thread"))
    implementation = kind(
        "micropython",
        tuple([int(n) for n in numbers]) + ("",),
        "Generic ESP32 module with SPIRAM with ESP32",
        11014,
        "ESP32_GENERIC-SPIRAM",
        "GIL",
    )
    version = "3.4.0; MicroPython " + configuration["version"]
