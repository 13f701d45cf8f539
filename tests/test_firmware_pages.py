"""The readings in the node's flash: what a loss of power leaves, and what ten years of writing do to the flash."""

from __future__ import annotations

import pytest
from firmware.network import until
from flash_bench import CUTS, on_flash
from lopy4_bench import power_on
from test_firmware_device import Site
from test_firmware_replay import Operator

from firmware import evaluate

# --- part by part, on a file system that does not matter

PAGES = """
import os
from tig import handover, log
from tig.pages import Pages
from tig.ring import Ring

said = []
log.say = said.append


class Life:
    # From one loss of power to the next.
    def __init__(self, fields=("a", "b"), capacity=2000, gap=35):
        self.pages = Pages(fields, capacity, gap)
        self.ring = Ring(capacity, len(fields), gap)
        self.ring.attach(self.pages)

    def make(self, count, start, step=15, time=True):
        for number in range(count):
            at = start + number * step
            self.ring.push(at, at if time else None, [at % 1000] + [None] * (len(self.pages._page.fields) - 1))

    def deliver(self, count):
        for _ in range(count):
            self.ring.remove(self.ring.first)

    def waiting(self):
        ring = self.ring
        return [[ring.time(n), ring.values(n)[0]] for n in range(ring.first, ring.end) if not ring.gone(n)]

    def kept(self):
        ring = self.ring
        return [ring.time(n) for n in range(ring.begin, ring.end) if ring.time(n)]

    def save(self):
        self.ring.store()
        return self


"""


@pytest.fixture(params=["pycom", "mainline"])
def run(request):
    return lambda code: evaluate(PAGES + code, None, request.param)


def test_readings_that_waited_wait_again_after_a_loss_of_power(run):
    found = run("""
life = Life()
life.make(40, 1000)
life.deliver(10)
life.save()
life.make(5, 1600)  # too late
again = Life()
result = [again.waiting(), again.ring.kept, again.kept(), again.ring.since(), again.ring.dropped, said]
""")
    times = [1000 + 15 * number for number in range(40)]
    assert found == [[[time, time % 1000] for time in times[10:]], 40, times, 1000, 0, []]


def test_what_was_delivered_after_the_last_write_is_sent_again_at_most(run):
    found = run("""
life = Life()
life.make(40, 1000)
life.save()
life.deliver(40)
life.make(1, 1600)
life.save()
life.deliver(1)
again = Life()
again.make(2, 2000)
again.save()
result = [again.waiting(), Life().kept()]
""")
    assert found[0] == [[1600, 600], [2000, 0], [2015, 15]]
    assert found[1] == [*range(1000, 1601, 15), 2000, 2015]


def test_delivered_readings_are_found_that_have_left_the_memory(run):
    found = run("""
life = Life(capacity=2000)
for number in range(20):
    life.make(40, 1000 + number * 600)
    life.deliver(40)
    life.save()
again = Life()
again.make(3, 13000)
ring = again.ring
result = [again.kept(), ring.kept, ring.end - ring.oldest, ring.since(), ring.gaps()]
""")
    assert found == [[*range(1000, 13000, 15), 13000, 13015, 13030], 803, 3, 1000, []]


def test_the_oldest_page_makes_room(run):
    found = run("""
life = Life(capacity=600)
for number in range(100):
    life.make(40, 1000 + number * 600)
    life.deliver(40)
    life.save()
files = sum(len(os.listdir("readings/" + folder)) for folder in os.listdir("readings"))
before = life.kept()
after = Life(capacity=600).kept()
result = [files, before[0], after, life.ring.since()]
""")
    files, first, after, since = found
    assert files <= 6
    assert first == since == after[0]
    assert after == list(range(first, 61000, 15))
    assert len(after) >= 600


def test_gaps_are_known_after_a_loss_of_power(run):
    found = run("""
life = Life()
life.make(10, 1000)
life.make(10, 5000)
life.save()
life = Life()
life.make(10, 9000)
life.save()
again = Life()
again.make(1, 20000)
result = again.ring.gaps()
""")
    assert found == [[1135, 5000], [5135, 9000], [9135, 20000]]


