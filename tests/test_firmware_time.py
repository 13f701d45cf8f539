"""Time on the device: local time of every zone of the world, the tick counter's wrap, and time servers that lie."""

from __future__ import annotations

import importlib.resources
import io
import itertools
import random
import zoneinfo
from datetime import UTC, datetime, timedelta

import pytest

from firmware import evaluate

NEAR = {"Africa/Ceuta", "America/Detroit", "Australia/Lord_Howe", "Europe/Dublin", "Europe/London", "Pacific/Chatham"}

ZONE = """
from tig.zone import Zone
result = []
for text, instants in data:
    zone = Zone(text)
    result.append([[zone.offset(at), zone.text(at)] for at in instants])
"""


def zones_of_the_world() -> dict[str, zoneinfo.ZoneInfo]:
    """POSIX TZ string -> a zone that has it, from the footers of the pinned time zone database."""
    root = importlib.resources.files("tzdata")
    found = {}
    for key in root.joinpath("zones").read_text().split():
        data = root.joinpath("zoneinfo", *key.split("/")).read_bytes()
        rule = data.rstrip(b"\n").rsplit(b"\n", 1)[-1].decode()
        if rule not in found:
            found[rule] = zoneinfo.ZoneInfo.from_file(io.BytesIO(data), key)
    return found


def instants(zone: zoneinfo.ZoneInfo, dice: random.Random, years: tuple[int, ...]) -> list[int]:
    """The seconds around every change of some years, leap days and year ends among them, and any others."""
    found = []
    for year in years:
        start = int(datetime(year, 1, 1, tzinfo=UTC).timestamp())
        days = [start + day * 86400 for day in range(-1, 367)]
        found += [
            start - 1,
            start,
            start + 59 * 86400,
            start + 366 * 86400 - 1,
            *(dice.choice(days) + 1 for _ in range(5)),
        ]
        for a, b in itertools.pairwise(days):
            if offset(zone, a) == offset(zone, b):
                continue
            while b - a > 1:
                middle = (a + b) // 2
                if offset(zone, middle) == offset(zone, b):
                    b = middle
                else:
                    a = middle
            found += [a - 1, a, b, b + 1]
    return found


def offset(zone, instant):
    return int(datetime.fromtimestamp(instant, zone).utcoffset().total_seconds())


def text(zone, instant):
    local = datetime.fromtimestamp(instant, zone)
    return " ".join(str(n) for n in local.timetuple()[:6])


def test_every_zone_of_the_world():
    dice = random.Random(1)
    cases = []
    for rule, zone in zones_of_the_world().items():
        # far enough for every zone to follow its rule (some have a list of exceptions until 2087); 2100 is not a leap year
        cases.append((rule, zone.key, zone, instants(zone, dice, (2092, 2096, 2100))))
        if zone.key in NEAR:
            cases.append((rule, zone.key, zone, instants(zone, dice, (2026, 2027, 2028))))
    assert len(cases) > 80
    assert {key for _, key, _, _ in cases} >= NEAR
    answers = evaluate(ZONE, [[rule, moments] for rule, _, _, moments in cases])
    for (rule, key, zone, moments), found in zip(cases, answers, strict=True):
        for moment, answer in zip(moments, found, strict=True):
            assert answer == [offset(zone, moment), text(zone, moment)], f"{key} {rule} {moment}"


def test_the_tutorials_moment():
    moment = int(datetime(2021, 7, 12, 14, 40, 39, tzinfo=zoneinfo.ZoneInfo("Europe/Stockholm")).timestamp())
    assert evaluate(ZONE, [["CET-1CEST,M3.5.0,M10.5.0/3", [moment]]]) == [[[7200, "2021 7 12 14 40 39"]]]


