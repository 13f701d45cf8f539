"""The sensor drivers under a real MicroPython: the data sheets' vectors, and every way in which a sensor can lie."""

from __future__ import annotations

import random
import struct
import textwrap

import pytest
from virtual_lopy4.sensors import Bme280, Environment

from firmware import evaluate

# --- DHT11 ---


def train(frame, release=25, response=80, zero=27, one=70, end=True):
    """Pulses as Pycom's recorder gives them: (level, microseconds)."""
    pulses = [(1, release), (0, 80), (1, response)] if response else []
    for byte in frame:
        for bit in range(8):
            pulses += [(0, 50), (1, one if byte & 0x80 >> bit else zero)]
    return pulses + [(0, 54), (1, 0)] if end else pulses  # noqa: RUF005


def frame(humidity, temperature, decimal=0):
    body = [humidity, 0, temperature, decimal]
    return [*body, sum(body) & 0xFF]


DHT = """
from tig import pulses
from tig.drivers import SensorError, dht11
result = []
for item in data:
    try:
        result.append(dht11.decode(pulses.decode(item)))
    except SensorError as e:
        result.append(str(e))
"""

GOOD = frame(53, 25)
DHT_CASES = {
    "data sheet": (train(frame(53, 24)), [53, 24]),
    "without release and response": (train(GOOD, response=0), [53, 25]),
    "release too short to be recorded": (train(GOOD)[2:], [53, 25]),
    "release glitch": ([(1, 3), *train(GOOD)], [53, 25]),
    "slow sensor": (train(GOOD, zero=30, one=76), [53, 25]),
    "fast sensor": (train(GOOD, zero=22, one=62), [53, 25]),
    "tenths": (train(frame(40, 21, 7)), [40, 21.7]),
    "below zero": (train(frame(80, 5, 0x80 | 3)), [80, -5.3]),
    "no answer": ([], "no answer"),
    "line stuck low": ([(0, 65535)], "no answer"),
    "line stuck high": ([(1, 0)], "no answer"),
    "bit lost": (train(GOOD, response=0)[2:], "37 of 40 bits"),
    "stops half-way": (train(GOOD)[:40], "18 of 40 bits"),
    "extra pulse": ([*train(GOOD)[:20], (0, 50), (1, 27), *train(GOOD)[20:]], "41 of 40 bits"),
    "checksum": (train([53, 0, 25, 0, 79]), "checksum"),
    "bit turned": (train([53 ^ 8, 0, 25, 0, 78]), "checksum"),
    "all bits shifted by a lost first one": (train(GOOD)[:3] + train(GOOD)[5:], "checksum"),
}


def test_dht11_decoding():
    answers = evaluate(DHT, [case[0] for case in DHT_CASES.values()])
    for (name, (_, expected)), answer in zip(DHT_CASES.items(), answers, strict=True):
        assert answer == expected, name


def test_dht11_any_single_lost_or_doubled_pulse_is_an_error_or_harmless():
    """Whatever one edge is missed: never another value than the true one."""
    whole = train(GOOD)
    cases = [whole[:i] + whole[i + 1 :] for i in range(len(whole))]
    cases += [whole[:i] + whole[i + 2 :] for i in range(len(whole) - 1)]
    cases += [[*whole[:i], whole[i], *whole[i:]] for i in range(len(whole))]
    sampled = evaluate(DHT, cases)
    wrong = [a for a in sampled if not isinstance(a, str) and a != [53, 25] and 5 <= a[0] <= 95]
    assert not wrong


CAL = [408, -72, -14383, 32741, 32757, 23153, 6190, 4, -32768, -8711, 2868]

