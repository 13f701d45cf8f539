"""The sensors, at the level at which a driver meets them: pulses, I2C registers, millivolts.

Each sensor has a `fault` (None or one of its FAULTS). Times are microseconds of the device's clock.
"""

import math
import random
import struct
from bisect import bisect_left

from . import onewire

ALIASES = {
    "outsidetemp": "temperature",
    "outsidehumidity": "humidity",
    "airpressure": "pressure",
    "soilhumidity": "moisture",
}


class Environment:
    """The values that the sensors feel: a plausible day and night, or what was set from outside.

    Quantities: temperature (C), humidity (%), pressure (hPa), moisture (0..1), boardtemperature (C), battery (mV).
    """

    def __init__(self, world_seconds):
        self.world_seconds = world_seconds
        self.fixed = {}

    def set(self, name, value):
        name = ALIASES.get(name, name)
        if name not in ("temperature", "humidity", "pressure", "moisture", "boardtemperature", "battery"):
            raise ValueError(f"there is no quantity '{name}'")
        if value is None:
            self.fixed.pop(name, None)
        else:
            self.fixed[name] = float(value)

    def value(self, name):
        if name in self.fixed:
            return self.fixed[name]
        seconds = self.world_seconds()
        day = math.sin((seconds % 86400) / 86400 * 2 * math.pi - 2.1)  # warmest in the afternoon
        slow = math.sin(seconds / 86400 * 2 * math.pi / 5.3)
        if name == "temperature":
            return 17 + 5 * day + 1.5 * slow
        if name == "boardtemperature":
            return 18 + 5 * day + 1.5 * slow
        if name == "humidity":
            return 58 - 14 * day - 5 * slow
        if name == "pressure":
            return 1013.2 + 6 * slow + 0.6 * math.sin(seconds / 86400 * 4 * math.pi)
        if name == "moisture":
            return 0.72 - 0.3 * ((seconds / 86400) % 4) / 4
        return 4020.0

    def all(self):
        names = ("temperature", "humidity", "pressure", "moisture", "boardtemperature")
        return {name: round(self.value(name), 3) for name in names}


class Sensor:
    """One part on the board's pins. offsets: how much more of a quantity there is at its place, by name."""

    FAULTS = ("silent", "stuck", "drift")
    violations = ()  # of its protocol, by the program

    def __init__(self, environment, now, offsets=None):
        self.environment, self.now = environment, now
        self.offsets = offsets or {}
        self.fault = None
        self.since = 0
        self.frozen = {}

    def set_fault(self, fault):
        if fault in (None, "", "none"):
            self.fault = None
        elif fault in self.FAULTS:
            self.fault = fault
        else:
            raise ValueError("no fault '{}': one of none, {}".format(fault, ", ".join(self.FAULTS)))
        self.since = self.now()
        self.frozen = {}

    def power_on(self):
        """It gets its supply."""

    def pin(self, gpio, driven, us):
        """The board drives a pin high or low, or lets it go (None); us is the time at the pins, which counts single microseconds."""

    def level(self, gpio, us):
        """The level to which it pulls a pin that nobody drives, or None."""
        return None

    def analogue(self, gpio):
        """The millivolts that it puts on a pin, or None."""
        return None

    def feel(self, name, drift_per_hour):
        """The quantity as this sensor feels it: frozen when stuck, running away when drifting."""
        value = self.environment.value(name) + self.offsets.get(name, 0)
        if self.fault == "stuck":
            return self.frozen.setdefault(name, value)
        if self.fault == "drift":
            return value + drift_per_hour * (self.now() - self.since) / 3.6e9
        return value


