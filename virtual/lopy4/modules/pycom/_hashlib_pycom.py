# uhashlib of Pycom's moduhashlib.c, with its bug: one hash at a time, and a hash that is never digested blocks all others.
import hashlib as _hashlib

import _hardware


class _Hash:
    _kind = None

    def __init__(self, data=None):
        if _hardware.clock(10, 0):
            raise OSError("only one active hash operation is permitted at a time")
        _hardware.clock(9, 1)
        self._digested = None
        self._open()
        if data is not None:
            self.update(data)

    def _open(self):
        self._hash = getattr(_hashlib, self._kind)()

    def update(self, data):
        if self._digested is not None:
            raise OSError("the requested operation is not possible")
        self._hash.update(data)

    def digest(self):
        if self._digested is None:
            self._digested = self._hash.digest()
            _hardware.clock(9, 0)
        return self._digested


class md5(_Hash):
    _kind = "md5"


class sha1(_Hash):
    _kind = "sha1"


class sha256(_Hash):
    _kind = "sha256"


class _Far(_Hash):
    # kinds that the Unix port lacks: computed by the supervisor
    def _open(self):
        self._hash = self
        self._data = bytearray()

    def update(self, data):
        if self._digested is not None:
            raise OSError("the requested operation is not possible")
        self._data += data

    def digest(self):
        if self._digested is None:
            import binascii

            hexed = str(binascii.hexlify(self._data), "ascii")
            self._digested = binascii.unhexlify(_hardware.call("hash", self._kind, hexed))
            _hardware.clock(9, 0)
        return self._digested


class sha224(_Far):
    _kind = "sha224"


class sha384(_Far):
    _kind = "sha384"


class sha512(_Far):
    _kind = "sha512"
