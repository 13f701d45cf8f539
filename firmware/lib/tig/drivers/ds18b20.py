"""DS18B20: temperature over one wire, after Maxim's data sheet 19-7487.

Several of them may share a wire. Each has an address of its own from the factory, eight bytes in hexadecimal, which the console and
`make flash` name if it is missing or wrong in the settings. The wire needs a resistor of 4.7 kOhm to 3V3. Parasite power is not supported.

Interrupts are off only from the falling edge of a slot to the moment that counts, at most 60 to 80 us for a written 0.
"""

import struct
import time
from binascii import hexlify, unhexlify

from machine import disable_irq, enable_irq

from tig.drivers import SensorError

QUANTITIES = {"temperature": (-55, 125, 2)}
SETTINGS = {
    "pin": {"kind": "pin", "direction": "both", "bus": "onewire", "example": "P10", "about": "the wire"},
    "address": {
        "kind": "text", "pattern": "28[0-9a-f]{14}", "optional": True,
        "about": "its address, 28 and 14 more hexadecimal digits in quotes",
    },
}  # fmt: skip
TAKES_MS = 1200

ATTEMPTS = 3
FRESH_MS = 1000
FAMILY = 0x28
_SEARCH = b"\xf0"
_MATCH = b"\x55"
_SKIP = b"\xcc"
_CONVERT = b"\x44"
_READ_SCRATCHPAD = b"\xbe"
_READ_POWER = b"\xb4"
_CONVERSION_MS = 750  # at most, with 12 bits
_AFTER_POWER_ON = 0x0550  # 85 C, before the first conversion; a chip at exactly this temperature is not believed either


def checksum(data):
    """CRC-8 of the data sheet; 0 for data that ends with its own."""
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x8C if crc & 1 else 0)
    return crc


class Wire:
    def __init__(self, line):
        """line: a pin with an open drain."""
        self._line = line
        self._measured = None  # ticks in ms

    def reset(self):
        """Raises SensorError if no chip answers."""
        line = self._line
        for _ in range(ATTEMPTS):
            if not line():
                raise SensorError("the wire is low: is its resistor to 3V3 missing?")
            line(0)
            time.sleep_us(500)
            line(1)
            time.sleep_us(10)
            answered = False
            for _ in range(100):  # the answer comes within 60 us and lasts for 60 us or longer
                if not line():
                    answered = True
            time.sleep_us(500)
            if answered:
                return
        raise SensorError("no answer")

    def read_bit(self):
        line = self._line
        state = disable_irq()
        line(0)
        line(1)
        bit = line()  # valid for 15 us after the falling edge
        enable_irq(state)
        time.sleep_us(60)
        return bit

    def write_bit(self, bit):
        line = self._line
        if bit:
            state = disable_irq()
            line(0)
            line(1)
            enable_irq(state)
            time.sleep_us(60)
        else:
            state = disable_irq()
            line(0)
            time.sleep_us(60)
            line(1)
            enable_irq(state)

    def read(self, count):
        data = bytearray(count)
        for i in range(count):
            for bit in range(8):
                if self.read_bit():
                    data[i] |= 1 << bit
        return data

    def write(self, data):
        for byte in data:
            for bit in range(8):
                self.write_bit(byte >> bit & 1)

    def search(self):
        """The addresses of all chips (Maxim's application note 187)."""
        found = []
        address = bytearray(8)
        fork = 64  # the last bit at which chips differed and the 0 was taken
        while fork >= 0:
            self.reset()
            self.write(_SEARCH)
            next_fork = -1
            for i in range(64):
                there, mask = i >> 3, 1 << (i & 7)
                one, zero = self.read_bit(), self.read_bit()
                if one and zero:
                    raise SensorError("no answer")
                if not one and not zero:  # chips differ
                    one = i == fork or (i < fork and address[there] & mask)
                    if not one:
                        next_fork = i
                address[there] = address[there] | mask if one else address[there] & ~mask
                self.write_bit(one)
            if checksum(address):
                raise SensorError("checksum")
            found.append(bytes(address))
            fork = next_fork
        return found

    def select(self, address):
        self.reset()
        self.write(_MATCH + address)

    def measure(self):
        """Make all chips measure, unless another sensor has just done so."""
        if self._measured is not None and 0 <= time.ticks_diff(time.ticks_ms(), self._measured) <= FRESH_MS:
            return
        self._measured = None
        self.reset()
        self.write(_SKIP + _CONVERT)
        time.sleep_ms(_CONVERSION_MS)
        for _ in range(10):
            if self.read_bit():  # 0 as long as one of them measures
                self._measured = time.ticks_ms()
                return
            time.sleep_ms(20)
        raise SensorError("conversion")


_wires = {}  # by pin


class Sensor:
    def __init__(self, board, config):
        pin = config["pin"]
        if pin not in _wires:
            _wires[pin] = Wire(board.open_drain(pin))
        self._wire = _wires[pin]
        self._address = unhexlify(self._choose(config.get("address")))
        self._wire.select(self._address)
        self._wire.write(_READ_POWER)
        if not self._wire.read_bit():
            raise SensorError("parasite power: connect its VDD to 3V3")

    def _choose(self, wanted):
        found = [hexlify(address).decode() for address in self._wire.search() if address[0] == FAMILY]
        if wanted in found:
            return wanted
        if not wanted and len(found) == 1:
            return found[0]
        on_it = ", ".join(found) or "none"
        if wanted:
            raise SensorError("no %s on the wire; on it: %s" % (wanted, on_it))
        raise SensorError("its address is missing; on the wire: " + on_it)

    def read(self):
        self._wire.measure()
        raw = self._temperature()
        if raw == _AFTER_POWER_ON:
            raise SensorError("not measured")
        return {"temperature": raw / 16}

    def _temperature(self):
        for _ in range(ATTEMPTS):
            self._wire.select(self._address)
            self._wire.write(_READ_SCRATCHPAD)
            data = self._wire.read(9)
            resolution = data[4] >> 5  # 0 for 9 bits, 3 for 12
            if not checksum(data) and data[4] & 0x9F == 0x1F:
                return struct.unpack("<h", data[:2])[0] & -8 >> resolution
        raise SensorError("no answer" if data == b"\xff" * 9 else "checksum")
