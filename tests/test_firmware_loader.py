"""The loader: slots on trial, the way back, a pointer that is sound at every byte, two files that repair each other."""

from __future__ import annotations

import json
import subprocess
import zlib
from pathlib import Path

import pytest
from chain import free_port
from firmware.board import Board
from lopy4_bench import LOADER

from firmware import FIRMWARE, MICROPYTHON, evaluate, write_loader

PROGRAM = """
import json
def run(path, confirm):
    with open("ran.txt", "a") as f:
        f.write(path[-1])
    what = {what!r}
    if "confirm" in what:
        confirm()
    if "crash" in what:
        raise ValueError("what went wrong")
    if "hang" in what:
        raise SystemExit
    if "trial" in what and confirm.trial:
        confirm.back()
    if "stop" in what:
        raise KeyboardInterrupt
"""


class Card:
    """The file system of a device, with programs that do as they are told."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.board = Board(speed=0)
        write_loader(folder)

    def slot(self, slot: str, *what: str, text: str | None = None, name: str = "program.py") -> None:
        program = self.folder / slot / "lib" / "tig"
        program.mkdir(parents=True, exist_ok=True)
        (program / "__init__.py").write_text("")
        (program / name).write_text(text if text is not None else PROGRAM.format(what=what))
        (self.folder / slot / "manifest.json").write_text(json.dumps({"version": "1", "files": {}}))

    def point(self, number: int, text: str) -> None:
        (self.folder / f"slot.{number}").write_bytes(record(text))

    def bite(self) -> str:
        """The watchdog resets a program that hangs."""
        return self.boot("watchdog")

    def boot(self, reset: str = "power_on") -> str:
        """boot.py, then main.py, each with its own life as after a reset; returns what the console showed."""
        self.board.next_reset = reset
        shown = ""
        for name in ("boot.py", "main.py"):
            if not (self.folder / name).exists():
                continue
            shown += subprocess.run(
                [MICROPYTHON, name],
                cwd=self.folder,
                env=self.board.environment(),
                capture_output=True,
                text=True,
                timeout=30,
                check=False,
            ).stdout
        return shown

    @property
    def ran(self) -> str:
        file = self.folder / "ran.txt"
        return file.read_text() if file.exists() else ""

    @property
    def pointer(self) -> str:
        """The text of the record that counts."""
        sound = [
            text
            for data in (self.folder.joinpath(f"slot.{i}") for i in (0, 1))
            if data.exists() and len(data.read_bytes()) == 64
            for text in [data.read_text().rstrip().rsplit(" ", 1)[0]]
            if record(text) == data.read_bytes()
        ]
        return max(sound, key=lambda text: int(text.split()[0])).split(" ", 1)[1] if sound else ""


def record(text: str) -> bytes:
    """A pointer's record as the contract with the uploading side has it."""
    return f"{text} {zlib.crc32(text.encode()):08x}".ljust(63).encode() + b"\n"


@pytest.fixture
def card(tmp_path):
    card = Card(tmp_path)
    yield card
    card.board.close()


def test_a_first_program_starts_without_a_pointer_and_is_taken_for_good(card):
    card.slot("a", "confirm")
    card.boot()
    assert (card.ran, card.pointer) == ("a", "a good 0")


def test_no_program_is_said(card):
    assert "no program in" in card.boot()


def test_a_good_slot_starts_without_a_write(card):
    card.slot("b", "confirm")
    card.point(0, "7 b good 0")
    before = {p.name: p.read_bytes() for p in card.folder.glob("slot.*")}
    card.boot()
    card.boot()
    assert card.ran == "bb"
    assert {p.name: p.read_bytes() for p in card.folder.glob("slot.*")} == before


def test_a_trial_that_confirms_becomes_good(card):
    card.slot("a", "confirm")
    card.slot("b", "confirm")
    card.point(0, "1 a good 0")
    card.point(1, "2 b trial 0")
    card.boot()
    assert (card.ran, card.pointer) == ("b", "b good 0")