@pytest.mark.parametrize("damage", ["head", "middle", "end", "cut", "empty", "missing", "names"])
def test_damaged_pages_are_skipped_and_are_a_gap(run, damage):
    places = {"head": 9, "middle": 400, "end": 3000, "names": 2}
    code = f"""
life = Life(fields=["a", "b", "c", "d"])
for number in range(60):
    life.make(40, 1000 + number * 600)
    life.save()
life.deliver(2400)
life.make(1, 37000)
life.save()
path = "readings/3/0"
with open(path, "rb") as f:
    page = bytearray(f.read())
damage, place = {damage!r}, {places.get(damage)}
if damage == "missing":
    os.remove(path)
else:
    if damage == "cut":
        page = page[:1000]
    elif damage == "empty":
        page = b""
    else:
        page[place] ^= 16
    with open(path, "wb") as f:
        f.write(page)
again = Life(fields=["a", "b", "c", "d"])
kept = again.kept()
ring = again.ring
for number in range(3):
    again.make(40, 38000 + number * 600)
    again.deliver(40 if number else 41)
    again.save()
result = [kept, ring.gaps(), ring.kept, Life(fields=["a", "b", "c", "d"]).kept()]
"""
    kept, gaps, count, later = run(code)
    whole = [*range(1000, 37000, 15), 37000]
    missing = sorted(set(whole) - set(kept))
    assert 0 < len(missing) <= 200
    assert missing == list(range(missing[0], missing[-1] + 1, 15)), "one gap"
    assert [missing[0] - 15, missing[-1] + 15] in gaps
    assert len(gaps) == 2  # and the one until 38000
    assert kept == [time for time in whole if time not in missing]
    assert later == [*kept, *range(38000, 38000 + 1800, 15)]
    assert count == len(later)


def test_a_program_with_other_sensors_takes_the_fields_that_it_has(run):
    found = run("""
life = Life(fields=["a", "b"])
life.ring.push(1000, 1000, [1, 2])
life.ring.push(1015, 1015, [3, None])
life.save()
result = []
for fields in (["b", "a"], ["b"], ["x", "a"], ["x"]):
    again = Life(fields=fields)
    ring = again.ring
    values = [list(ring.values(number)) for number in range(ring.first, ring.end) if not ring.gone(number)]
    result.append([[value if value == value else None for value in each] for each in values])
""")
    assert found == [[[2, 1], [None, 3]], [[2]], [[None, 1], [None, 3]], []]


def test_readings_of_other_sensors_are_not_sent_without_a_field(run):
    found = run("""
from tig.replay import Replay
life = Life(fields=["a", "b"])
life.ring.push(1000, 1000, [1, 2])
life.ring.push(1015, 1015, [3, None])
life.deliver(2)
life.save()
life.pages.delivered()
again = Life(fields=["b"])
done = []
replay = Replay(again.ring, lambda values, at: [at, values[0]], lambda names, sent: done.append(sent))
replay.request("one", {"since": 0})
sent = []
while replay.names:
    message = replay.message()
    if message:
        sent.append(message)
        replay.acknowledged()
result = [sent, done]
""")
    assert found == [[[1000, 2]], [1]]


def test_readings_without_a_time_are_left_until_they_have_one(run):
    found = run("""
class Clock:
    def at(self, uptime):
        return 10000 + uptime

life = Life()
life.make(3, 0, time=False)
life.ring.remove(2, False)  # the newest was sent without a time
life.make(2, 45, time=False)
life.save()
result = [Life().kept()]
life.ring.stamp(Clock())
life.make(2, 10075)
life.save()
result.append(Life().kept())
""")
    assert found[0] == []
    assert found[1] == [10000, 10015, 10045, 10060, 10075, 10090]


def test_a_flash_without_room_costs_no_reading_that_is_in_memory(run):
    found = run("""
statvfs = os.statvfs


class Full:
    def __init__(self):
        self.free = 0
        for name in ("getcwd", "listdir", "mkdir", "remove"):
            setattr(self, name, getattr(os, name))

    def statvfs(self, path):
        status = list(statvfs(path))
        return [4096, 4096, 1024, self.free] + status[4:]


from tig import pages

pages.os = full = Full()
life = Life()
life.make(40, 1000)
life.save()
life.save()
kept = life.kept()
result = [kept[0], kept[-1], len(said), Life().kept()]
full.free = 1000
for number in range(30):
    life.make(40, 1600 + number * 600)
    life.save()
most = sum(len(os.listdir("readings/" + folder)) for folder in os.listdir("readings"))
full.free = 100
for number in range(30, 60):
    life.make(40, 1600 + number * 600)
    life.save()
least = sum(len(os.listdir("readings/" + folder)) for folder in os.listdir("readings"))
kept = Life().kept()
result += [most, least, kept == list(range(kept[0], kept[-1] + 1, 15)), kept[-1]]
""")
    assert found[:4] == [1000, 1585, 1, []]
    assert found[5] <= 2 < found[4]
    assert found[6:] == [True, 1600 + 60 * 600 - 15]


