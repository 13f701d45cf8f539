# uhashlib of Pycom's moduhashlib.c, with its bug: one hash at a time, and a hash that is never digested blocks all others.
import hashlib as _hashlib

import _hardware


class sha256:
    def __init__(self, data=None):
        if _hardware.clock(10, 0):
            raise OSError("only one active hash operation is permitted at a time")
        _hardware.clock(9, 1)
        self._digested = None
        self._hash = _hashlib.sha256()
        if data is not None:
            self.update(data)

    def update(self, data):
        if self._digested is not None:
            raise OSError("the requested operation is not possible")
        self._hash.update(data)

    def digest(self):
        if self._digested is None:
            self._digested = self._hash.digest()
            _hardware.clock(9, 0)
        return self._digested