@pytest.mark.parametrize("broken", ["crash", "return", "syntax", "missing"])
def test_a_program_that_does_not_start_hands_back_after_three_tries(card, broken):
    card.slot("a", "confirm")
    card.slot("b", broken, text="def run(:" if broken == "syntax" else None)
    if broken == "missing":
        (card.folder / "b/lib/tig/program.py").unlink()
    card.point(0, "4 a good 0")
    card.point(1, "5 b trial 0")
    for tries in (1, 2, 3):
        card.boot()
        assert card.pointer == f"b trial {tries}"
    assert "back to slot a" in card.boot()
    assert card.ran.lstrip("b") == "a"
    assert card.pointer == "a good 0"


def test_a_broken_program_without_another_is_tried_for_ever(card):
    card.slot("a", "crash")
    card.point(0, "1 a trial 0")
    for _ in range(6):
        card.boot()
    assert card.ran == "aaaaaa"
    card.slot("a", "confirm")
    card.boot()
    assert card.pointer == "a good 0"


def test_a_good_program_that_no_longer_starts_hands_back_too(card):
    card.slot("a", "confirm")
    card.slot("b", "crash")
    card.point(0, "9 b good 0")
    for _ in range(4):
        card.boot()
    assert (card.ran, card.pointer) == ("bbba", "a good 0")


def test_a_good_program_that_crashes_later_stays(card):
    card.slot("a", "confirm")
    card.slot("b", "confirm", "crash")
    card.point(0, "9 b good 0")
    for _ in range(6):
        card.boot()
    assert (card.ran, card.pointer) == ("bbbbbb", "b good 0")


def test_a_good_program_that_hangs_at_start_hands_back_after_three_watchdog_resets(card):
    card.slot("a", "confirm")
    card.slot("b", "hang")
    card.point(0, "9 b good 0")
    card.boot()
    assert [card.bite().count("back to slot a") for _ in range(4)] == [0, 0, 1, 0]
    assert (card.ran, card.pointer) == ("bbbaa", "a good 0")


def test_crashes_and_watchdog_resets_at_start_count_together(card):
    card.slot("a", "confirm")
    card.slot("b", "crash")
    card.point(0, "9 b good 0")
    card.boot()
    card.slot("b", "hang")
    card.bite()  # the reset that the loader asked for after the crash
    assert card.pointer == "b good 1"
    card.bite()
    assert card.pointer == "b good 2"
    card.bite()
    assert (card.ran, card.pointer) == ("bbba", "a good 0")


def test_a_good_program_that_hangs_later_or_loses_its_power_stays(card):
    card.slot("a", "confirm")
    card.slot("b", "confirm", "hang")
    card.point(0, "9 b good 0")
    for _ in range(6):
        card.bite()
    card.slot("b", "hang")
    for _ in range(6):
        card.boot()
    assert (card.ran, card.pointer) == ("b" * 12, "b good 0")


def test_a_good_program_that_hangs_without_another_is_tried_forever_and_stops_writing(card):
    card.slot("b", "hang")
    card.point(0, "9 b good 0")
    for _ in range(4):
        card.bite()
    before = {p.name: p.read_bytes() for p in card.folder.glob("slot.*")}
    for _ in range(3):
        card.bite()
    assert card.ran == "b" * 7
    assert {p.name: p.read_bytes() for p in card.folder.glob("slot.*")} == before
    card.slot("b", "confirm")
    card.boot()
    assert card.pointer == "b good 0"


def test_a_reset_that_was_asked_for_is_no_hang_on_pycom_where_it_is_the_watchdogs_too(card):
    card.slot("a", "confirm")
    card.slot("b", "hang")
    card.point(0, "9 b good 0")
    for _ in range(4):
        card.board.hardware.do_nvs_set("tig_reset", 1)
        card.bite()
        assert card.pointer == "b good 0"
    # a program that hangs before it has looked for the reason of the reset leaves the note where it is
    for _ in range(3):
        card.bite()
    assert (card.ran, card.pointer) == ("b" * 6 + "a", "a good 0")


