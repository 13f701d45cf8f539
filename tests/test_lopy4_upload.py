"""The uploader against the virtual LoPy4: what it sends, what it leaves alone, and what a pulled cable can do."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import subprocess
import sys
import threading
import time
import zlib

import pytest
from ansible_collections.tig_pi.stack.plugins.module_utils.lopy4 import boot_pointer, session, stream
from ansible_collections.tig_pi.stack.plugins.modules.lopy4_interpreter import kept_readings
from chain import wait_until
from lopy4_bench import (
    DEAF,
    LOADER,
    PROGRAM,
    SETTINGS,
    Damaged,
    Device,
    DeviceError,
    Gone,
    Line,
    Repl,
    Upload,
    Visit,
    ask,
    boots,
    copy_of,
    damage_fat,
    erased,
    execute,
    firmware,
    formatted,
    power_cut,
    program,
    said,
    with_version_1,
    writes_of_upload,
)
from virtual_lopy4 import cells

pytestmark = pytest.mark.slow

PROFILES = ("pycom", "mainline")


@pytest.fixture(params=PROFILES)
def device(request, tmp_path):
    with Device(tmp_path / "device", request.param, paced=False) as device:
        yield device


@pytest.fixture(scope="module", params=["pycom", "mainline", "pycom-littlefs"])
def programmed(request, tmp_path_factory):
    """A device, now off, on which version 1 works: its state directory; bytes and block writes of an upload of version 2."""
    profile, _, kind = request.param.partition("-")
    state = tmp_path_factory.mktemp(request.param)
    with Device(state, profile, paced=False, **({"file_system": kind} if kind else {})) as device:
        assert Visit(device, program("1"), "1").works
        assert said(device, "program 1")
    return state, *size_of_upload(state, tmp_path_factory.mktemp("whole"), NEXT, "2")


# --- parts


def test_records_are_the_loaders():
    text = b"7 b trial 2"
    assert boot_pointer.record(7, "b", "trial", 2) == b"%-63s\n" % (text + b" %08x" % zlib.crc32(text))
    assert boot_pointer.parse(boot_pointer.record(7, "b", "trial", 2)) == (7, "b", "trial", 2)


def test_a_damaged_record_does_not_count():
    old, new = boot_pointer.record(7, "a", "good", 0), boot_pointer.record(8, "b", "trial", 0)
    assert boot_pointer.pointer([old, new]) == ((8, "b", "trial", 0), 0)
    for place in range(len(new)):
        for broken in (new[:place], new[:place] + b"\xff" * (64 - place), new[:place] + old[place:]):
            if broken != new:
                assert boot_pointer.pointer([old, broken])[0] in ((7, "a", "good", 0), (8, "b", "trial", 0))


def test_nothing_in_the_stream_has_a_meaning_for_the_repl():
    data = bytes(range(256)) * 3 + os.urandom(5000)
    wire = stream.escaped(data)
    assert not set(wire) & {1, 2, 3, 4, 5, 6, 13}
    plain = wire[:-1]
    for char in (1, 2, 3, 4, 5, 6, 13, 27):  # as on the device
        plain = plain.replace(bytes((27, char ^ 64)), bytes((char,)))
    assert plain == data


# --- what is sent


def test_a_new_device_gets_everything_and_then_nothing(device):
    first = Visit(device, firmware(), "1.0.0", patience=0)
    assert first.changed
    assert first.slot == "a"
    assert first.upload.sent_files == sorted(firmware())
    assert device.uart.overflowed == 0
    second = Visit(device, program("1"), "1")
    assert second.works
    writes = device.page.block_writes
    third = Visit(device, program("1"), "1")
    assert not third.changed
    assert device.page.block_writes == writes
    assert third.raw_paste == (device.installed["profile"] == "mainline")
    assert said(device, "program 1")


def test_a_changed_setting_is_all_that_is_sent(device):
    Visit(device, program("1"), "1")
    settings = b'{"name": "bench", "interval": 60}'
    visit = Visit(device, program("1") | {"settings.json": settings}, "1")
    assert visit.works
    assert visit.slot == "b"
    assert visit.upload.sent_files == ["settings.json"]
    assert len(visit.upload.copied_files) == 4
    assert ask(device, "open(root + '/b/settings.json').read()") == settings.decode()


def test_what_is_no_longer_declared_goes_and_what_is_others_stays(device):
    Visit(device, program("1", lib__tig__drivers__old__deep__er=b"x"), "1")
    execute(
        device,
        "import os\nroot = os.getcwd().rstrip('/')\nf = open(root + '/diary.txt', 'w')\nf.write('mine')\nf.close()",
    )
    for version in ("2", "3"):
        assert Visit(device, program(version), version).works
    for slot in "ab":
        assert "old" not in ask(device, f"os.listdir(root + '/{slot}/lib/tig/drivers')")
    assert ask(device, "open(root + '/diary.txt').read()") == "mine"


def test_somebody_elses_main_is_kept_once(device):
    execute(
        device,
        "import os\nroot = os.getcwd().rstrip('/')\n"
        "for n in ('main', 'boot'):\n f = open(root + '/' + n + '.py', 'w')\n f.write('print(1)')\n f.close()",
    )
    assert Visit(device, program("1"), "1").works
    assert Visit(device, program("2"), "2").works
    names = ask(device, "sorted(n for n in os.listdir(root or '/') if 'before' in n)")
    assert names == ["boot.before-tig-pi.py", "main.before-tig-pi.py"]
    assert ask(device, "open(root + '/main.before-tig-pi.py').read()") == "print(1)"


def test_a_directory_of_somebody_else_is_not_taken(device):
    execute(
        device, "import os\nroot = os.getcwd().rstrip('/')\nos.mkdir(root + '/a')\nopen(root + '/a/x', 'w').close()"
    )
    with pytest.raises(DeviceError, match="not tig-pi's"):
        Visit(device, program("1"), "1")
    assert ask(device, "sorted(os.listdir(root + '/a'))") == ["x"]


def test_a_damaged_file_is_noticed_and_repaired(device):
    Visit(device, program("1"), "1")
    execute(
        device,
        "import os\nroot = os.getcwd().rstrip('/')\nf = open(root + '/a/lib/tig/same.py', 'w')\nf.write('rot')\nf.close()",
    )
    visit = Visit(device, program("1"), "1")
    assert visit.works
    assert visit.slot == "b"
    assert visit.upload.sent_files == ["lib/tig/same.py"]


def test_a_full_device_is_left_as_it_is(device):
    Visit(device, program("1"), "1")
    size = device.installed["fs_size"]
    with pytest.raises(DeviceError, match="The device is full"):
        Visit(device, program("2", lib__big=random.Random(1).randbytes(size)), "2")
    assert said(device, "program 1")
    visit = Visit(device, program("1"), "1")
    assert not visit.changed


FILL = r"""
import os
root = os.getcwd().rstrip("/")
v = os.statvfs(root or "/")
left = v[0] * v[3] - 90 * 4096
with open(root + "/filler", "wb") as f:
    while left > 0:
        f.write(b"x" * 4096)
        left -= 4096
