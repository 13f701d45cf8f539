"""Makes the program on a device equal to a declared tree of files.

The device has two slots, a/ and b/, and a pointer that says which one runs (two records, see firmware/loader.py). The program goes
into the slot that is not running, is checked there as a whole, and only then the pointer moves; whatever breaks off before
leaves the old program in place.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import time
import zlib
from collections.abc import Callable, Iterator, Mapping

from ansible.module_utils.lopy4_device import CHANGE, LOOK
from ansible.module_utils.lopy4_line import DeviceError, Gone
from ansible.module_utils.lopy4_repl import RemoteError, Repl, compact

ROOT_FILES = ("boot.py", "main.py")
SETTINGS = "settings.json"
LOADER_MARK = b"# tig-pi loader"
RECORD = 64
# Never in the stream: what the REPL or Pycom's receive interrupt acts upon, and CR, which the device reads as LF.
CONTROL = (1, 2, 3, 4, 5, 6, 13)
ESCAPE = 27
# Bytes that may be under way: two chunks. Pycom's UART has a ring of 4096 bytes, MicroPython's REPL on the ESP32 one of 260.
CHUNKS = {"pycom": 1024, "mainline": 64}
BATCH = 24576  # bytes of the stream that the device holds in memory at a time, at the most
ATTEMPTS = 4
MARGIN = 32  # blocks that a sound file system may take for itself
FULL = (
    "The device is full: the program needs {}, and {} of {} is left for it. Remove files of yours, or format it with "
    "`make format DEVICE=…`."
)


class Damaged(DeviceError):
    """The file system of the device does not hold what was written to it."""

    def __init__(self, reason: str, more: str = "") -> None:
        super().__init__(
            f"The file system of the device is damaged ({reason}): that is what a power cut while the flash is written does to a "
            "FAT, or a flash that wears out. `make format DEVICE=…` makes a new file system (LittleFS, which survives power cuts) "
            "and puts the program on it; the LoRa and Sigfox keys stay. In a playbook of your own: "
            f"`--tags lopy4_erase_fs,lopy4`. {more}".rstrip()
        )


# --- the pointer


def parse(record: bytes) -> tuple[int, str, str, int] | None:
    """(sequence, slot, state, tries) of a record, or None when it is not sound."""
    match = re.fullmatch(rb"((\d+) ([ab]) (trial|good) (\d+)) ([0-9a-f]{8}) *\n", record)
    if not match or len(record) != RECORD or zlib.crc32(match[1]) != int(match[6], 16):
        return None
    return int(match[2]), match[3].decode(), match[4].decode(), int(match[5])


def pointer(records: list[bytes]) -> tuple[tuple[int, str, str, int] | None, int]:
    """The record that counts (None: there is none), and the number of the one that may be overwritten."""
    parsed = [parse(record) for record in records]
    if parsed[0] and (not parsed[1] or parsed[0][0] > parsed[1][0]):
        return parsed[0], 1
    return parsed[1], 0


def record(sequence: int, slot: str, state: str, tries: int) -> bytes:
    text = f"{sequence} {slot} {state} {tries}"
    return f"{text} {zlib.crc32(text.encode()):08x}".ljust(RECORD - 1).encode() + b"\n"


# --- the stream


def escaped(data: bytes) -> bytes:
    data = data.replace(bytes((ESCAPE,)), bytes((ESCAPE, ESCAPE ^ 64)))
    for char in CONTROL:
        data = data.replace(bytes((char,)), bytes((ESCAPE, char ^ 64)))
    # The last byte makes sure that no write consists of what the expansion board's PIC takes for a command.
    return data + b"."


def deflated(data: bytes, bits: int) -> bytes:
    """Raw deflate with a window of 2 to the power of `bits` bytes."""
    press = zlib.compressobj(9, zlib.DEFLATED, -bits, 9)
    return press.compress(data) + press.flush()


def packed(data: bytes) -> tuple[bytes, int]:
    """What goes down the line for `data`, and the bits of its window; 0 where it is not compressed."""
    bits = 15 if len(data) > 8192 else 13
    small = deflated(data, bits)
    return (small, bits) if len(small) < len(data) else (data, 0)


def framed(file: tuple[str, bytes]) -> bytes:
    """A file as it stands in the stream: path, size, content."""
    path, data = file
    return b"%s\n%d\n%s" % (path.encode(), len(data), data)


def batches(files: list[tuple[str, bytes]], limit: int) -> list[list[tuple[str, bytes]]]:
    """Files in groups whose stream the device can hold; a file that alone is larger is a group of its own."""
    groups: list[list[tuple[str, bytes]]] = []
    for file in files:
        if groups and len(packed(b"".join(map(framed, [*groups[-1], file])))[0]) <= limit:
            groups[-1].append(file)
        else:
            groups.append([file])
    return groups


# --- the tree

# Our helper opens what is there, makes every directory, and nobody else is at work.
FILE_ERROR = re.compile(r"OSError|UnicodeError")
NO_ROOM = re.compile(r"OSError: .*(28|ENOSPC)")


def manifest(files: Mapping[str, bytes], version: str) -> bytes:
    """The slot's list of files: its hash stands for the whole slot."""
    entries = {name: [len(data), hashlib.sha256(data).hexdigest()] for name, data in sorted(files.items())}
    return json.dumps({"files": entries, "version": version}, sort_keys=True, separators=(",", ":")).encode()


