# MicroPython 1.11's ubinascii: no crc32 in Pycom's build, b2a_base64 without keywords.
import binascii as _binascii

hexlify = _binascii.hexlify
unhexlify = _binascii.unhexlify
a2b_base64 = _binascii.a2b_base64


def b2a_base64(data):
    return _binascii.b2a_base64(data)