def test_a_crash_leaves_what_is_not_in_the_pages_beside_them(run):
    found = run("""
life = Life()
life.make(40, 1000)
life.deliver(5)
life.save()
life.make(2, 1600)
handover.save(life.ring, "ring.bin", ["a", "b"], None, life.pages.end)
size = os.stat("ring.bin")[6]
again = Life()
handover.load(again.ring, "ring.bin", ["a", "b"], None)
result = [[time for time, _ in again.waiting()], size]
""")
    assert found[0] == [*range(1075, 1600, 15), 1600, 1615]
    assert found[1] < 100


def test_a_smaller_ring_loses_no_reading_that_waits(run):
    found = run("""
life = Life(capacity=4000)
life.make(3000, 1000)
life.save()
result = [len(Life(capacity=3000).waiting()), len(Life(capacity=10).waiting())]
again = Life(capacity=4000)
again.make(1, 46000)
again.save()
result += [len(Life(capacity=4000).kept())]
""")
    assert found == [3000, 3000, 3001]


def test_readings_that_wait_in_the_flash_are_not_dropped_when_the_memory_is_full(run):
    found = run("""
life = Life(capacity=300)
result = []
for number in range(75):
    life.make(40, 1000 + number * 600)
    life.save()
    if number in (19, 74):
        waiting = life.waiting()
        times = [time for time, _ in waiting]
        result.append([len(times), life.ring.dropped, times == list(range(times[0], times[0] + 15 * len(times), 15)), times[-1]])
        again = Life(capacity=300)
        result.append([again.waiting() == waiting, again.kept() == life.kept()])
life.deliver(life.ring.count)
life.make(1, 46000)
result.append(life.waiting())
""")
    (few, none, whole, _), same, (many, dropped, whole_later, last), same_later, after = found
    assert (few, none, whole, same) == (800, 0, True, [True, True])
    assert (whole_later, last, same_later) == (True, 1000 + 3000 * 15 - 15, [True, True])
    assert many > 600
    assert many + dropped == 3000, "what the flash could not hold is counted"
    assert after == [[46000, 0]]


def test_readings_that_wait_in_a_damaged_page_are_passed_over(run):
    found = run("""
life = Life()
for number in range(60):
    life.make(40, 1000 + number * 600)
    life.save()
with open("readings/1/0", "r+b") as f:
    f.seek(1000)
    f.write(b"damage")
again = Life()
times = []
while again.ring.count:
    times.append(again.ring.time(again.ring.first))
    again.ring.remove(again.ring.first)
result = [times, again.ring.gaps(), again.ring.dropped]
""")
    times, [[before, after]], dropped = found
    whole = list(range(1000, 37000, 15))
    assert times == [time for time in whole if not before < time < after]
    assert 30 < len(whole) - len(times) < 350
    assert dropped == 0


def test_a_previous_program_without_pages_gets_the_readings_that_wait_in_the_flash(run):
    found = run("""
life = Life()
life.make(80, 1000)
life.deliver(10)
life.save()
later = Life()
later.make(3, 3000)
handover.save(later.ring, "ring.bin", ["a", "b"], 100)
ring = Ring(2000, 2)
handover.load(ring, "ring.bin", ["a", "b"], 3)
result = [[ring.time(n), ring.values(n)[0]] for n in range(ring.first, ring.end)]
""")
    assert found == [[time, time % 1000] for time in [*range(1150, 2200, 15), 3000, 3015, 3030]]


@pytest.mark.parametrize("pause", [None, 5])
def test_the_watchdog_is_fed_while_a_long_backlog_is_written_and_read(run, pause):
    """Writing weeks of readings takes a LoPy4 longer than its watchdog waits."""
    most, fed, waiting = run(f"""
from tig.program import Program

class Stub:
    pass

fed = [0, 0, 0]  # most records between two feedings, records since the last, feedings

def feed():
    fed[1] = 0
    fed[2] += 1

def counted(method):
    def call(*arguments):
        fed[1] += 1
        fed[0] = max(fed[:2])
        return method(*arguments)
    return call

ring = Ring(5000, 2)
for number in range(5000):
    ring.push(number, 1000000000 + number, [number, 1])
ring.record = counted(ring.record)
program = Stub()
program._ring, program._pages = ring, None
program._sampler, program._watchdog, program._clock = Stub(), Stub(), Stub()
program._sampler.fields, program._watchdog.feed, program._clock.uptime = ["a", "b"], feed, lambda: 5000
Program.keep(program, {pause})
written = fed[2]
again = Ring(5000, 2)
again.push = counted(again.push)
handover.load(again, "ring.bin", ["a", "b"], 3, feed)
result = [fed[0], [written, fed[2] - written], again.count]
""")
    assert waiting == 5000
    assert min(fed) > 5
    assert most <= 500


