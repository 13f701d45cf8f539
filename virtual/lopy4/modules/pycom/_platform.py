# Pycom's firmware 1.20.2.r6: which modules it has, under which names, and what its sys, time and os say.

path = ["", "/flash", "/flash/lib"]

def modules(configuration):
    import collections
    import errno
    import io
    import json
    import re
    import select
    import ssl
    import struct

    import _binascii_pycom
    import _crypto_pycom
    import _hashlib_pycom
    import _os_pycom
    import _socket_pycom
    import _sys_pycom
    import _time_pycom
    import _zlib_pycom
    import machine_pycom
    import network_pycom
    import pycom

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
        ("crypto", _crypto_pycom),
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
    return found


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
    import socket

    module.TimeoutError = socket.timeout
