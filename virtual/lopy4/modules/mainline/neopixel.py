class NeoPixel:
    ORDER = (1, 0, 2, 3)

    def __init__(self, pin, n, bpp=3, timing=1):
        self.pin = pin
        self.n = n
        self.bpp = bpp
        self.buf = bytearray(n * bpp)
        pin.init(pin.OUT)

    def __setitem__(self, i, v):
        for k in range(self.bpp):
            self.buf[i * self.bpp + self.ORDER[k]] = v[k]

    def fill(self, v):
        for i in range(self.n):
            self[i] = v

    def write(self):
        from machine import bitstream

        bitstream(self.pin, 0, (400, 850, 800, 450), self.buf)
