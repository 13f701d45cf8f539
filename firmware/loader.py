ROLE = ""  # tig-pi loader
# The loader of tig-pi's sensor nodes. The uploader writes it to the device as boot.py and as main.py, each with its own name in
# the first line: each repairs the other if that is missing or damaged, and main.py starts the program.
#
# There are two slots for programs, a/ and b/. The pointer says which one runs: two records, slot.0 and slot.1, of 64 bytes
# "<sequence> <slot> <trial|good> <tries> <crc32>". The valid one with the higher sequence counts, and the other one is
# overwritten, so that one is valid at every byte of the writing. <tries>: for a slot on trial how often it was started, for a
# good one how often in a row it failed to start (it crashed before it confirmed, or the watchdog ended it). After three tries
# the loader goes back to the other slot; it also does so when a program on trial reports that it reaches no broker.

import os
import sys
import time

ROOT = os.getcwd().rstrip("/")  # /flash on Pycom, nothing on MicroPython for the ESP32
MARK = b"  # tig-pi loader\n"
TRIES = 3
START_MS = 180000  # the watchdog until the program arms its own
CONSOLE_MS = 3600000  # the watchdog while somebody sits at the console
PAUSE_S = 5  # before the reset after a crash: time for Ctrl-C
SOON_S = 600  # after a crash within this time the pause is longer, unless on trial: each crash is written to the flash
REST_S = 60


def read(path):
    try:
        with open(path, "rb") as f:
            return f.read()
    except OSError:
        return b""


def exists(path):
    try:
        os.stat(path)
        return True
    except OSError:
        return False


# --- the pointer ---


