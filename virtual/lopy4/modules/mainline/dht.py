# dht of the ESP32 port: the C driver's part is machine.dht_readinto of the simulated board.
from machine_mainline import dht_readinto


class DHT11:
    def __init__(self, pin):
        self.pin = pin
        self.buf = bytearray(5)

    def measure(self):
        buf = self.buf
        dht_readinto(self.pin, buf)
        if (buf[0] + buf[1] + buf[2] + buf[3]) & 0xFF != buf[4]:
            raise Exception("checksum error")
