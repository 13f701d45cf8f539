# uzlib of MicroPython 1.11 by means of the deflate module that took its place, with its fault: the window of a zlib stream is taken
# from the header's CINFO as if that were its binary logarithm (it is 8 less), and a reference further back raises OSError(22).
import io as _io

import deflate as _deflate


def decompress(data, wbits=0, bufsize=0):
    # All at once, into one block of memory: any reference is in reach.
    try:
        return _deflate.DeflateIO(_io.BytesIO(data), _deflate.RAW if wbits < 0 else _deflate.ZLIB, 15).read()
    except (EOFError, OSError):
        raise ValueError(-3)


class _Again(_io.IOBase):
    # A stream whose first bytes have been looked at.
    def __init__(self, head, stream):
        self._head = head
        self._stream = stream

    def readinto(self, buffer):
        if not self._head:
            return self._stream.readinto(buffer)
        count = min(len(buffer), len(self._head))
        buffer[:count] = self._head[:count]
        self._head = self._head[count:]
        return count


class _Refused(_io.IOBase):
    # The deflate module knows no window of less than 32 bytes, which 1.11 makes of one of 8 kB.
    def readinto(self, buffer):
        raise OSError(22)


class DecompIO(_io.IOBase):
    def __init__(self, stream, wbits=0):
        if wbits >= 16:
            self._io = _deflate.DeflateIO(stream, _deflate.GZIP, wbits - 16)
        elif wbits < 0:
            self._io = _deflate.DeflateIO(stream, _deflate.RAW, -wbits)
        else:
            head = stream.read(2)
            if len(head) < 2 or (head[0] << 8 | head[1]) % 31 or head[0] & 15 != 8 or head[0] >> 4 > 7 or head[1] & 32:
                raise ValueError("compression header")
            bits = head[0] >> 4
            self._io = _deflate.DeflateIO(_Again(head, stream), _deflate.ZLIB, bits) if bits >= 5 else _Refused()

    def read(self, *size):
        return self._io.read(*size)

    def readinto(self, buffer):
        return self._io.readinto(buffer)

    def readline(self):
        return self._io.readline()
