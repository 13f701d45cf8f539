# Pycom's firmware 1.20.2.r6: which modules it has, under which names, with which names in them, and which methods its types have.
# r6.json has all of that; there is nothing else.
import errno
import json
import sys

path = ["", "/flash", "/flash/lib"]
with open("/_/pycom/r6.json") as _file:
    _table = json.load(_file)


def _names(kind, name):
    return _table[kind].get(name, "").split()


def _bare(name, source):
    """A module with the names that the table has, as far as `source` has them."""
    module = __import__("_bare")
    del sys.modules["_bare"]
    module.__name__ = name
    del module.__file__
    for one in _names("modules", name) + _names("pybytes", name):
        if hasattr(source, one):
            setattr(module, one, getattr(source, one))
    return module


def modules(configuration):
    import _thread
    import array
    import builtins
    import cmath
    import collections
    import framebuf
    import gc
    import io
    import math
    import micropython
    import re
    import select
    import struct

    import uctypes

    import _binascii_pycom
    import _errno_pycom
    import _hashlib_pycom
    import _os_pycom
    import _socket_pycom
    import _ssl_pycom
    import _sys_pycom
    import _time_pycom
    import _zlib_pycom
    import machine_pycom
    import network_pycom
    import pycom

    _os_pycom.setup(configuration)
    _sys_pycom.setup(configuration)
    found = {"builtins": builtins}
    for name, source in (
        ("_thread", _thread),
        ("array", array),
        ("cmath", cmath),
        ("framebuf", framebuf),
        ("gc", gc),
        ("math", math),
        ("micropython", micropython),
        ("network", network_pycom),
        ("pycom", pycom),
        ("sys", _sys_pycom),
        ("ubinascii", _binascii_pycom),
        ("ucollections", collections),
        ("uctypes", uctypes),
        ("uerrno", _errno_pycom),
        ("uhashlib", _hashlib_pycom),
        ("uio", io),
        ("ujson", json),
        ("umachine", machine_pycom),
        ("uos", _os_pycom),
        ("ure", re),
        ("uselect", select),
        ("usocket", _socket_pycom),
        ("ussl", _ssl_pycom),
        ("ustruct", struct),
        ("utime", _time_pycom),
        ("uzlib", _zlib_pycom),
    ):
        found[name] = _bare(name, source)
    for name in _table["weak_links"].split():
        if "u" + name in found:
            found[name] = found["u" + name]
    return found


def restrict(limit):
    """Leave of the interpreter's own names and types what the table has. limit(thing, names) is child.py's."""
    uio = sys.modules["uio"]
    kinds = [
        ("str", str),
        ("bytes", bytes),
        ("bytearray, array", bytearray),
        ("dict", dict),
        ("list", list),
        ("set", set),
        ("tuple", tuple),
        ("int", int),
        ("io.StringIO, BytesIO", uio.StringIO),
        ("io.StringIO, BytesIO", uio.BytesIO),
    ]
    for mode in ("r", "rb"):
        try:
            with open("/flash/boot.py", mode) as file:
                kinds.append(("file (FAT)", type(file)))
        except OSError:
            pass  # a damaged file system
    for name, kind in kinds:
        limit(kind, _table["types"][name])
    limit(errno, "")  # or the compiler would write its numbers in the place of those of _errno_pycom
    limit(sys.modules["builtins"], _table["modules"]["builtins"])


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