def test_a_trial_that_reaches_no_broker_hands_back_for_good(card):
    card.slot("a", "trial")
    card.slot("b", "trial")
    card.point(0, "1 a good 0")
    card.point(1, "2 b trial 0")
    shown = card.boot()
    assert "slot b reached no broker, back to slot a" in shown
    assert card.pointer == "a good 0"
    for _ in range(3):
        card.boot()
    assert card.ran == "baaa"
    assert card.pointer.startswith("a good")


def test_only_a_trial_beside_another_program_has_to_reach_the_broker(card):
    card.slot("b", "trial")
    card.point(1, "2 b trial 0")
    assert "back" not in card.boot()


def test_a_program_that_crashes_again_and_again_is_given_a_rest_because_each_crash_is_written(card):
    """Except on trial, where another program or a new upload is waited for."""
    card.slot("a", "crash")
    assert [card.boot().count("restart in 60 s") for _ in range(5)] == [0, 0, 1, 1, 1]
    card.slot("b", "crash")
    card.point(0, "90 b good 0")
    pauses = [card.boot().count("restart in 60 s") for _ in range(9)]
    assert pauses == [1, 0, 0] * 3  # good; on trial twice more; the other one, which was good
    card.slot("a", "confirm", "crash")
    card.point(0, "200 a good 0")
    assert "restart in 60 s" in card.boot()


def test_a_pointer_to_a_slot_that_is_gone_leads_to_the_other(card):
    card.slot("b", "confirm")
    card.point(0, "3 a good 0")
    card.boot()
    assert (card.ran, card.pointer) == ("b", "b good 0")


def test_a_trial_that_does_not_start_hands_back_to_a_program_of_before_named_main(card):
    card.slot("a", "confirm", name="main.py")
    card.slot("b", "crash")
    card.point(0, "4 a good 0")
    card.boot()
    card.point(1, "5 b trial 0")
    for _ in range(4):
        card.boot()
    assert (card.ran, card.pointer) == ("abbba", "a good 0")


def test_the_traceback_is_kept(card):
    card.slot("a", "crash")
    card.boot()
    first, *traceback = (card.folder / "crash.txt").read_text().splitlines()
    assert first == "0"
    assert traceback[0].startswith("Traceback")
    assert traceback[-1] == "ValueError: what went wrong"