def crc32(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xEDB88320 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


class Record:
    def __init__(self, sequence, slot, state, tries):
        self.sequence = sequence
        self.slot = slot  # "": there is no program
        self.state = state
        self.tries = tries
        self.text = "%d %s %s %d" % (sequence, slot, state, tries)


def parse(data):
    """A Record, or None if it is not valid."""
    try:
        sequence, slot, state, tries, crc = data.decode().split()
        record = Record(int(sequence), slot, state, int(tries))
        if int(crc, 16) == crc32(record.text.encode()) and slot in ("a", "b") and state in ("trial", "good"):
            return record
    except ValueError:
        pass
    return None


def pointer():
    """(the Record that counts, number of the file that may be overwritten)"""
    first, second = [parse(read("%s/slot.%d" % (ROOT, i))) for i in (0, 1)]
    if first and (not second or first.sequence > second.sequence):
        return first, 1
    if second:
        return second, 0
    for slot in ("a", "b"):
        if complete(slot):
            return Record(0, slot, "trial", 0), 0
    return Record(0, "", "trial", 0), 0


def point(slot, state, tries):
    """Write the pointer; a full or damaged file system must not prevent the start."""
    last, number = pointer()
    text = Record(last.sequence + 1, slot, state, tries).text
    record = ("%-63s\n" % ("%s %08x" % (text, crc32(text.encode())))).encode()
    path = "%s/slot.%d" % (ROOT, number)
    try:
        with open(path, "r+b" if len(read(path)) == len(record) else "wb") as f:
            f.write(record)
        if hasattr(os, "sync"):
            os.sync()
    except OSError as e:
        print("pointer not written:", e)


def complete(slot):
    return exists("%s/%s/manifest.json" % (ROOT, slot))


def other_than(slot):
    return "b" if slot == "a" else "a"


def choose():
    """The slot to start now; counts the try."""
    record = pointer()[0]
    slot, state, tries = record.slot, record.state, record.tries
    if not slot:
        return slot
    other = other_than(slot)
    counts = state == "trial" or starved()
    if state == "good" and counts:
        tries += 1
    if complete(other) and (not complete(slot) or tries >= TRIES):
        print("slot %s did not start, back to slot %s" % (slot, other))
        slot = other
        point(slot, "good", 0)
    elif state == "trial" and tries < TRIES:
        point(slot, state, tries + 1)
    elif state == "good" and counts and tries <= TRIES:
        point(slot, state, tries)
    return slot


def starved():
    """Whether the watchdog ended the last program, and nobody asked for the reset."""
    import machine

    if machine.reset_cause() != machine.WDT_RESET:
        return False
    try:
        import pycom

        # Pycom uses the watchdog for every reset that is asked for, and whoever asks writes a 1. The program erases it; if it
        # does not get so far, there is a 2 next time.
        if pycom.nvs_get("tig_reset") == 1:
            pycom.nvs_set("tig_reset", 2)
            return False
    except Exception:
        pass  # another platform, or no such key: the exception depends on the release
    return True


# --- the two files ---


def repair(mine, other):
    """Write the other file if it is missing, empty, damaged or of another version; a user's own file is left alone."""
    text = read("%s/%s.py" % (ROOT, mine)).split(b"\n", 1)
    text = ('ROLE = "%s"' % other).encode() + MARK + text[1]
    path = "%s/%s.py" % (ROOT, other)
    there = read(path)
    empty = there[:1] in (b"", b"\x00", b"\xff") or (there[:1] == b"#" and len(there) < 60)  # Pycom's is a comment
    if there == text or (not empty and MARK not in there[:40]):
        return
    try:
        with open(path + ".new", "wb") as f:
            f.write(text)
        if exists(path):
            os.remove(path)
        os.rename(path + ".new", path)
        print("%s.py repaired" % other)
    except OSError as e:
        print("%s.py not repaired:" % other, e)


# --- the start ---


class Start:
    """The program gets it as `confirm`, and calls it once it works."""

    def __init__(self, slot):
        self.slot = slot
        self.over = False  # it has confirmed, or gone back
        # On trial, with another program to go back to: it works only if it reaches the broker.
        self.trial = pointer()[0].state == "trial" and complete(other_than(slot))

    def __call__(self):
        self.over = True
        record = pointer()[0]
        if (record.slot, record.state, record.tries) != (self.slot, "good", 0):
            point(self.slot, "good", 0)
        print("slot %s works" % self.slot)  # whoever uploaded it waits for this

    def back(self):
        """Go back to the previous program, which runs after the reset."""
        self.over = True
        other = other_than(self.slot)
        point(other, "good", 0)
        print("slot %s reached no broker, back to slot %s" % (self.slot, other))


def start():
    slot = choose()
    if not slot:
        print("no program in %s/a or %s/b" % (ROOT, ROOT))
        return
    started = time.ticks_ms()
    confirm = Start(slot)
    sys.path.insert(0, "%s/%s/lib" % (ROOT, slot))
    try:
        watchdog(START_MS)
        try:
            # An older program, which may be the one to go back to, is tig/main.py.
            name = "tig.main" if exists("%s/%s/lib/tig/main.py" % (ROOT, slot)) else "tig.program"
            program = __import__(name, None, None, ("run",))
            program.run("%s/%s" % (ROOT, slot), confirm)
        except Exception as e:
            sys.print_exception(e)
            keep(e)
        trying = False
        if not confirm.over:
            record = pointer()[0]
            trying = record.tries > 0 and (record.tries < TRIES or complete(other_than(slot)))
            if record.state == "good" and record.tries < TRIES:
                point(slot, record.state, record.tries + 1)
        soon = not trying and time.ticks_diff(time.ticks_ms(), started) < SOON_S * 1000
        pause = REST_S if soon else PAUSE_S
        print("restart in %d s, Ctrl-C stops" % pause)
        watchdog(START_MS)
        time.sleep(pause)
        restart()
    except KeyboardInterrupt:
        watchdog(CONSOLE_MS)  # it cannot be stopped
        raise


def watchdog(ms):
    """Arm it, for less time if the board cannot wait so long (RP2: 8388 ms), as its file in the program says."""
    from machine import WDT

    try:
        WDT(timeout=ms)
    except ValueError:
        try:
            from tig.board import board

            board.watchdog(ms)
        except Exception as e:
            print("no watchdog:", e)


def restart():
    try:
        import pycom

        pycom.nvs_set("tig_reset", 1)  # on Pycom the watchdog does it: this tells a wanted reset from a hang
    except ImportError:
        pass
    import machine

    machine.reset()


def keep(error):
    """Keep the traceback for the program that starts next."""
    try:
        with open(ROOT + "/crash.txt", "w") as f:
            f.write("0\n")
            sys.print_exception(error, f)
    except OSError:
        pass


if ROLE == "boot":
    repair("boot", "main")
elif ROLE == "main":
    repair("main", "boot")
    start()
