# Pycom's firmware 1.20.2.r6: which modules it has, under which names, and what its sys, time and os say.
import sys

path = ["", "/flash", "/flash/lib"]

# Built into the Unix port, but not into Pycom's firmware.
_LACKING = (
    "_asyncio asyncio uasyncio argparse cryptolib ucryptolib deflate heapq uheapq mip platform random urandom requests "
    "termios tls utls vfs websocket uwebsocket ffi"
).split()


def _globals(name, source, only=None):
    for key in dir(source):
        if not key.startswith("__") and (only is None or key in only):
            yield key, getattr(source, key)


def modules(configuration):
    import _socket_pycom
    import _sys_pycom
    import _time_pycom
    import _os_pycom
    import _hashlib_pycom
    import _binascii_pycom
    import _zlib_pycom
    import machine_pycom
    import network_pycom
    import pycom
    import select
    import json
    import re
    import struct
    import errno
    import collections
    import io
    import ssl

    _os_pycom.setup(configuration)
    _sys_pycom.setup(configuration)
    machine_pycom.setup(configuration)
    found = {"pycom": pycom, "network": network_pycom, "sys": _sys_pycom, "uzlib": _zlib_pycom}
    for name, module in (
        ("machine", machine_pycom),
        ("socket", _socket_pycom),
        ("time", _time_pycom),
        ("os", _os_pycom),
        ("hashlib", _hashlib_pycom),
        ("binascii", _binascii_pycom),
        ("select", select),
        ("json", json),
        ("re", re),
        ("struct", struct),
        ("errno", errno),
        ("ssl", ssl),
        ("collections", collections),
        ("io", io),
    ):
        found[name] = module
        found["u" + name] = module
    for name in found:
        module = found[name]
        if getattr(module, "__name__", "").endswith("_pycom"):
            module.__name__ = name
    return found, _LACKING


def prepare(fresh, root):
    import os

    for folder in ("sys", "lib", "cert"):
        try:
            os.mkdir(root + "/" + folder)
        except OSError:
            pass
    for name, text in (
        ("boot.py", "# boot.py -- run on boot-up\r\n"),
        ("main.py", "# main.py -- put your code here!\r\n"),
    ):
        try:
            os.stat(root + "/" + name)
        except OSError:
            with open(root + "/" + name, "w") as file:
                file.write(text)


def builtins(module):
    class TimeoutError(OSError):
        pass

    import socket

    module.TimeoutError = socket.timeout
