# ucrypto of Pycom's moducrypto.c: random bits and AES (ECB and CBC only).
import os as _os

from cryptolib import aes as _aes


def getrandbits(bits):
    return _os.urandom(-(-bits // 32) * 4)


class AES:
    MODE_ECB = 1
    MODE_CBC = 2
    SEGMENT_8 = 8
    SEGMENT_128 = 128

    def __init__(self, key, mode=1, IV=None, *arguments, **keywords):
        if mode not in (1, 2):
            raise ValueError("invalid mode")
        self._make = (lambda: _aes(key, mode, IV)) if mode == 2 else (lambda: _aes(key, mode))
        self._encrypt = self._make()
        self._decrypt = self._make()

    def encrypt(self, data):
        return self._encrypt.encrypt(data)

    def decrypt(self, data):
        return self._decrypt.decrypt(data)