def is_blank(text: bytes) -> bool:
    """A main.py or boot.py that does nothing, such as Pycom's firmware makes them."""
    return all(not line.strip() or line.lstrip().startswith(b"#") for line in text.splitlines())


class Upload:
    """One visit to a device.

    Args:
        repl: the device.
        files: the program, by path below the slot (settings.json among them).
        root: boot.py and main.py, by name.
        version: the program's version.
        progress: called with a word and two numbers of bytes, done and all.
    """

    def __init__(
        self,
        repl: Repl,
        files: Mapping[str, bytes],
        root: Mapping[str, bytes],
        version: str,
        progress: Callable[[str, int, int], None] = lambda *_: None,
    ) -> None:
        self.repl, self.files, self.root_files, self.version, self.progress = (
            repl,
            dict(files),
            dict(root),
            version,
            progress,
        )
        self.manifest = manifest(self.files, version)
        self.wanted = hashlib.sha256(self.manifest).hexdigest()
        self.can_change = False
        self.written = 0
        self.sent_files: list[str] = []
        self.copied_files: list[str] = []
        self.trouble = 0

    @contextlib.contextmanager
    def _sound(self) -> Iterator[None]:
        """Says of an error that our helper meets only on a damaged file system what it means."""
        try:
            yield
        except RemoteError as error:
            if not FILE_ERROR.search(str(error)):
                raise
            if NO_ROOM.search(str(error)) and self.repl.ask(f"lost({self.block})", 120) < MARGIN * self.block:
                raise DeviceError(FULL.format("more than it seemed", "nothing", self.root or "/")) from error
            raise Damaged(str(error).removeprefix("The device says: ")) from error

    # --- looking

    def look(self) -> None:
        """Learn what the device is and what is on it; nothing is written."""
        with self._sound():
            self._learn()

    def _learn(self) -> None:
        try:
            seen = self._look()
        except RemoteError as error:
            if "hash" not in str(error):
                raise
            # A program was interrupted while it hashed: on Pycom nothing is hashed any more until a hard reset.
            self.repl.reset()
            self.repl.enter()
            seen = self._look()
        (
            self.root,
            uname,
            self.sys_platform,
            self.mac,
            records,
            self.root_there,
            self.slots,
            self.block,
            self.free,
            self.heap,
        ) = seen
        self.uname = dict(zip(("sysname", "nodename", "release", "version", "machine"), uname, strict=True))
        self.platform = "pycom" if self.sys_platform != "esp32" else "mainline"
        self.records = records
        self.current, self.spare = pointer(records)
        self.sequence = self.current[0] if self.current else 0
        self.slot = self.current[1] if self.current else ""

    def _look(self) -> tuple:
        self.repl.run(compact(LOOK))
        return self.repl.ask(f"look({self.wanted!r})", 60)

    @property
    def previous_version(self) -> str:
        return self.slots[self.slot][2] if self.slot else ""

    def is_right(self, slot: str) -> bool:
        return slot != "" and self.slots[slot][:2] == (self.wanted, [])

    @property
    def stale_root(self) -> list[str]:
        """Which of boot.py and main.py differ."""
        return [
            name
            for name, data in self.root_files.items()
            if self.root_there[name][0] != hashlib.sha256(data).hexdigest()
        ]

    @property
    def unchanged(self) -> bool:
        return self.is_right(self.slot) and self.current[2:] == ("good", 0) and not self.stale_root

    def damage(self) -> list[str]:
        """What is not as an upload of before left it; a run that changes something repairs it."""
        if not self.current:
            return []  # there was none, or nobody knows
        manifest, wrong = self.slots[self.slot][:2]
        found = list(wrong or ()) if manifest else [f"the program in slot {self.slot}"]
        for name in self.stale_root:
            head = self.root_there[name][1]
            if not head.strip(b"\0\xff") or (LOADER_MARK not in head and is_blank(head)):
                found.append(name)
        return found

    def differences(self) -> list[tuple[str, str]]:
        """What differs from the slot that runs, as (path, "new" | "changed" | "removed"); asks the device."""
        there = self.repl.ask(f"manifest({self.slot + '/manifest.json'!r})[1]") if self.slot else {}
        bad = set(self.repl.ask(f"wrong({self.slot!r}, 'manifest.json')", 60)) if self.slot else set()
        found = []
        for name, data in sorted(self.files.items()):
            if name not in there:
                found.append((name, "new"))
            elif there[name][1] != hashlib.sha256(data).hexdigest() or name in bad:
                found.append((name, "changed"))
        found += [(name, "removed") for name in sorted(set(there) - set(self.files))]
        for name in self.stale_root:
            found.append((name, "changed" if self.root_there[name][0] else "new"))
        return found

    def text(self, path: str) -> str:
        """A file of the device, for a diff."""
        self._prepare()
        return self.repl.ask(f"text({path!r})", 60).decode("utf-8", "replace")

    # --- changing

    def change(self) -> str:
        """Put the program into a slot that is not running and point to it. Returns the slot.

        Raises:
            DeviceError: it could not; the program that was there before is the one that runs.
        """
        with self._sound():
            return self._change()

    def _change(self) -> str:
        other = {"a": "b", "b": "a"}.get(self.slot, "")
        self._prepare()
        if self.is_right(self.slot):
            target = self.slot
        elif self.is_right(other):
            target = other
        else:
            target = self._free_slot(other)
            self._fill(target)
        if not self.current or (target, "good", 0) != self.current[1:]:
            self._point(target, "trial")
        self._replace_root()
        return target

    def _prepare(self) -> None:
        if not self.can_change:
            code, bits = packed(compact(CHANGE).encode())
            self.repl.run(f"exec(inflate(a2b_base64({base64.b64encode(code).decode()!r}), {bits}).read())")
            self.can_change = True

    def _define_again(self) -> None:
        """What was defined on the device is gone if only a reset brought it to its prompt (see Repl.enter)."""
        if not self.repl.ask("'receive' in globals()"):
            self.repl.run(compact(LOOK))
            self.can_change = False
            self._prepare()

    def _free_slot(self, other: str) -> str:
        """The slot to write into: never the last one that is known to work."""
        if not self.current:
            foreign = [slot for slot in "ab" if self.slots[slot][3] and not self.slots[slot][0]]
            if foreign and not any(self.records):
                raise DeviceError(
                    f"The device has a directory {self.root}/{foreign[0]} that is not tig-pi's, which keeps its programs there. "
                    "Move it away and run again."
                )
            # A program without a pointer is what the loader would start: leave it alone.
            return "b" if self.slots["a"][0] and not self.slots["b"][0] else "a"
        if self.current[2] == "trial" and self.slots[other][0]:
            self._check_room(self.slot)
            self._point(other, "good")
            return self.slot
        return other

    def _check_room(self, slot: str) -> None:
        sizes = [len(data) for data in (*self.files.values(), self.manifest)]
        sizes += [len(self.root_files[name]) for name in self.stale_root]
        folders = {name.rpartition("/")[0] for name in self.files}
        needed = sum(-(-size // self.block) * self.block for size in sizes) + (len(folders) + 3) * self.block
        there = self.repl.ask(f"room({slot!r}, {self.block})", 60)
        if needed > there:
            if self.repl.ask(f"lost({self.block})", 120) > max(needed, MARGIN * self.block):
                raise Damaged("what is taken of it belongs to no file")
            raise DeviceError(FULL.format(f"{needed // 1024} kB", f"{there // 1024} kB", self.root or "/"))

    def _fill(self, slot: str) -> None:
        self._check_room(slot)
        if not any(self.records):
            # From here on the two directories are ours, and the records have their size.
            self.repl.run(f"for n in (0, 1):\n point(n, b' ' * {RECORD - 1} + b'\\n')")
            self.written += 2 * RECORD
        # Without its manifest a slot is none, whatever becomes of it now.
        self.repl.run(f"remove({slot + '/manifest.json'!r})\nremove({slot + '/manifest.new'!r})")
        short = {name: hashlib.sha256(data).hexdigest()[:16] for name, data in self.files.items()}
        other = self.repl.ask(f"inventory({'b' if slot == 'a' else 'a'!r})", 120)
        for attempt in range(3):
            there = self.repl.ask(f"inventory({slot!r})", 120)
            stray = sorted(set(there) - set(short))
            if stray:
                self.repl.run(f"clear({slot!r}, {stray!r})", 60)
            missing = [name for name in sorted(short) if there.get(name) != short[name]]
            copied = [name for name in missing if other.get(name) == short[name] and attempt == 0]
            if copied:
                self.repl.run(f"copy({'b' if slot == 'a' else 'a'!r}, {slot!r}, {copied!r})", 120)
            sent = [name for name in missing if name not in copied]
            self._send([(f"{slot}/{name}", self.files[name]) for name in sent])
            if attempt == 0:
                self.sent_files = sent
                self.copied_files = copied
            if self.repl.ask(f"seal({slot!r}, {self.version!r}, {self.wanted!r})", 120):
                self.written += len(self.manifest)
                return
        raise Damaged(
            f"what was written to slot {slot} does not come back as it was sent",
            "The program that was there before is in place.",
        )

    def _point(self, slot: str, state: str) -> None:
        self.sequence += 1
        text = record(self.sequence, slot, state, 0)
        if not self.repl.ask(f"point({self.spare}, {text!r})"):
            raise Damaged("the boot pointer could not be written", "The old program is in place.")
        self.records[self.spare] = text
        self.current, self.spare = pointer(self.records)
        self.written += RECORD

    def _replace_root(self) -> None:
        """boot.py and main.py, each of which puts the other right should power fail in between."""
        stale = self.stale_root
        if not stale:
            return
        self._send([(f"{name}.new", self.root_files[name]) for name in stale])
        for name in stale:
            data = self.root_files[name]
            aside = self._aside(name)
            if not self.repl.ask(f"replace({name!r}, {hashlib.sha256(data).hexdigest()!r}, {aside!r})", 60):
                raise Damaged(f"{name} could not be replaced", "The old one is in place.")

    def _aside(self, name: str) -> str:
        """Where somebody's own boot.py or main.py is kept; "" if there is nothing to keep."""
        there = self.root_there[name][1]
        if LOADER_MARK in there or not there or is_blank(self.repl.ask(f"text({name!r})", 60)):
            return ""
        stem = name.rpartition(".")[0]
        for number in range(1, 100):
            aside = f"{stem}.before-tig-pi.py" if number == 1 else f"{stem}.before-tig-pi.{number}.py"
            if self.repl.ask(f"absent({aside!r})"):
                return aside
        raise DeviceError(f"There are too many copies of {name} on the device; remove some of {stem}.before-tig-pi.*.")

    def started(self, slot: str, patience: float) -> tuple[bool, str]:
        """After the reset: whether the program in `slot` works, and what it said, as `watch` returns it.

        Raises:
            Damaged: it does not, because the file system has lost what was sent.
        """
        works, said = watch(self.repl, slot, patience)
        if not works:
            self._check_slot(slot)
        return works, said

    def _check_slot(self, slot: str) -> None:
        """Compare a slot with what was sent, on a device that has read its file system again since."""
        try:
            self.repl.enter()
            self.look()
        except Damaged:
            raise
        except DeviceError:
            return  # what the program printed is all there is to tell
        if not self.is_right(slot):
            raise Damaged(f"slot {slot} does not hold what was written to it")

    # --- sending

    def _send(self, files: list[tuple[str, bytes]]) -> None:
        """Write files on the device, in as few rounds as its memory allows."""
        groups = batches(files, max(1024, min(BATCH, self.heap // 6)))
        streams = [packed(b"".join(map(framed, group))) for group in groups]
        total = sum(len(stream) for stream, _ in streams)
        done = 0
        for group, (stream, bits) in zip(groups, streams, strict=True):
            self._send_batch(stream, bits, done, total)
            done += len(stream)
            self.written += sum(len(data) for _, data in group)

    def _send_batch(self, stream: bytes, bits: int, done: int, total: int) -> None:
        wire, sha = escaped(stream), hashlib.sha256(stream).hexdigest()
        for attempt in range(ATTEMPTS):
            # After a failure in ever smaller pieces: a line that loses bytes at full speed may carry them slowly.
            chunk = max(32, CHUNKS[self.platform] >> (2 * attempt))
            window = (4 if self.platform == "mainline" else 2) if attempt < 2 else 1
            try:
                if attempt:
                    self._define_again()
                self.repl.start(f"print(receive({len(wire)}, {chunk}, {bits}, {sha!r}))")
                if self._stream(wire, chunk, window, done, total) and self.repl.finish(60).endswith("True\n"):
                    return
            except RemoteError as error:
                # What was sent has arrived whole, or was not looked at: a file that can't be written is no matter of the line.
                if "KeyboardInterrupt" not in str(error):
                    raise
            except Gone:
                raise
            except DeviceError:
                self.repl.interrupt()
            self.trouble += 1
        raise DeviceError(
            f"The line to {self.repl.line.path} loses bytes: {ATTEMPTS} attempts failed. Use another cable or port. "
            "The old program is in place."
        )

    def _stream(self, wire: bytes, chunk: int, window: int, done: int, total: int) -> bool:
        """Send with so many chunks under way; False when the device does not acknowledge them."""
        line = self.repl.line
        chunks = [wire[at : at + chunk] for at in range(0, len(wire), chunk)]
        sent = acknowledged = 0
        while acknowledged < len(chunks):
            while sent < len(chunks) and sent - acknowledged < window:
                line.write(chunks[sent])
                sent += 1
            heard = line.receive(3.0)
            if not heard:
                self.repl.interrupt()
                return False
            for place, byte in enumerate(heard):
                if byte != ord(".") or acknowledged == len(chunks):
                    line.pending = heard[place:] + line.pending
                    if acknowledged < len(chunks):
                        # It said something else: an exception, which finish() reads.
                        return True
                    break
                acknowledged += 1
            self.progress("sent", done + min(len(wire), acknowledged * chunk), total)
        return True


# --- after the reset

STARTED = re.compile(rb"slot ([ab]) works")
WAITS = re.compile(rb"slot ([ab]) runs and has not reached the broker")
BACK = re.compile(rb"slot ([ab]) (?:did not start|reached no broker), back to slot ([ab])")
NOTHING = re.compile(rb"no program in ")
TRACEBACK = re.compile(rb"Traceback \(most recent call last\):\r?\n(?:  .*\r?\n)*.*\r?\n")
WAITING = "runs, and has not reached the broker yet"
RESTARTS = 4  # so many, and no other program to go back to


def watch(repl: Repl, slot: str, patience: float) -> tuple[bool, str]:
    """Read the console after the reset until the program in `slot` has confirmed that it works, or was given up.

    Returns:
        Whether it works, and "" or WAITING then; else the last traceback that it printed (or the last lines, if none).
    """
    heard, deadline = b"", time.monotonic() + patience
    while time.monotonic() < deadline:
        heard = (heard + repl.line.receive(0.5))[-20000:]
        works = STARTED.search(heard)
        if works and works[1].decode() == slot:
            return True, ""
        waits = WAITS.search(heard)
        if waits and waits[1].decode() == slot:
            return True, WAITING
        if BACK.search(heard) or NOTHING.search(heard) or heard.count(b"restart in ") >= RESTARTS:
            break
    traces = TRACEBACK.findall(heard)
    said = traces[-1] if traces else b"\n".join(heard.splitlines()[-8:])
    return False, said.decode("utf-8", "replace").replace("\r\n", "\n").strip()