def test_forms_of_the_rule():
    """Julian days, days from zero, hours beyond a day, seconds, quoted names, summer time all year (RFC 8536)."""
    january, july = 1767225600, 1782864000  # 2026-01-01 and 2026-07-01, 00:00 UTC
    last_of_february_2028, march_2028 = 1835395200, 1835481600
    cases = [
        ["EST5EDT", [january, july], [-18000, -14400]],
        ["XXX3EDT4,0/0,J365/23", [january, january - 1, january + 10799, july], [-14400] * 4],
        ["<-03>3<-02>,M3.5.0/-2,M10.5.0/-1", [january, july], [-10800, -7200]],
        ["AAA0BBB,J60/0,J61/0", [last_of_february_2028, march_2028, march_2028 + 86399], [0, 3600, 0]],
        ["AAA0BBB,59/0,60/0", [last_of_february_2028, march_2028], [3600, 0]],
        ["LMT-1:12:12", [july], [4332]],
        ["IST-2IDT,M3.4.4/26,M10.5.0", [1774569600 - 1, 1774569600], [7200, 10800]],
    ]
    answers = evaluate(ZONE, [case[:2] for case in cases])
    for (rule, _, expected), found in zip(cases, answers, strict=True):
        assert [f[0] for f in found] == expected, rule


BAD_ZONES = [
    "",
    "CET",
    "1",
    "CE-1",
    "CET-1CEST,M3.5.0",
    "CET-1CEST,M13.1.0,M1.1.0",
    "CET-25",
    "CET-1 ",
    "Europe/Stockholm",
]


@pytest.mark.parametrize("rule", [*BAD_ZONES, "CET-1CEST,M3.5.0,M10.5.0/3x", "<+01-1", "CET-1CEST,J0,J1", "CET-1:60"])
def test_what_is_no_zone_is_refused(rule):
    code = "from tig.zone import Zone\ntry:\n    Zone(data)\nexcept ValueError as e:\n    result = str(e)\n"
    assert "not a POSIX time zone" in evaluate(code, rule)


def test_days_and_dates_over_four_centuries():
    start, end = datetime(1970, 1, 1).toordinal(), datetime(2401, 1, 1).toordinal()
    code = """
from tig import zone
result = [zone.civil(day) + (zone.days(*zone.civil(day)) == day,) for day in range(data[0], data[1], 7)]
"""
    for day, found in zip(range(0, end - start, 7), evaluate(code, [0, end - start]), strict=True):
        date = datetime.fromordinal(start + day)
        assert found == [date.year, date.month, date.day, True]


# --- the clock ---

CLOCK = """
from tig.clock import Clock
period = data["period"]
now = [data["start"] % period]
def diff(a, b):
    return (a - b + period // 2) % period - period // 2
clock = Clock(lambda: now[0], diff)
result = []
for passed, set_to in data["steps"]:
    now[0] = (now[0] + passed) % period
    uptime = clock.uptime()
    if set_to:
        clock.set(*set_to)
    result.append([uptime, clock.now()])
"""