SAMPLE = """
import struct
import time
CAL = [408, -72, -14383, 32741, 32757, 23153, 6190, 4, -32768, -8711, 2868]
time.sleep_ms = lambda ms: None
from tig.sampling import Sampler
from tig.settings import SettingsError

class Bus:
    # The BMP180 of the data sheet; `fault` breaks it.
    def __init__(self, fault, oss):
        self.fault = fault
        self.oss = oss
        self.reads = 0
        self.command = 0

    def readfrom_mem(self, address, register, length):
        fault = self.fault
        if fault == "absent":
            raise OSError("I2C bus error")
        if fault in ("low", "high"):
            return bytes(length) if fault == "low" else b"\\xff" * length
        if register == 0xD0:
            self.reads += 1
            return b"\\x58" if fault == "bmp280" else b"\\xff" if fault == "later" and self.reads > 2 else b"\\x55"
        if register == 0xAA:
            cal = bytearray(22)
            struct.pack_into(">hhhHHHhhhhh", cal, 0, *CAL)
            if fault and fault.startswith("word"):
                index = int(fault[5:])
                cal[index * 2 : index * 2 + 2] = b"\\x00\\x00" if fault[4] == "0" else b"\\xff\\xff"
            return bytes(cal)
        if register == 0xF4:
            return bytes([self.command & 0x1F | (0x20 if fault == "busy" else 0)])
        if self.command == 0x2E:
            if fault == "hot":
                return (45000).to_bytes(2, "big")
            return b"\\x00\\x00" if fault == "ut0" else b"\\xff\\xff" if fault == "utf" else (27898).to_bytes(2, "big")
        if fault == "up0":
            return bytes(3)
        if fault == "upf":
            return b"\\xff\\xff\\xff"
        return ((43000 if fault == "low pressure" else 23843) << 8).to_bytes(3, "big")

    def writeto_mem(self, address, register, what):
        assert address == 0x77 and register == 0xF4
        self.command = what[0]

class Board:
    def __init__(self, test):
        self.test = test
        self.power = 0
        self.powered = []
    def dht(self, pin):
        frame = self.test.get("frame")
        if frame is None:
            raise OSError(110)
        return bytes(frame)
    def i2c(self, sda, scl, frequency):
        assert (sda, scl) == ("P6", "P7")
        return Bus(self.test.get("fault"), 0)
    def output(self, pin):
        def drive(level):
            self.power = level
            self.powered.append(level)
        return drive
    def adc(self, pin):
        values = iter(self.test["mv"])
        def read():
            mv = next(values)
            if mv is None:
                raise OSError("adc")
            return mv if self.power else 0
        return read

result = []
for test in data:
    board = Board(test)
    sampler = Sampler(board, test["sensors"])
    for _ in range(test.get("times", 1)):
        values = sampler.sample()
    result.append([values, sampler.failed, board.powered])
"""

DHT11 = {"driver": "dht11", "pin": "P11", "fields": {"humidity": "h", "temperature": "t"}}
BMP180 = {"driver": "bmp180", "oversampling": 0, "fields": {"pressure": "p", "temperature": "t2", "altitude": "alt"}}
SOIL = {"driver": "soil", "pin": "P17", "power": "P8", "dry_mv": 2800, "wet_mv": 1200, "fields": {"moisture": "m"}}


def sample(*tests):
    return evaluate(SAMPLE, [{"sensors": [DHT11], **test} for test in tests])


def test_dht11_values_that_it_cannot_say_are_left_out():
    good = sample({"frame": frame(53, 25)})[0]
    assert good[:2] == [[53, 25], []]
    # An all-zero frame has a right checksum: its temperature is no more to be believed than its humidity.
    for bad in ([0, 0, 0, 0, 0], [255, 255, 255, 255, 252], None, [53, 0, 25, 0, 0]):
        assert sample({"frame": bad})[0][:2] == [[None, None], ["dht11"]], bad
    # One that is out of range says nothing against the other.
    assert sample({"frame": frame(120, 25)})[0][:2] == [[None, 25], ["dht11"]]
    assert sample({"frame": frame(53, 90)})[0][:2] == [[53, None], ["dht11"]]


# --- BMP180 ---

COMPENSATE = """
from tig.drivers import bmp180
result = [bmp180.compensate(*item) for item in data]
"""