os.mkdir(root + "/readings")
os.mkdir(root + "/readings/0")
for n in range(60):
    with open(root + "/readings/0/%d" % n, "wb") as f:
        number = 1000 + (n + 20) % 60
        f.write(b"\x01\x00a" + number.to_bytes(4, "little") + bytes(12) + (1700000000 + number).to_bytes(4, "little") + bytes(3000))
"""
PAGES = "sorted(int.from_bytes(open(root + '/readings/0/' + n, 'rb').read(7)[3:], 'little') for n in os.listdir(root + '/readings/0'))"


def test_the_oldest_readings_in_the_flash_make_room_for_a_program(device):
    Visit(device, program("1"), "1")
    execute(device, FILL)
    visit = Visit(device, program("2", lib__big=random.Random(1).randbytes(200000)), "2")
    assert visit.works
    left = ask(device, PAGES)
    assert visit.upload.kept_since == 1700000000 + left[0]
    assert left == list(range(left[0], 1060)), "the oldest are gone, and no other"
    assert 1010 < left[0] < 1050, "as many as it takes"
    with pytest.raises(DeviceError, match="The device is full"):
        Visit(device, program("3", lib__big=random.Random(1).randbytes(1000000)), "3")
    assert ask(device, PAGES) == left, "what would not be enough is kept"


KEEP = """
import os, sys
sys.path.insert(0, os.getcwd().rstrip("/") + "/a/lib")
from tig import handover
from tig.pages import Pages
from tig.ring import Ring
fields = ["a", "b", "c"]
pages = Pages(fields, 1000, 35)
ring = Ring(1000, 3, 35)
ring.attach(pages)
for n in range(250):
    ring.push(15 * n, 1700000000 + 15 * n, [n, None, None])