@pytest.mark.parametrize("period", [2**30, 2**32])  # MicroPython's and Pycom's tick counters
def test_uptime_and_time_go_on_when_the_ticks_wrap(period):
    day = 86400_000
    steps = [[0, [1_700_000_000, 0]]] + [[day // 4 + 1, None]] * 300
    found = evaluate(CLOCK, {"period": period, "start": period - 5000, "steps": steps})
    assert found[-1] == [300 * (day // 4 + 1) // 1000, 1_700_000_000 + 300 * (day // 4 + 1) // 1000]


def test_no_time_before_it_is_known():
    assert evaluate(CLOCK, {"period": 2**30, "start": 0, "steps": [[0, None], [5000, None]]}) == [[0, None], [5, None]]


def test_fractions_of_a_second_are_kept():
    steps = [[900, [1_700_000_000, 400]], [599, None], [1, None], [1000, None]]
    found = evaluate(CLOCK, {"period": 2**30, "start": 0, "steps": steps})
    assert [f[1] for f in found] == [1_700_000_000, 1_700_000_000, 1_700_000_001, 1_700_000_002]


# --- the time server ---

SNTP = """
from tig import sntp
from binascii import unhexlify
result = []
for answer, cookie in data:
    try:
        result.append(sntp.decode(unhexlify(answer), unhexlify(cookie)))
    except sntp.NoTime as e:
        result.append(str(e))
"""
COOKIE = bytes(range(8))


def answer(seconds, first=0x24, stratum=2, cookie=COOKIE, fraction=0, length=48):
    message = bytearray(48)
    message[0:2] = bytes([first, stratum])
    message[24:32] = cookie
    message[40:48] = (seconds % 2**32).to_bytes(4, "big") + fraction.to_bytes(4, "big")
    return bytes(message[:length])


def ntp(*date):
    return int((datetime(*date, tzinfo=UTC) - datetime(1900, 1, 1, tzinfo=UTC)) / timedelta(seconds=1))


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (answer(ntp(2026, 7, 1)), [1782864000, 0]),
        (answer(ntp(2026, 7, 1), fraction=2**31), [1782864000, 500]),
        (answer(ntp(2026, 7, 1), fraction=2**32 - 1), [1782864000, 999]),
        (answer(ntp(2036, 2, 7, 6, 28, 15)), [2085978495, 0]),  # the last second of the first era
        (answer(ntp(2036, 2, 7, 6, 28, 16), fraction=2**31), [2085978496, 500]),
        (answer(ntp(2036, 2, 7, 6, 28, 17)), [2085978497, 0]),
        (answer(ntp(2060, 1, 1)), [2840140800, 0]),
        (answer(ntp(2024, 1, 1)), [1704067200, 0]),
        (answer(ntp(2100, 12, 31, 23, 59, 59)), [4133980799, 0]),
        (answer(0), "server has no time itself"),  # a transmit time that was never set, and is 2036 in the next era
        (answer(ntp(2026, 7, 1), first=0xE4), "server has no time itself"),  # leap indicator 3
        (answer(ntp(2026, 7, 1), stratum=0), "server has no time itself"),  # kiss of death
        (answer(ntp(2026, 7, 1), stratum=16), "server has no time itself"),
        (answer(ntp(2026, 7, 1), first=0x23), "not a server's answer"),
        (answer(ntp(2026, 7, 1), cookie=bytes(8)), "answer to another question"),
        (answer(ntp(2026, 7, 1), length=44), "short answer"),
        (answer(ntp(1970, 1, 1)), "server's time is not of 2024 to 2100"),
        (answer(ntp(2023, 12, 31, 23, 59, 59)), "server's time is not of 2024 to 2100"),
        (answer(ntp(2101, 1, 1)), "server's time is not of 2024 to 2100"),
        (answer(ntp(2104, 1, 1)), "server's time is not of 2024 to 2100"),
    ],
)
def test_an_answer_is_believed_only_where_it_is_one(message, expected):
    assert evaluate(SNTP, [[message.hex(), COOKIE.hex()]]) == [expected]


# --- without a time server ---

UNTIMED = """
import time
now = 0
time.ticks_ms = lambda: now & 0x3FFFFFFF  # as MicroPython for the ESP32 counts
time.ticks_diff = lambda a, b: (a - b + 0x20000000 & 0x3FFFFFFF) - 0x20000000
from tig import link, log, sntp
from tig.clock import Clock
from tig.ring import Ring
from tig.status import Status

def ask(*_):
    raise sntp.NoTime("no answer")

class Board:
    def uid(self):
        return "240ac4010203"

class Wifi:
    def step(self):
        return True

class Sampler:
    failed = []

class Client:
    # a broker that never goes away
    ready = False
    pending = False
    def connect(self, address):
        pass
    def publish(self, topic, message, retain, again):
        self.pending = True
        if topic == "tig/node/reading":
            sent.append(now // 3600000)
    def step(self):
        arrived = self.ready and self.pending
        self.ready = True
        self.pending = False
        return arrived

sntp.ask = ask
log.say = lambda what: None
sent = []
settings = {
    "name": "node",
    "topic": "tig/node",
    "interval": 3600,
    "send_delay": 0,
    "broker": {"host": "127.0.0.1", "port": 1883, "user": "", "password": "", "keepalive": 60},
    "time": {"server": "127.0.0.1", "port": 123},
}
clock = Clock(time.ticks_ms, time.ticks_diff)
ring = Ring(500, 1)
status = Status("a", "power_on", clock, ring, Sampler(), 0)
way = link.Link(settings, Board(), Wifi(), clock, ring, status, lambda values, utc: b"reading")
way._connection._client = Client()
for hour in range(data * 24):
    now = hour * 3600000
    ring.push(clock.uptime(), None, [hour])
    for turn in range(10):
        way.step(60000)
        now += 100
result = sent
"""


def test_readings_without_a_time_go_on_however_long_the_connection_lasts():
    """A fortnight on one connection: longer than a difference of ticks can tell (6.2 days), and than their wrap."""
    assert evaluate(UNTIMED, 14) == list(range(1, 14 * 24))  # the very first waits: the time may come yet