class Dht11(Sensor):
    """DHT11: one wire, 40 bits.

    Source: its data sheet. A start pulse of at least 18 ms; 80 us low, 80 us high; per bit 50 us low and 26..28 (0) or
    70 us (1) high; the checksum is the sum of the four bytes; one reading a second, one second of rest after power-up.
    """

    FAULTS = ("silent", "checksum", "short", "low", "stuck", "drift", "range", "zero")

    def __init__(self, environment, now, gpio=22, **more):
        super().__init__(environment, now, **more)
        self.gpio = gpio
        self.power_on()

    def pin(self, gpio, driven, us):
        if gpio == self.gpio:
            self.line(driven == 0)

    def level(self, gpio, us):
        return None if gpio != self.gpio else 0 if self.fault == "low" else 1

    def power_on(self):
        self.powered = self.now()
        self.low_since = None
        self.respond_until = 0
        self.measured = None
        self.last = b"\0\0\0\0\0"

    def line(self, low):
        """The host drives the line low, or lets it go."""
        now = self.now()
        if low:
            if self.low_since is None:
                self.low_since = now
        elif self.low_since is not None:
            if now - self.low_since >= 17500:
                self.respond_until = now + 50000
            self.low_since = None

    def frame(self):
        """The five bytes of the reading that the sensor has ready."""
        now = self.now()
        if self.measured is None or now - self.measured >= 1000000:
            self.measured = now
            humidity = round(min(95, max(5, self.feel("humidity", 40))))
            temperature = round(min(60, max(-20, self.feel("temperature", 40))))
            sign = 0x80 if temperature < 0 else 0
            data = bytes([humidity, 0, abs(temperature), sign])
            if self.fault == "range":
                data = bytes([0xF0, 0, 0x7D, 0])
            elif self.fault == "zero":
                data = bytes(4)
            self.last = data + bytes([sum(data) & 0xFF])
        frame = self.last
        if self.fault == "checksum":
            frame = frame[:4] + bytes([(frame[4] + 1) & 0xFF])
        return frame

    def pulses(self, patience):
        """[(level, us)] of an answer; empty when the sensor says nothing. patience: us it may come late."""
        ready = self.low_since is None and self.now() <= self.respond_until + patience
        self.respond_until = -(10**18)
        if not ready or self.fault == "silent" or self.now() - self.powered < 900000:
            return []
        if self.fault == "low":
            return [(0, 0)]
        jitter = lambda us: us + random.randint(-2, 2)  # noqa: E731
        out = [(0, jitter(80)), (1, jitter(80))]
        bits = "".join(f"{byte:08b}" for byte in self.frame())
        if self.fault == "short":
            bits = bits[: -random.randint(1, 12)]
        for bit in bits:
            out += [(0, jitter(50)), (1, jitter(70 if bit == "1" else 26))]
        return [*out, (0, jitter(50)), (1, 0)]


class RegisterChip(Sensor):
    """A sensor on I2C that is read and written by the numbers of its registers."""

    pointer = 0  # the register that the next byte is read from

    def transfer(self, out, count):
        """One I2C transaction (write, then read): the bytes read, or None where nobody acknowledges."""
        if self.fault == "silent":
            return None
        if self.fault == "bus":
            return b"\xff" * count
        if self.fault == "zero":
            return bytes(count)
        if out:
            self.pointer = out[0]
            self.write(out[0], out[1:])
        return bytes(self.load(self.pointer + n) for n in range(count))

    def write(self, register, values):
        for offset, value in enumerate(values):
            self.store(register + offset, value)