for n in range(20):
    ring.remove(ring.first)
ring.store()
for n in range(250, 253):
    ring.push(15 * n, 1700000000 + 15 * n, [n, None, None])
handover.save(ring, "ring.bin", fields, None, pages.end)
"""


def test_readings_that_formatting_erases_are_counted(device):
    files = firmware()
    files["lib/tig/program.py"] = PROGRAM.encode()
    Visit(device, files, "1")
    assert kept_readings(device.port) == ""
    execute(device, KEEP)
    assert kept_readings(device.port) == (
        "253 readings from 2023-11-14 22:13:20 UTC to 2023-11-14 23:15:35 UTC, of which 233 have not been sent"
    )
    execute(device, "with open('readings/0/7', 'wb') as f:\n f.write(b'nonsense' * 9)")
    assert kept_readings(device.port).startswith("253 readings from 2023")


# --- getting in


def test_a_program_that_ignores_ctrl_c_is_stopped_by_pycoms_safe_boot(tmp_path):
    with Device(tmp_path / "device", "pycom", paced=False) as device:
        assert Visit(device, program("1", DEAF), "1").works
        assert Visit(device, program("2"), "2").works
        assert said(device, "program 2")


def test_a_hash_that_was_never_finished_does_not_matter(tmp_path):
    with Device(tmp_path / "device", "pycom", paced=False) as device:
        Visit(device, program("1"), "1")
        with Line(device.port) as line:
            repl = Repl(line)
            repl.enter()
            repl.run("import hashlib\nh = hashlib.sha256()")
        assert not Visit(device, program("1"), "1").changed


def test_a_silent_device_is_explained(tmp_path):
    with Device(tmp_path / "device", "pycom", paced=False) as device:
        device.submit(device.power_off)
        with Line(device.port) as line, pytest.raises(DeviceError, match=r"jumpers TX and RX.*Press its reset button"):
            Repl(line).enter(patience=1)


def test_a_device_is_found_by_its_chip_also_while_its_port_is_in_use_for_a_moment(tmp_path, monkeypatch):
    one = Device(tmp_path / "one", "pycom", paced=False)
    two = Device(tmp_path / "two", "mainline", paced=False)
    with one, two:
        monkeypatch.setattr(session, "ports", lambda: [one.port, two.port])
        assert session.port_of(two.mac.hex(), "two") == two.port
        held = Line(one.port)
        threading.Timer(0.5, held.close).start()
        assert session.port_of(one.mac.hex(":"), "one") == one.port
        with pytest.raises(DeviceError, match=rf"24:0a:c4:00:00:07 \(three\) is plugged in here.*{one.port}: 24:0a:c4"):
            session.port_of("24:0a:c4:00:00:07", "three")


def test_a_port_in_use_names_who_uses_it(tmp_path):
    with Device(tmp_path / "device", "pycom", paced=False) as device:
        code = "import serial,sys,time; s=serial.Serial(sys.argv[1],exclusive=True); print(flush=True); time.sleep(60)"
        user = subprocess.Popen([sys.executable, "-c", code, device.port], stdout=subprocess.PIPE)
        user.stdout.readline()
        try:
            with pytest.raises(DeviceError, match=rf"in use by python.* \(process {user.pid}\)"):
                Line(device.port)
        finally:
            user.kill()
            user.wait()


def test_a_program_that_locks_nothing_is_named_before_anything_is_sent(tmp_path):
    with Device(tmp_path / "device", "pycom", paced=False) as device:
        time.sleep(1)
        user = subprocess.Popen(["cat", device.port], stdout=subprocess.DEVNULL)
        wait_until(lambda: os.path.realpath(f"/proc/{user.pid}/fd/3") == os.path.realpath(device.port), "cat reads")
        before = device.uart.received
        try:
            with pytest.raises(DeviceError, match=rf"in use by cat \(process {user.pid}\)\. Close it and run again"):
                Line(device.port)
            assert device.uart.received == before
        finally:
            user.kill()
            user.wait()
        Line(device.port).close()


def test_a_missing_port_lists_what_is_there():
    with pytest.raises(DeviceError, match=r"There is no port /dev/tty-none\. (Available: |There are no serial ports)"):
        Line("/dev/tty-none")


def test_the_watchdog_of_the_program_does_not_bite(tmp_path):
    with Device(tmp_path / "device", "pycom", paced=False) as device, Line(device.port) as line:
        repl = Repl(line)
        repl.enter()
        repl.run("import machine\nmachine.WDT(timeout=1500)")
        upload = Upload(repl, program("2"), LOADER, "2")
        upload.look()
        resets = device.resets.get("watchdog", 0)
        time.sleep(2)
        upload.change()
        assert device.resets.get("watchdog", 0) == resets


# --- trials


@pytest.mark.slow
def test_a_program_that_does_not_start_hands_back(device):
    Visit(device, program("1"), "1")
    visit = Visit(device, program("2", "import nonsense\n"), "2", patience=60)
    assert visit.works is False
    assert "ImportError" in visit.start.said
    assert said(device, "program 1", 30)
    # The same once more fails the same way; a repaired one works, and the good one is never overwritten.
    repaired = Visit(device, program("3"), "3")
    assert repaired.works
    assert repaired.slot == "b"
    assert said(device, "program 3")


def test_the_last_good_program_is_not_written_over_during_a_trial(device):
    Visit(device, program("1"), "1")
    Visit(device, program("2", "import nonsense\n"), "2", patience=0)
    visit = Visit(device, program("3"), "3")
    assert visit.slot == "b"
    assert visit.works
    assert ask(device, "open(root + '/a/lib/tig/__init__.py').read()") == 'VERSION = "1"\n'


# --- a bad line, a pulled cable, a cut of power


def test_lost_bytes_are_sent_again(device, monkeypatch):
    write, count = Line.write, []

    def lossy(self, data):
        count.append(len(data))
        if len(data) > 60 and len([size for size in count if size > 60]) in (9, 14):
            data = data[:20] + data[25:]
        write(self, data)

    Visit(device, program("1"), "1")
    with Line(device.port) as line:
        repl = Repl(line)
        repl.enter()
        upload = Upload(repl, firmware(), LOADER, "2")
        upload.look()
        upload._prepare()
        monkeypatch.setattr(Line, "write", lossy)
        count.clear()
        upload.change()
        monkeypatch.setattr(Line, "write", write)
        assert upload.trouble > 0
        repl.reset()


def test_a_reset_between_two_attempts_is_made_good(device, monkeypatch):
    """A device that does not come to its prompt in time is reset, and knows nothing any more."""
    stream, streams = Upload._stream, []

    def stalls_once(self, *arguments):
        streams.append(arguments)
        if len(streams) == 1:
            device.ctl("reset")
            self.repl.interrupt()
            return False
        return stream(self, *arguments)

    Visit(device, program("1"), "1")
    monkeypatch.setattr(Upload, "_stream", stalls_once)
    visit = Visit(device, program("2"), "2")
    assert visit.works
    assert visit.upload.trouble == 1


def interrupted(state, directory, disturb, files, version) -> None:
    """An upload that `disturb` breaks off: a program boots, and the next run completes."""
    with copy_of(state, directory) as device:
        assert said(device, "program 1 in")
        disturb(device)
        with contextlib.suppress(Gone, DeviceError):
            Visit(device, files, version, patience=0)
        device.submit(device.plug)  # what is plugged in stays so
        device.page.cut_at_write = 0
        device.uart.unplug_after = None
        assert boots(device) in ("1", version)
        again = Visit(device, files, version)
        assert again.works is not False
        assert said(device, f"program {version} in")


def size_of_upload(state, directory, files, version) -> tuple[int, int]:
    """Bytes down the line and block writes of a whole upload."""
    with copy_of(state, directory) as device:
        assert said(device, "program 1 in")
        before, writes = device.uart.received, device.page.block_writes
        Visit(device, files, version, patience=0)
        return device.uart.received - before, device.page.block_writes - writes


NEXT = program("2", lib__tig__more=b"# new in version 2\n" * 100)
NEXT_ROOT = {name: data + b"# a later loader\n" for name, data in LOADER.items()}


@pytest.mark.parametrize("seed", range(2))
def test_the_cable_pulled_somewhere(programmed, tmp_path, seed):
    cable(programmed, tmp_path, seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 69))  # on three file systems: 200 points
def test_the_cable_pulled_anywhere(programmed, tmp_path, seed):
    cable(programmed, tmp_path, seed)


def cable(programmed, tmp_path, seed):
    state, length, _ = programmed
    at = random.Random(f"{state.name}{seed}").randrange(1, length)

    def disturb(device):
        device.uart.unplug_after = at

    interrupted(state, tmp_path / "cut", disturb, NEXT, "2")


@pytest.fixture(scope="module", params=["fat", "littlefs", "mainline"])
def version_1(request, tmp_path_factory):
    state = tmp_path_factory.mktemp(request.param)
    with_version_1(state, request.param)
    return state, request.param, writes_of_upload(state, tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("torn", cells.TORN)
def test_power_cut_at_a_block_write(version_1, tmp_path, torn):
    """Three moments of each; `bench/cuts` has all of them."""
    state, kind, writes = version_1
    first = random.Random(f"{kind}{torn}").randrange(1, writes // 3)
    found = [
        power_cut(state, tmp_path / str(number), number, torn, erased)
        for number in range(first, writes - 1, writes // 3)
    ]
    if kind == "fat" and torn != "none":
        assert set(found) <= {"held", "run", "format"}
    else:
        assert set(found) == {"held"}


def test_a_damaged_directory_of_a_fat_is_told_with_the_command_that_repairs_it(tmp_path):
    with Device(tmp_path / "device", "pycom", paced=False) as device:
        assert Visit(device, program("1"), "1").works
        assert Visit(device, program("2"), "2").works
        damage_fat(device)
        with pytest.raises(Damaged, match=r"file system of the device is damaged"):
            Visit(device, program("3"), "3")
        formatted(device, tmp_path / "backups")
        visit = Visit(device, program("3"), "3")
        assert visit.works
        assert device.installed["file_system"] == "littlefs"
        assert len(list((tmp_path / "backups").iterdir())) == 1


def test_a_program_that_the_file_system_loses_after_the_upload_is_damage_and_no_fault_of_the_program(
    device, monkeypatch
):
    """A damaged FAT may show what was written until it is mounted again."""
    change = Upload.change

    def loses(self):
        slot = change(self)
        self.repl.run(f"os.remove(root + '/{slot}/lib/tig/program.py')")
        return slot

    monkeypatch.setattr(Upload, "change", loses)
    with pytest.raises(Damaged, match=r"file system of the device is damaged \(slot a has lost"):
        Visit(device, program("1"), "1", patience=60)


@pytest.mark.parametrize(
    ("code", "repaired"),
    [
        ("os.remove(root + '/b/settings.json')", ["settings.json"]),
        ("os.remove(root + '/boot.py')\nos.remove(root + '/main.py')", ["boot.py", "main.py"]),
        ("for s in 'ab':\n os.remove(root + '/' + s + '/manifest.json')", ["the program in slot b"]),
    ],
)
def test_what_was_repaired_is_said(device, code, repaired):
    assert Visit(device, program("1"), "1").damage == []
    assert Visit(device, program("2"), "2").damage == []
    execute(device, "import os\nroot = os.getcwd().rstrip('/')\n" + code)
    visit = Visit(device, program("2"), "2")
    assert visit.damage == repaired
    assert visit.works
    assert boots(device) == "2"


def test_a_sensor_that_fails_is_told_with_its_reason(tmp_path):
    """Here several DS18B20 on one wire: their addresses are what the user has to declare."""
    wiring = {"a": {"chip": "ds18b20"}, "b": {"chip": "ds18b20", "address": "28000000000002"}}
    sensors = [
        {"driver": "dht11", "pin": "P11", "fields": {"temperature": "outsidetemp"}},
        {"driver": "ds18b20", "pin": "P10", "fields": {"temperature": "watertemp"}},
    ]
    files = firmware() | {"settings.json": json.dumps(SETTINGS | {"sensors": sensors}).encode()}
    with Device(tmp_path / "device", "pycom", paced=False, speed=20, wiring=wiring) as device:
        visit = Visit(device, files, "1", patience=60)
    assert visit.works
    assert list(visit.start.faults) == ["ds18b20"]
    assert sorted(re.findall(r"28[0-9a-f]{14}", visit.start.faults["ds18b20"])) == [
        "2800000000000140",
        "28000000000002a2",
    ]