def c_divide(a, b):
    return int(a / b) if abs(a) < 2**52 else (abs(a) // abs(b)) * (1 if (a < 0) == (b < 0) else -1)


def reference(cal, ut, up, oss):
    """The data sheet's algorithm as its C code computes it (truncating division)."""
    ac1, ac2, ac3, ac4, ac5, ac6, b1, b2, _mb, mc, md = cal
    x1 = c_divide((ut - ac6) * ac5, 2**15)
    x2 = c_divide(mc * 2**11, x1 + md)
    b5 = x1 + x2
    temperature = c_divide(b5 + 8, 2**4)
    b6 = b5 - 4000
    x1 = c_divide(b2 * c_divide(b6 * b6, 2**12), 2**11)
    x2 = c_divide(ac2 * b6, 2**11)
    b3 = c_divide(((ac1 * 4 + x1 + x2) << oss) + 2, 4)
    x1 = c_divide(ac3 * b6, 2**13)
    x2 = c_divide(b1 * c_divide(b6 * b6, 2**12), 2**16)
    b4 = c_divide(ac4 * (c_divide(x1 + x2 + 2, 4) + 32768), 2**15)
    b7 = (up - b3) * (50000 >> oss)
    p = c_divide(b7 * 2, b4) if b7 < 0x80000000 else c_divide(b7, b4) * 2
    x1 = c_divide(p, 2**8) ** 2
    x1 = c_divide(x1 * 3038, 2**16)
    x2 = c_divide(-7357 * p, 2**16)
    return temperature, p + c_divide(x1 + x2 + 3791, 2**4)


def test_bmp180_data_sheet():
    assert evaluate(COMPENSATE, [[CAL, 27898, 23843, 0]]) == [[150, 69964]]


@pytest.mark.parametrize("oss", [0, 1, 2, 3])
def test_bmp180_oversampling_means_the_same_pressure(oss):
    [[temperature, pressure]] = evaluate(COMPENSATE, [[CAL, 27898, 23843 << oss, oss]])
    assert temperature == 150
    assert abs(pressure - 69964) <= 2


def test_bmp180_agrees_with_the_data_sheets_c_code():
    dice = random.Random(180)
    cases = []
    while len(cases) < 300:
        oss = dice.randrange(4)
        cal = [c + dice.randint(-20, 20) for c in CAL]
        cal[3], cal[4], cal[8] = min(cal[3], 65535), min(cal[4], 65535), -32768
        case = [cal, dice.randint(23000, 32000), dice.randint(18000, 42000) << oss, oss]
        if 30000 <= reference(*case)[1] <= 110000:
            cases.append(case)
    for case, (temperature, pressure) in zip(cases, evaluate(COMPENSATE, cases), strict=True):
        wanted = reference(*case)
        assert abs(temperature - wanted[0]) <= 1, case
        assert abs(pressure - wanted[1]) <= 8, case  # rounding; the sensor resolves 6 Pa


def test_bmp180_reading():
    values, failed, _ = sample({"sensors": [BMP180]})[0]
    # fields in the order of their quantities: altitude, pressure, temperature
    assert values == [pytest.approx(3016.6, abs=0.2), 699.64, 15]
    assert failed == []


FAULTS = ["absent", "low", "high", "bmp280", "busy", "ut0", "utf", "up0", "upf"]
FAULTS += [f"word{kind}{index}" for kind in "0f" for index in (0, 3, 10)]


def test_bmp180_bus_faults_leave_the_fields_out():
    for fault, answer in zip(FAULTS, sample(*({"sensors": [BMP180], "fault": f} for f in FAULTS)), strict=True):
        assert answer[:2] == [[None, None, None], ["bmp180"]], fault


def test_bmp180_a_pressure_out_of_range_leaves_the_temperature_and_a_temperature_takes_what_is_worked_out_from_it_along():
    pressure, temperature = sample(
        {"sensors": [BMP180], "fault": "low pressure"}, {"sensors": [BMP180], "fault": "hot"}
    )
    assert pressure[:2] == [[None, None, 15], ["bmp180"]]
    assert temperature[:2] == [[None, None, None], ["bmp180"]]


def test_bmp180_that_fails_later_is_noticed():
    assert sample({"sensors": [BMP180], "fault": "later", "times": 2})[0][:2] == [[None, None, None], ["bmp180"]]


def test_one_sensor_that_fails_does_not_take_the_others_along():
    answer = sample({"sensors": [DHT11, BMP180, SOIL], "fault": "absent", "frame": frame(53, 25), "mv": [2000] * 12})[0]
    assert answer[:2] == [[53, 25, None, None, None, 0.5], ["bmp180"]]


TWO = """
from tig.board import board
from tig.sampling import Sampler
sampler = Sampler(board, data)
first = sampler.sample()
result = [first, sampler.sample(), sampler.failed]
"""

# The second one is where there is more of it.
WIRING = {"second": {"chip": "bmp180", "sda": 12, "scl": 13, "offsets": {"pressure": 30}}}
FIRST = pytest.approx(699.64, abs=0.1)
SECOND = pytest.approx(729.64, abs=0.1)


@pytest.mark.parametrize("profile", ["pycom", "mainline"])
def test_two_bmp180s_have_a_controller_each(profile):
    """A BMP180's address is fixed: a second one is on pins of its own, and neither says what the other one measures."""
    second = {**BMP180, "sda": "P9", "scl": "P10", "fields": {"pressure": "p2"}}
    first = {**BMP180, "fields": {"pressure": "p"}}
    expected = [FIRST, SECOND]
    assert evaluate(TWO, [first, second], profile, speed=0, wiring=WIRING) == [expected, expected, []]


@pytest.mark.parametrize("profile", ["pycom", "mainline"])
def test_a_third_pair_of_pins_for_i2c_is_refused_and_harms_nobody(profile):
    pairs = (("P6", "P7"), ("P9", "P10"), ("P21", "P22"))
    sensors = [{**BMP180, "sda": sda, "scl": scl, "fields": {"pressure": sda}} for sda, scl in pairs]
    code = "from tig import log\nsaid = []\nlog.say = said.append\n" + TWO + "result.append(said)\n"
    *answers, failed, said = evaluate(code, sensors, profile, speed=0, wiring=WIRING)
    assert failed == ["bmp180-3"]
    for answer in answers:
        assert answer == [FIRST, SECOND, None]
    assert said == ["sensor bmp180-3: SDA P21 and SCL P22: the two I2C controllers have other pins"]


# --- BME280 and SHT31 ---

BME = """
from tig.drivers import bme280
result = []
for low, high, temperature, pressure, humidity in data:
    cal = bme280.Calibration(bytes(low), bytes(high))
    t_fine = bme280.fine(cal, temperature)
    answer = [bme280.celsius(t_fine), bme280.pascal256(cal, t_fine, pressure)]
    result.append(answer + [bme280.percent1024(cal, t_fine, humidity)])
"""


def bme280_calibration(t, p, h) -> tuple[list[int], list[int]]:
    """The registers 0x88 to 0xA1 and 0xE1 to 0xE7 of calibration words."""
    low = struct.pack("<Hhh", *t) + struct.pack("<H8h", *p) + bytes([0, h[0]])
    shared = h[3] & 0xF | (h[4] & 0xF) << 4
    high = struct.pack("<hBbBbb", h[1], h[2], h[3] >> 4, shared, h[4] >> 4, h[5])
    return list(low), list(high)


def test_bme280_data_sheet():
    """Temperature and pressure: the example that the BMP280's data sheet has for the same formulas."""
    low, high = bme280_calibration(Bme280.T, Bme280.P, Bme280.H)
    [[celsius, pascal256, _]] = evaluate(BME, [[low, high, 519888, 415148, 0]])
    assert celsius == 25.08
    assert pascal256 / 256 == pytest.approx(100653.27, abs=0.05)


def test_bme280_agrees_with_the_data_sheets_floating_point_formulas():
    dice = random.Random(280)
    cases, wanted = [], []
    while len(cases) < 200:
        chip = Bme280(Environment(lambda: 0), lambda: 0)
        chip.T = tuple(word + dice.randint(-50, 50) for word in chip.T)
        chip.P = tuple(word + dice.randint(-50, 50) for word in chip.P)
        chip.H = (
            dice.randrange(60, 90),
            *(
                dice.randint(300, 400),
                dice.randrange(3),
                dice.randint(250, 350),
                dice.randint(-60, 60),
                dice.randint(0, 60),
            ),
        )
        temperature, pressure = dice.randint(400000, 600000), dice.randint(250000, 600000)
        humidity = dice.randint(20000, 45000)
        t_fine = chip.t_fine(temperature)
        answer = [t_fine / 5120, chip.pascal(pressure, t_fine), chip.percent(humidity, t_fine)]
        if 30000 <= answer[1] <= 110000 and 0 <= answer[2] <= 100:
            cases.append([*bme280_calibration(chip.T, chip.P, chip.H), temperature, pressure, humidity])
            wanted.append(answer)
    for case, found, (celsius, pascal, percent) in zip(cases, evaluate(BME, cases), wanted, strict=True):
        assert found[0] == pytest.approx(celsius, abs=0.011), case
        assert found[1] / 256 == pytest.approx(pascal, abs=1), case
        assert found[2] / 1024 == pytest.approx(percent, abs=0.05), case


CHECKSUM = """
from tig.drivers import sht31
result = sht31.checksum(b"\\xbe\\xef")
"""


def test_sht31_checksum_of_the_data_sheet():
    assert evaluate(CHECKSUM) == 0x92


# Three chips on one bus, each at an address of its own, and at places that differ.
ON_ONE_BUS = {
    "bme": {"chip": "bme280", "address": 0x76},
    "bme-2": {"chip": "bme280", "address": 0x77, "offsets": {"boardtemperature": 5, "humidity": -20, "pressure": 20}},
    "sht": {"chip": "sht31", "address": 0x45, "offsets": {"boardtemperature": -30, "humidity": 30}},
    "bmp180": {"sda": 12, "scl": 13},  # out of the way of the second one
}
BME280 = {"driver": "bme280", "fields": {"pressure": "p", "humidity": "h", "temperature": "t"}}
BME280_2 = {"driver": "bme280", "address": 0x77, "fields": {"pressure": "p2", "humidity": "h2", "temperature": "t2"}}
SHT31 = {"driver": "sht31", "address": 0x45, "fields": {"humidity": "h3", "temperature": "t3"}}
FELT = {"bme280": [53, 699.64, 15], "bme280-2": [33, 719.64, 20], "sht31": [83, -15]}


def near(values):
    return [pytest.approx(value, abs=0.1) for value in values]


@pytest.mark.parametrize("profile", ["pycom", "mainline"])
def test_several_chips_share_a_bus_by_their_addresses(profile):
    first, second, failed = evaluate(TWO, [BME280, BME280_2, SHT31], profile, speed=0, wiring=ON_ONE_BUS)
    assert failed == []
    assert first == second == near([*FELT["bme280"], *FELT["bme280-2"], *FELT["sht31"]])


FAULTY = """
import _hardware
from tig.board import board
from tig.sampling import Sampler
sensors, names, faults = data
sampler = Sampler(board, sensors)
sampler.sample()
result = []
for fault in faults:
    for name in names:
        _hardware.call("control", "sensor", {"name": name, "fault": fault})
    result.append([sampler.sample(), sampler.failed])
"""


@pytest.mark.parametrize(
    ("sensor", "chip", "faults"),
    [
        (BME280, "bme", {"silent": 0, "bus": 0, "zero": 0, "chip": 0}),
        (BME280, "bme", {"range": [53, None, 15]}),  # of the pressure: the others are as good as before
        (SHT31, "sht", {"silent": 0, "bus": 0, "checksum": 0}),
        (SHT31, "sht", {"range": [83, None]}),
    ],
)
@pytest.mark.parametrize("profile", ["pycom", "mainline"])
def test_a_fault_of_a_chip_leaves_its_fields_out_and_it_comes_back(profile, sensor, chip, faults):
    driver = sensor["driver"]
    answers = evaluate(FAULTY, [[sensor], [chip], [*faults, "none"]], profile, speed=0, wiring=ON_ONE_BUS)
    *broken, (values, failed) = answers
    assert (values, failed) == (near(FELT[driver]), [])
    for (fault, left), (values, failed) in zip(faults.items(), broken, strict=True):
        expected = [None if v is None else pytest.approx(v, abs=0.1) for v in left or [None] * len(sensor["fields"])]
        assert (values, failed) == (expected, [driver]), fault


# --- soil ---


def soil(mv, **more):
    return sample({"sensors": [{**SOIL, **more}], "mv": mv})[0]


def test_soil_two_points():
    assert soil([1200] * 12)[0] == [1]
    assert soil([2800] * 12)[0] == [0]
    assert soil([1680] * 12)[0] == [pytest.approx(0.7)]
    # a probe whose voltage rises with water
    assert soil([1680] * 12, dry_mv=1200, wet_mv=2800)[0] == [pytest.approx(0.3)]


def test_soil_is_the_median_without_the_first():
    assert soil([3300, *[2000] * 6, 0, 0, 3300, 3300, 2000])[:2] == [[0.5], []]


def test_soil_a_little_outside_is_clamped_and_far_outside_is_flagged():
    assert soil([3000] * 12)[:2] == [[0], []]
    assert soil([1000] * 12)[:2] == [[1], []]
    assert soil([3150] * 12)[:2] == [[None], ["soil"]]  # in the air
    assert soil([0] * 12)[:2] == [[None], ["soil"]]  # shorted
    assert soil([1600, 2400, *[1200, 2700] * 5])[:2] == [[None], ["soil"]]  # nothing connected


@pytest.mark.parametrize(("dry_mv", "wet_mv"), [(3000, 400), (400, 3000)])
def test_soil_that_the_converter_cannot_tell_is_a_fault_however_wide_the_calibration(dry_mv, wet_mv):
    fields = {"moisture": "m", "millivolts": "mv"}
    for mv in (0, 40, 99, 3101, 3150, 3300):  # a wire off, a short, a probe beyond the converter's end
        assert soil([mv] * 12, dry_mv=dry_mv, wet_mv=wet_mv, fields=fields)[:2] == [[mv, None], ["soil"]], mv
    for mv in (150, 3100):
        assert soil([mv] * 12, dry_mv=dry_mv, wet_mv=wet_mv)[1] == [], mv


def test_soil_millivolts_are_sent_even_outside_the_calibration():
    """They are what a user calibrates with."""
    fields = {"moisture": "m", "millivolts": "mv"}
    assert soil([3150] * 12, fields=fields)[:2] == [[3150, None], ["soil"]]


def test_soil_power_is_on_only_while_sampling():
    assert soil([2000] * 12)[2] == [0, 1, 0]
    assert soil([2000, 2000, None])[2] == [0, 1, 0]


# --- drivers of one's own ---

STEADY = """
QUANTITIES = {"a": (0, 10, 0), "b": (-5, 5, 1)}
class Sensor:
    def __init__(self, board, config):
        pass
    def read(self):
        return {"a": 3, "b": 0.5}
"""
READ = 'return {"a": 3, "b": 0.5}'
OWN = """
from tig import log
from tig.sampling import Sampler
result = []
for number in range(data):
    said = []
    log.say = said.append
    sampler = Sampler(None, [
        {"driver": "own%d" % number, "fields": {"a": "a", "b": "b"}},
        {"driver": "steady", "fields": {"a": "steady"}},
    ])
    sampler.sample()
    result.append([sampler.sample(), sampler.failed, said])
"""
LOST = [None, None]
# What a driver does; the values of a and b that are sent; what the console says of it.
OWN_CASES = {
    "no module": ("import nowhere\n" + STEADY, LOST, "ImportError: no module named 'nowhere'"),
    "no syntax": ("def read(:\n", LOST, "SyntaxError: invalid syntax"),
    "raises when it is imported": ("raise MemoryError('at import')\n" + STEADY, LOST, "MemoryError: at import"),
    "exits when it is imported": ("import sys\nsys.exit(3)\n" + STEADY, LOST, "SystemExit: 3"),
    "no quantities": ("class Sensor:\n    pass\n", LOST, "AttributeError: "),
    "no decimals": (STEADY.replace(", 1)", ")"), LOST, "ValueError: "),
    "no class": ('QUANTITIES = {"a": (0, 10, 0), "b": (-5, 5, 1)}\n', LOST, "AttributeError: "),
    **{
        f"raises {what} in {where}": (STEADY.replace(line, f"raise {what}"), LOST, said)
        for what, said in {
            "ZeroDivisionError('by nothing')": "ZeroDivisionError: by nothing",
            "MemoryError": "MemoryError: ",
            "SystemExit": "SystemExit: ",
            "OSError(5)": "OSError: ",
            "StopIteration": "StopIteration: ",
            "GeneratorExit": "GeneratorExit: ",
            "type('Own', (Exception,), {})('mine')": "Own: mine",
            "type('Own', (BaseException,), {})('mine')": "Own: mine",
            "__import__('tig.drivers').drivers.SensorError": "SensorError: ",
            "__import__('tig.drivers').drivers.SensorError('silent')": "silent",
            "'a text'": "TypeError: ",
        }.items()
        for where, line in {"__init__": "pass", "read": READ}.items()
    },
    **{
        f"returns {what}": (STEADY.replace(READ, f"return {what}"), sent, said)
        for what, sent, said in (
            ("None", LOST, "says NoneType instead of its quantities"),
            ("'21.5'", LOST, "says str instead of its quantities"),
            ("3", LOST, "says int instead of its quantities"),
            ("[3, 0.5]", LOST, "says list instead of its quantities"),
            ("{}", LOST, "no a, no b"),
            ("{'a': 3}", [3, None], "no b"),
            ("{'a': 3, 'b': None}", [3, None], "no b"),
            ("{'a': '3', 'b': 0.5}", [None, 0.5], "a is not a number"),
            ("{'a': True, 'b': 0.5}", [None, 0.5], "a is not a number"),
            ("{'a': [3], 'b': 1j}", LOST, "a is not a number, b is not a number"),
            ("{'a': 3, 'b': 0.5, 'c': 1}", [3, 0.5], "undeclared quantity c"),
            ("{'a': 3, 'b': 0.5, 7: 1}", [3, 0.5], "undeclared quantity 7"),
            ("{'a': 11, 'b': 0.5}", [None, 0.5], "a out of range"),
            ("{'a': 3, 'b': -5.1}", [3, None], "b out of range"),
            ("{'a': float('nan'), 'b': float('-inf')}", LOST, "a out of range, b out of range"),
            ("{'a': 10 ** 30, 'b': 0.5}", [None, 0.5], "a out of range"),
        )
    },
}


def test_whatever_a_driver_does_it_is_named_and_the_others_are_sent():
    drivers = {f"own{number}": text for number, (text, _, _) in enumerate(OWN_CASES.values())}
    answers = evaluate(OWN, len(drivers), drivers={"steady": STEADY, **drivers})
    for (name, (_, sent, said)), (number, answer) in zip(OWN_CASES.items(), enumerate(answers), strict=True):
        values, failed, lines = answer
        assert values == [*sent, 3], name
        assert failed == [f"own{number}"], name
        assert len(lines) == 1, name  # once, not at every reading
        assert lines[0].startswith(f"sensor own{number}: {said}"), lines


def test_ctrl_c_in_a_driver_ends_the_program():
    code = f"try:\n{textwrap.indent(OWN, '    ')}\nexcept KeyboardInterrupt:\n    result = 'stopped'\n"
    own = STEADY.replace(READ, "raise KeyboardInterrupt")
    assert evaluate(code, 1, drivers={"steady": STEADY, "own0": own}) == "stopped"


# --- settings of the sensors ---


@pytest.mark.parametrize(
    ("sensor", "words"),
    [
        ({**DHT11, "fields": {"wind": "w"}}, "dht11 has no quantity wind"),
        ({**DHT11, "fields": {"humidity": "x", "temperature": "x"}}, "x is measured twice"),
    ],
)
def test_a_sensor_that_makes_no_sense_is_named(sensor, words):
    code = SAMPLE.replace("for test in data:", "for test in []:") + (
        "try:\n    Sampler(Board({}), data)\nexcept SettingsError as e:\n    result = str(e)\n"
    )
    assert words in evaluate(code, [sensor])


def test_two_sensors_of_a_kind_have_two_names():
    second = {**DHT11, "fields": {"humidity": "h2"}}
    assert sample({"sensors": [DHT11, second]})[0][1] == ["dht11", "dht11-2"]