class Bmp180(RegisterChip):
    """BMP180 on I2C address 0x77: registers of its data sheet (BST-BMP180-DS000-07), raw values by its formula.

    The calibration words are the data sheet's example.
    """

    FAULTS = ("silent", "bus", "zero", "stuck", "drift", "chip", "range")
    CALIBRATION = (408, -72, -14383, 32741, 32757, 23153, 6190, 4, -32768, -8711, 2868)

    def __init__(self, environment, now, sda=27, scl=19, **more):
        super().__init__(environment, now, **more)
        self.bus, self.address = (sda, scl), 0x77
        self.power_on()

    def power_on(self):
        self.reset()

    def reset(self):
        self.pointer = 0
        self.control = 0
        self.result = bytes([0x80, 0, 0])
        self.pending = None

    def compensate(self, ut, up, oss):
        """(temperature in 0.1 C, pressure in Pa) of raw values: the data sheet's integer formula."""
        ac1, ac2, ac3, ac4, ac5, ac6, b1, b2, _mb, mc, md = self.CALIBRATION
        x1 = (ut - ac6) * ac5 >> 15
        x2 = (mc << 11) // (x1 + md)
        b5 = x1 + x2
        temperature = (b5 + 8) >> 4
        b6 = b5 - 4000
        x1 = b2 * (b6 * b6 >> 12) >> 11
        b3 = (((ac1 * 4 + x1 + (ac2 * b6 >> 11)) << oss) + 2) // 4
        x1 = ac3 * b6 >> 13
        x2 = b1 * (b6 * b6 >> 12) >> 16
        b4 = ac4 * (((x1 + x2 + 2) >> 2) + 32768) >> 15
        b7 = (up - b3) * (50000 >> oss)
        p = (b7 * 2) // b4 if b7 < 0x80000000 else (b7 // b4) * 2
        x1 = (p >> 8) ** 2 * 3038 >> 16
        x2 = -7357 * p >> 16
        return temperature, p + ((x1 + x2 + 3791) >> 4)

    def raw_temperature(self, celsius):
        return 20000 + bisect_left(
            range(20000, 45000), round(celsius * 10), key=lambda raw: self.compensate(raw, 0, 0)[0]
        )

    def raw_pressure(self, pascal, ut, oss):
        return bisect_left(range((1 << (16 + oss)) - 1), pascal, key=lambda raw: self.compensate(ut, raw, oss)[1])

    def store(self, register, value):
        if register == 0xE0 and value == 0xB6:
            self.reset()
        elif register == 0xF4:
            self.control = value
            oss = value >> 6
            if value & 0x1F == 0x0E:
                self.pending = (self.now() + 4500, 0x2E, 0)
            elif value & 0x1F == 0x14:
                self.pending = (self.now() + (4500, 7500, 13500, 25500)[oss], 0x34, oss)

    def load(self, register):
        if self.pending and self.now() >= self.pending[0]:
            _when, kind, oss = self.pending
            self.pending = None
            ut = self.raw_temperature(self.feel("boardtemperature", 30))
            if kind == 0x2E:
                self.result = ut.to_bytes(2, "big") + b"\0"
            else:
                pascal = 20000 if self.fault == "range" else round(self.feel("pressure", 60) * 100)
                up = self.raw_pressure(pascal, ut, oss)
                self.result = (up << (8 - oss)).to_bytes(3, "big")
        if register == 0xD0:
            return 0x58 if self.fault == "chip" else 0x55
        if 0xAA <= register <= 0xBF:
            return struct.pack(">hhhHHHhhhhh", *self.CALIBRATION)[register - 0xAA]
        if register == 0xF4:
            return self.control & ~0x20 | (0x20 if self.pending else 0)
        if 0xF6 <= register <= 0xF8:
            return self.result[register - 0xF6]
        return 0


class Soil(Sensor):
    """Resistive soil probe with an analogue output, powered from a pin: millivolts after a settling time."""

    FAULTS = ("silent", "stuck", "drift", "open", "saturated", "noise")

    def __init__(self, environment, now, gpio=35, power=2, dry_mv=2800, wet_mv=1200, **more):
        super().__init__(environment, now, **more)
        self.gpio, self.power_gpio = gpio, power
        self.dry_mv, self.wet_mv = dry_mv, wet_mv
        self.powered_since = None

    def pin(self, gpio, driven, us):
        if gpio == self.power_gpio:
            self.power(driven == 1)

    def analogue(self, gpio):
        return self.millivolts() if gpio == self.gpio else None

    def power(self, on):
        if not on:
            self.powered_since = None
        elif self.powered_since is None:
            self.powered_since = self.now()

    def millivolts(self):
        if self.powered_since is None or self.fault in ("silent", "open"):
            return max(0, random.gauss(8, 4)) if self.fault == "open" else 0
        if self.fault == "saturated":
            return 3300
        settled = 1 - math.exp(-(self.now() - self.powered_since) / 60000)
        moisture = self.feel("moisture", -0.4)
        value = (self.dry_mv + (self.wet_mv - self.dry_mv) * moisture) * settled
        value += random.gauss(0, 400 if self.fault == "noise" else 4)
        if self.fault is None and random.random() < 0.02:
            value += random.choice((-1, 1)) * 300  # Wi-Fi transmits
        return min(3300, max(0, value))