def test_ctrl_c_leads_to_the_prompt_and_gives_the_watchdog_an_hour(card):
    (card.folder / "watch.py").write_text(
        "import machine\nreal = machine.WDT\nseen = []\n"
        "def WDT(timeout):\n    seen.append(timeout)\n    return real(timeout=timeout)\n"
        'machine.WDT = WDT\ntry:\n    exec(open("main.py").read())\n'
        'except KeyboardInterrupt:\n    print("prompt", seen)\n'
    )
    card.slot("a", "confirm", "stop")
    ran = subprocess.run(
        [MICROPYTHON, "watch.py"],
        cwd=card.folder,
        env=card.board.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "prompt [180000, 3600000]" in ran.stdout
    assert not (card.folder / "crash.txt").exists()


# --- when a program is taken for good ---

TURNS = """
import os
import time
with open("settings.json", "w") as f:
    json.dump(data["settings"], f)
import _hardware
_hardware.call("control", "wifi", {"state": data["wifi"]})
from tig import log, program
log.say = lambda what: said.append(what)
said = []
happened = []
class Confirm:
    def __init__(self, trial):
        self.trial = trial
    def __call__(self):
        happened.append(["confirmed", seconds()])
        raise KeyboardInterrupt
    def back(self):
        happened.append(["back", seconds()])
def seconds():
    return time.ticks_diff(time.ticks_ms(), started) // 1000
started = time.ticks_ms()
try:
    program.run(os.getcwd(), Confirm(data["trial"]))
except KeyboardInterrupt:
    pass
from tig import handover
from tig.ring import Ring
ring = Ring(500, 1)
handover.load(ring, "ring.bin", ["h"], 3)  # three seconds after the reset
records = [(ring.uptime(n), ring.time(n)) for n in range(ring.first, ring.first + ring.count)]
result = [happened, records, ring.dropped, [what for what in said if "slot" in what and "runs" in what]]
"""


def settle(trial: bool, port: int, wifi: str = "up") -> list:
    settings = {
        "name": "node",
        "topic": "tig/node",
        "wifi": {"ssid": "home"},
        "broker": {"host": "127.0.0.1", "port": port},
        "sensors": [{"driver": "dht11", "pin": "P11", "fields": {"humidity": "h"}}],
    }
    return evaluate(TURNS, {"settings": settings, "wifi": wifi, "trial": trial}, speed=0)


@pytest.mark.slow
@pytest.mark.parametrize("wifi", ["up", "down"])
def test_without_a_broker_a_program_is_taken_for_good_after_a_minute_where_there_is_no_other(wifi):
    [[what, seconds]], *_ = settle(False, free_port(), wifi)
    assert what == "confirmed"
    assert 60 <= seconds <= 62


@pytest.mark.slow
@pytest.mark.parametrize("wifi", ["up", "down"])
def test_on_trial_beside_another_it_goes_back_after_ten_minutes_and_keeps_its_readings(wifi):
    [[what, seconds]], records, dropped, said = settle(True, free_port(), wifi)
    assert what == "back"
    assert 600 <= seconds <= 602
    # Nobody has told the time: each has its age, five seconds before the reset included.
    assert [time for _, time in records] == [0] * 41
    assert all(abs(age + 608 - 15 * place) <= 2 for place, (age, _) in enumerate(records)), records
    assert dropped == 0
    assert len(said) == 1  # after a minute, for whoever uploaded it


# --- torn writes of the pointer ---

READ = """
text = open({loader!r}).read()
space = {{}}
exec(text, space)
result = []
for files in data:
    for name, content in zip(("slot.0", "slot.1"), files):
        with open(name, "wb") as f:
            f.write(bytes(content))
    record = space["pointer"]()[0]
    result.append([record.sequence, record.slot, record.state, record.tries])
"""


def test_the_pointer_is_sound_at_every_byte_of_its_writing():
    old, new, stale = record("41 a good 0"), record("42 b trial 0"), record("40 b trial 3")
    states = []
    for written in range(65):
        states.append([list(old), list(new[:written] + stale[written:])])  # overwritten in place
        states.append([list(old), list(new[:written])])  # a first record, written to a new file
        states.append([list(old), list(new[:written] + b"\xff" * (64 - written))])  # erased before it was written
    answers = evaluate(READ.format(loader=str(FIRMWARE / "loader.py")), states)
    before, after = [41, "a", "good", 0], [42, "b", "trial", 0]
    assert all(answer in (before, after) for answer in answers)
    assert answers[0] == before
    assert answers[-3:] == [after] * 3
    # the one that counts is never the one that is being written
    assert [a == after for a in answers[::3]] == sorted(a == after for a in answers[::3])


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"\x00" * 64,
        b"\xff" * 64,
        record("42 c good 0"),
        record("42 a better 0"),
        record("42 a good 0").replace(b"42", b"43"),
        record("x a good 0"),
        b"42 a good 0" + b" " * 53,
        "42 a good 0 å".encode().ljust(64),
    ],
)
def test_a_record_that_is_not_sound_does_not_count(bad):
    good = record("3 b good 0")
    answers = evaluate(
        READ.format(loader=str(FIRMWARE / "loader.py")), [[list(good), list(bad)], [list(bad), list(good)]]
    )
    assert answers == [[3, "b", "good", 0]] * 2