def test_too_many_names_are_only_logged(run):
    found = run("""
life = Life(fields=["field-%d" % number for number in range(600)], capacity=10)
life.make(3, 1000)
life.save()
result = [len(life.waiting()), len(said)]
""")
    assert found == [3, 1]


# --- on a LittleFS on a flash of blocks


@pytest.mark.parametrize(("sizes", "every"), [("PYCOM", 7), ("MAINLINE", 37)])
def test_a_power_cut_at_any_write_costs_nothing_that_was_written(tmp_path, sizes, every):
    """Pages are made, filled, and overwritten; erasing and programming is cut short in each way. `bench/cuts` does so at each."""
    operations, cases, wrong = on_flash(tmp_path, CUTS, sizes=sizes, capacity=600, appends=45, every=every)
    assert wrong == []
    assert operations > 150
    assert cases > 100


WEAR = """
flash = Flash(data["blocks"])
interval, fields = data["interval"], data["fields"]
with Mounted(flash, sizes, True):
    for number in range(60):  # the program
        with open("file-%d" % number, "w") as f:
            f.write("x" * 4000)
    made = list(flash.erased)
    life = Life(fields, 100000, interval)
    count = 600 // interval
    for number in range(data["appends"]):
        life.add(count)
        if number % 1000 == 999:
            life = Life(fields, 100000, interval)  # a reset a week
    kept = life.ring.kept
worn = sorted(after - before for before, after in zip(made, flash.erased))
result = [worn[-1], sum(worn), kept]
"""
TEN_YEARS = 10 * 365.25 * 24 * 6  # of ten minutes
ENDURANCE = 100000  # erasures of a block, by the data sheets of such flash memories


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sizes", "blocks", "interval", "fields", "appends"),
    [
        ("PYCOM", 1024, 15, 4, 7500),
        ("MAINLINE", 1536, 15, 4, 4000),
        ("PYCOM", 1024, 2, 13, 1000),
        ("PYCOM", 1024, 600, 4, 7500),
    ],
)
def test_the_flash_outlasts_ten_years(tmp_path, sizes, blocks, interval, fields, appends):
    """The erasures of the block that wears most, extrapolated to ten years."""
    most, total, kept = on_flash(
        tmp_path, WEAR, 900, sizes=sizes, blocks=blocks, interval=interval, fields=fields, appends=appends
    )
    assert most * TEN_YEARS / appends < ENDURANCE / 2, (most, total / appends)
    if (interval, fields) == (15, 4):
        assert kept * 15 > 14 * 86400  # two weeks
        assert total / appends < 3.5


# --- on the virtual board


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "cuts"),
    [
        ({"profile": "pycom", "file_system": "littlefs"}, ("none", "garbage")),
        ({"profile": "mainline"}, ("half", "erased")),
    ],
)
def test_a_board_that_loses_its_power_during_a_write_has_its_readings(tmp_path, options, cuts):
    site = Site(tmp_path, **options)
    operator = Operator(site.broker, site.listener)
    try:
        site.upload()
        site.time.set_speed(60)
        site.device.ctl("speed", factor=60)
        for number, torn in enumerate(cuts, 1):
            had = len(site.listener.readings)
            until(lambda had=had: len(site.listener.readings) > had + 45, 60, "a whole write")
            site.device.ctl("power-cut", at_block_write=number, torn=torn)
            until(lambda: site.device.state == "off", 60, "another write")
            before = list(site.listener.readings)
            power_on(site.device)
            site.device.ctl("speed", factor=60)
            until(lambda before=before: len(site.listener.readings) > len(before) + 2, 60, site.console())
            operator.ask(
                {"id": torn, "do": "replay", "since": before[had]["time"], "until": before[-1]["time"]}, "done"
            )
            again = site.listener.readings[len(before) :]
            missing = [reading for reading in before[had:] if reading not in again]
            assert missing == before[len(before) - len(missing) :], torn
            assert len(missing) <= 41, torn
    finally:
        operator.close()
        site.stop()


@pytest.mark.slow
def test_a_board_with_a_fat_says_that_its_readings_are_in_memory(tmp_path):
    site = Site(tmp_path, "pycom", file_system="fat")
    try:
        site.upload()
        until(lambda: site.listener.readings)
        assert "readings are kept in memory only: the file system is a FAT" in site.console()
    finally:
        site.stop()