class Bme280(RegisterChip):
    """BME280 on I2C: registers of its data sheet (BST-BME280-DS002), raw values by its formulas.

    The words of temperature and pressure are the example of the BMP280's data sheet, those of humidity a real chip's.
    """

    FAULTS = ("silent", "bus", "zero", "stuck", "drift", "chip", "range")
    T = (27504, 26435, -1000)
    P = (36477, -10685, 3024, 2855, 140, -7, 15500, -14600, 6000)
    H = (75, 370, 0, 313, 50, 30)
    NOTHING = bytes([0x80, 0, 0, 0x80, 0, 0, 0x80, 0])

    def __init__(self, environment, now, sda=27, scl=19, address=0x76, **more):
        super().__init__(environment, now, **more)
        self.bus, self.address = (sda, scl), address
        self.power_on()

    def power_on(self):
        self.pointer = 0
        self.result = self.NOTHING
        self.measures = 0  # of the settings: what was written, and counts from the next start of a measurement on
        self.control = 0
        self.ready_at = None

    def t_fine(self, raw):
        """The data sheet's formulas with floating point, the other way round from the drivers' integers."""
        first = (raw / 16384 - self.T[0] / 1024) * self.T[1]
        return first + (raw / 131072 - self.T[0] / 8192) ** 2 * self.T[2]

    def pascal(self, raw, t_fine):
        p = self.P
        first = t_fine / 2 - 64000
        second = first * first * p[5] / 32768 + first * p[4] * 2
        second = second / 4 + p[3] * 65536
        first = (1 + (p[2] * first * first / 524288 + p[1] * first) / 524288 / 32768) * p[0]
        value = (1048576 - raw - second / 4096) * 6250 / first
        return value + (p[8] * value * value / 2147483648 + value * p[7] / 32768 + p[6]) / 16

    def percent(self, raw, t_fine):
        h = self.H
        t = t_fine - 76800
        value = raw - (h[3] * 64 + h[4] / 16384 * t)
        value *= h[1] / 65536 * (1 + h[5] / 67108864 * t * (1 + h[2] / 67108864 * t))
        return value * (1 - h[0] * value / 524288)

    @staticmethod
    def raw(function, wanted, largest, falls=False):
        """The raw value of which a formula makes the wanted one."""
        sign = -1 if falls else 1
        return bisect_left(range(largest), sign * wanted, key=lambda raw: sign * function(raw))

    def measure(self):
        temperature = self.raw(lambda raw: self.t_fine(raw) / 5120, self.feel("boardtemperature", 30), 0xFFFFF)
        t_fine = self.t_fine(temperature)
        pascal = 20000 if self.fault == "range" else self.feel("pressure", 60) * 100
        pressure = self.raw(lambda raw: self.pascal(raw, t_fine), pascal, 0xFFFFF, falls=True)
        humidity = 0x8000
        if self.measures:
            wanted = min(100, max(0, self.feel("humidity", 40)))
            humidity = self.raw(lambda raw: self.percent(raw, t_fine), wanted, 0xFFFF)
        return (pressure << 4).to_bytes(3, "big") + (temperature << 4).to_bytes(3, "big") + humidity.to_bytes(2, "big")

    def write(self, register, values):
        if values:
            self.store(register, values[0])

    def store(self, register, value):
        if register == 0xE0 and value == 0xB6:
            self.power_on()
        elif register == 0xF2:
            self.control = value & 7
        elif register == 0xF4:
            self.measures = self.control
            if value & 3 and value >> 5 and value >> 2 & 7:
                self.ready_at = self.now() + 9300

    def load(self, register):
        if self.ready_at is not None and self.now() >= self.ready_at:
            self.ready_at = None
            self.result = self.measure()
        if register == 0xD0:
            return 0x58 if self.fault == "chip" else 0x60
        if 0x88 <= register <= 0xA1:
            words = struct.pack("<Hhh", *self.T) + struct.pack("<H8h", *self.P) + bytes([0, self.H[0]])
            return words[register - 0x88]
        if 0xE1 <= register <= 0xE7:
            _, h2, h3, h4, h5, h6 = self.H
            words = struct.pack("<hB", h2, h3) + bytes([h4 >> 4 & 0xFF, h4 & 0xF | (h5 & 0xF) << 4, h5 >> 4 & 0xFF])
            return (words + struct.pack("b", h6))[register - 0xE1]
        if register == 0xF3:
            return 0x08 if self.ready_at is not None else 0
        if 0xF7 <= register <= 0xFE:
            return self.result[register - 0xF7]
        return 0