CUT = """
import os, vfs
data, torn = data
text = open({loader!r}).read()

class Blocks:
    # Flash that loses power at the n-th block write: all later ones do not happen, and of that one remains what `torn` says.
    def __init__(self, size, count):
        self.size, self.count = size, count
        self.memory = bytearray(size * count)
        self.left = None
        self.writes = 0
    def readblocks(self, n, buf, offset=0):
        at = n * self.size + offset
        buf[:] = self.memory[at : at + len(buf)]
    def writeblocks(self, n, buf, offset=None):
        self.writes += 1
        at = n * self.size + (offset or 0)
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                if self.left == -1:
                    half = len(buf) // 2
                    if torn == "half":
                        self.memory[at : at + half] = buf[:half]
                    elif torn == "erased":
                        self.memory[at : at + len(buf)] = b"\\xff" * len(buf)
                    elif torn == "garbage":
                        self.memory[at : at + len(buf)] = os.urandom(len(buf))
                raise OSError(5)
        self.memory[at : at + len(buf)] = buf
    def ioctl(self, op, arg):
        if op == 4:
            return self.count
        if op == 5:
            return self.size
        if op == 6:
            self.writeblocks(arg, b"\\xff" * self.size)
            return 0

def mount(blocks):
    kind = vfs.VfsFat if data == "fat" else vfs.VfsLfs2
    vfs.mount(kind(blocks), "/card")
    os.chdir("/card")
    space = {{}}
    exec(text, space)
    return space

def umount():
    os.chdir("/")
    try:
        vfs.umount("/card")
    except OSError:
        pass

result = []
cut = 0
while True:
    blocks = Blocks(512, 128) if data == "fat" else Blocks(4096, 24)
    (vfs.VfsFat if data == "fat" else vfs.VfsLfs2).mkfs(blocks)
    space = mount(blocks)
    for slot in "ab":
        os.mkdir("/card/" + slot)
        with open("/card/" + slot + "/manifest.json", "w") as f:
            f.write("1")
    space["point"]("b", "good", 0)
    space["point"]("a", "good", 0)
    umount()
    space = mount(blocks)
    before = blocks.writes
    blocks.left = cut
    try:
        space["point"]("b", "trial", 0)
    except OSError:
        pass
    done = blocks.left >= 0
    total = blocks.writes - before
    umount()
    blocks.left = None
    space = mount(blocks)
    record = space["pointer"]()[0]
    result.append([[record.slot, record.state, record.tries], os.listdir()])
    umount()
    if done:
        break
    cut += 1
os.chdir({home!r})
"""


@pytest.mark.parametrize(
    ("file_system", "torn"), [("fat", "none"), *(("littlefs", torn) for torn in ("none", "half", "erased", "garbage"))]
)
def test_a_power_cut_at_any_block_write_leaves_the_old_pointer_or_the_new_one(file_system, torn):
    """A FAT's directory is written with it, and may be lost with it: see bench/cuts."""
    code = CUT.format(loader=str(FIRMWARE / "loader.py"), home="/HOME")
    code = "import os\nhome = os.getcwd()\n" + code.replace("os.chdir('/HOME')", "os.chdir(home)")
    answers = evaluate(code, [file_system, torn])
    assert len(answers) >= 2
    for pointed, files in answers:
        assert pointed in (["a", "good", 0], ["b", "trial", 0])
        assert {"a", "b", "slot.0", "slot.1"} <= set(files)
    assert answers[0][0] == ["a", "good", 0]
    assert answers[-1][0] == ["b", "trial", 0]


# --- boot.py and main.py ---


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "zeroed"])
@pytest.mark.parametrize("name", ["boot.py", "main.py"])
def test_each_mends_the_other(card, name, damage):
    card.slot("a", "confirm")
    file = card.folder / name
    whole = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes({"empty": b"", "cut": whole[:2000], "zeroed": bytes(len(whole))}[damage])
    card.boot()
    card.boot()
    assert card.ran
    for name in ("boot.py", "main.py"):
        assert (card.folder / name).read_bytes() == LOADER[name]
    assert not list(card.folder.glob("*.new"))


@pytest.mark.parametrize("name", ["boot.py", "main.py"])
def test_an_update_of_the_loader_that_was_cut_short_ends_with_one_version(card, name):
    card.slot("a", "confirm")
    file = card.folder / name
    file.write_bytes(file.read_bytes() + b"# of another version\n")
    card.boot()
    boot, main = ((card.folder / n).read_bytes().split(b"\n", 1)[1] for n in ("boot.py", "main.py"))
    assert boot == main
    assert card.ran == "a"


def test_somebodys_own_main_is_left_alone(card):
    own = b"import pycom\nprint('mine')\n"
    (card.folder / "main.py").write_bytes(own)
    assert "mine" in card.boot()
    assert (card.folder / "main.py").read_bytes() == own
