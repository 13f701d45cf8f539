# uzlib of MicroPython 1.11 by means of the deflate module that took its place.
import io as _io

import deflate as _deflate


def decompress(data, wbits=0, bufsize=0):
    kind = _deflate.RAW if wbits < 0 else _deflate.ZLIB
    try:
        return _deflate.DeflateIO(_io.BytesIO(data), kind, abs(wbits) if abs(wbits) in range(5, 16) else 15).read()
    except EOFError:
        raise ValueError(-3)
    except OSError:
        raise ValueError(-3)


class DecompIO(_io.IOBase):
    def __init__(self, stream, wbits=0):
        if wbits >= 16:
            kind = _deflate.GZIP
            wbits -= 16
        elif wbits >= 0:
            kind = _deflate.ZLIB
        else:
            kind = _deflate.RAW
            wbits = -wbits
        self._io = _deflate.DeflateIO(stream, kind, wbits if 5 <= wbits <= 15 else 15)

    def read(self, *arguments):
        return self._io.read(*arguments)

    def readinto(self, buffer):
        return self._io.readinto(buffer)

    def readline(self):
        return self._io.readline()