class Sht31(Sensor):
    """SHT31 on I2C, after its data sheet (SHT3x-DIS): a command, then six bytes with two checksums."""

    FAULTS = ("silent", "bus", "checksum", "stuck", "drift", "range")

    def __init__(self, environment, now, sda=27, scl=19, address=0x44, **more):
        super().__init__(environment, now, **more)
        self.bus, self.address = (sda, scl), address
        self.ready_at = None

    def power_on(self):
        self.ready_at = None

    @staticmethod
    def word(value):
        """Two bytes and their CRC-8 (polynomial x^8 + x^5 + x^4 + 1, initial value 0xFF)."""
        data = round(min(65535, max(0, value))).to_bytes(2, "big")
        remainder = int.from_bytes(data, "big") ^ 0xFF00
        remainder <<= 8
        for bit in range(23, 7, -1):
            if remainder >> bit & 1:
                remainder ^= 0x131 << bit - 8
        return data + bytes([remainder & 0xFF])

    def transfer(self, out, count):
        """One I2C transaction (write, then read): the bytes read, or None where nobody acknowledges."""
        if self.fault == "silent":
            return None
        if out:
            self.ready_at = self.now() + 15500 if out == b"\x24\x00" else None
        if not count:
            return b""
        if self.fault == "bus":
            return b"\xff" * count
        if self.ready_at is None or self.now() < self.ready_at:
            return None  # it does not acknowledge its address for reading
        self.ready_at = None
        celsius = 140 if self.fault == "range" else self.feel("boardtemperature", 30)
        data = self.word((celsius + 45) / 175 * 65535) + self.word(self.feel("humidity", 40) / 100 * 65535)
        if self.fault == "checksum":
            data = data[:2] + bytes([data[2] ^ 1]) + data[3:]
        return data[:count]


class Ds18b20(Sensor):
    """DS18B20 on a wire with a resistor to 3V3, after its data sheet (Maxim 19-7487).

    address: without its last byte, the checksum. Its resolution is the one that the factory sets, 12 bits.
    """

    FAULTS = ("silent", "low", "checksum", "power", "parasite", "stuck", "drift", "range")
    CONFIGURATION = 0x7F
    CONVERSION_US = 750000

    def __init__(self, environment, now, gpio=13, address="28000000000001", **more):
        super().__init__(environment, now, **more)
        self.gpio = gpio
        address = bytes.fromhex(address)
        self.chip = onewire.Chip(address + bytes([onewire.checksum(address)]), self.function)
        self.power_on()

    @property
    def violations(self):
        return self.chip.violations

    def power_on(self):
        self.raw = 0x0550  # 85 C
        self.ready_at = None
        self.chip.power_on()

    def pin(self, gpio, driven, us):
        if gpio == self.gpio and self.fault != "silent":
            self.chip.edge(driven == 0, us)

    def level(self, gpio, us):
        if gpio != self.gpio:
            return None
        return 0 if self.fault == "low" else 1 if self.fault == "silent" else self.chip.level(us)

    def function(self, command):
        external = self.fault != "parasite"
        if command == 0x44:
            self.ready_at = self.now() + self.CONVERSION_US
            while True:
                yield lambda: int(not external or self.ready())
        elif command == 0xBE:
            yield from onewire.send(self.scratchpad())
        elif command == 0xB4:
            while True:
                yield lambda: int(external)
        else:
            self.chip.violated(f"command {command:#04x}")

    def ready(self):
        """Whether no conversion is under way; one that has ended becomes the temperature."""
        if self.ready_at is not None and self.now() >= self.ready_at:
            self.ready_at = None
            if self.fault != "power":  # its supply failed meanwhile
                celsius = 130 if self.fault == "range" else self.feel("temperature", 30)
                self.raw = round(min(130, max(-55, celsius)) * 16) & 0xFFFF
        return self.ready_at is None

    def scratchpad(self):
        self.ready()
        data = self.raw.to_bytes(2, "little") + bytes([0x4B, 0x46, self.CONFIGURATION, 0xFF, 0x0C, 0x10])
        data += bytes([onewire.checksum(data)])
        return bytes([data[0] ^ 1]) + data[1:] if self.fault == "checksum" else data


CHIPS = {"bme280": Bme280, "bmp180": Bmp180, "dht11": Dht11, "ds18b20": Ds18b20, "sht31": Sht31, "soil": Soil}
