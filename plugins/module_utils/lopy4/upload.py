"""Installs a program on a device: a declared tree of files.

The device has two slots, a/ and b/, and a boot pointer that selects one of them. The program is written to the slot that is not
running and verified there as a whole; only then does the pointer move. An interruption before that leaves the previous program.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping

from ansible_collections.tig_pi.stack.plugins.module_utils.lopy4.boot_pointer import RECORD, pointer, record
from ansible_collections.tig_pi.stack.plugins.module_utils.lopy4.device_code import CHANGE, LOOK
from ansible_collections.tig_pi.stack.plugins.module_utils.lopy4.raw_repl import RemoteError, Repl, compact
from ansible_collections.tig_pi.stack.plugins.module_utils.lopy4.start import Start, watch
from ansible_collections.tig_pi.stack.plugins.module_utils.lopy4.stream import batches, escaped, framed, packed
from ansible_collections.tig_pi.stack.plugins.module_utils.lopy4.transport import DeviceError, Gone

ROOT_FILES = ("boot.py", "main.py")
SETTINGS = "settings.json"
LOADER_MARK = b"# tig-pi loader"
# Bytes that may be under way: two chunks. Pycom's UART has a ring of 4096 bytes, MicroPython's REPL on the ESP32 one of 260.
CHUNKS = {"pycom": 1024, "mainline": 64}
BATCH = 24576  # the most bytes of the stream that the device holds in memory at a time
ATTEMPTS = 4
MARGIN = 32  # blocks that a sound file system may take for itself


class FormatNeeded(DeviceError):
    """The program cannot be installed until the device is formatted. The module adds the command that does so."""


class Full(FormatNeeded):
    def __init__(self, needed: str, left: str, root: str) -> None:
        super().__init__(
            f"The device is full: the program needs {needed}, and {left} of {root or '/'} is left for it. Remove files of yours, or "
            "format the device."
        )


class Damaged(FormatNeeded):
    """The file system of the device does not hold what was written to it."""

    def __init__(self, reason: str, more: str = "") -> None:
        super().__init__(
            f"The file system of the device is damaged ({reason}). This happens to a FAT when power fails during a write, or when "
            f"the flash wears out. {more}".rstrip()
        )


# On a sound file system the helper never gets one: it opens existing files and creates all directories.
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
        self.kept_since = 0  # time of the oldest reading on the device, if others made room; 1: all did
        self.sent_files: list[str] = []
        self.copied_files: list[str] = []
        self.trouble = 0

    @contextlib.contextmanager
    def _sound(self) -> Iterator[None]:
        """Report file errors, which the helper meets only on a damaged file system, as Damaged."""
        try:
            yield
        except RemoteError as error:
            if not FILE_ERROR.search(str(error)):
                raise
            if NO_ROOM.search(str(error)) and self.repl.ask(f"lost({self.block})", 120) < MARGIN * self.block:
                raise Full("more than it seemed", "nothing", self.root) from error
            raise Damaged(str(error).removeprefix("The device says: ")) from error

    # --- looking

    def look(self) -> None:
        """Read what the device is and which files it has; nothing is written."""
        with self._sound():
            self._learn()

    def _learn(self) -> None:
        try:
            seen = self._look()
        except RemoteError as error:
            if "hash" not in str(error):
                raise
            # The program was interrupted while it hashed: Pycom then hashes nothing until a hard reset.
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
        """Files that are not as an earlier upload left them; a run that changes something repairs them."""
        if not self.current:
            return []  # no earlier upload, or an unknown one
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
        """Write the program to the slot that is not running and point to it. Returns the slot.

        Raises:
            DeviceError: that failed; the previous program still runs.
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
        """Define the helper again if only a reset brought the device to its prompt (see Repl.enter)."""
        if not self.repl.ask("'receive' in globals()"):
            self.repl.run(compact(LOOK))
            self.can_change = False
            self._prepare()

    def _free_slot(self, other: str) -> str:
        """The slot to write to: never the last one that is known to work."""
        if not self.current:
            foreign = [slot for slot in "ab" if self.slots[slot][3] and not self.slots[slot][0]]
            if foreign and not any(self.records):
                raise DeviceError(
                    f"The device has a directory {self.root}/{foreign[0]} that is not tig-pi's, which keeps its programs there. "
                    "Move it away and run again."
                )
            # Without a pointer the loader starts this program: keep it.
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
            self.kept_since = self.repl.ask(f"clear_pages({slot!r}, {self.block}, {needed})", 120)
            there = self.repl.ask(f"room({slot!r}, {self.block})", 60)
        if needed > there:
            if self.repl.ask(f"lost({self.block})", 120) > max(needed, MARGIN * self.block):
                raise Damaged("it has used blocks that belong to no file")
            raise Full(f"{needed // 1024} kB", f"{there // 1024} kB", self.root)

    def _fill(self, slot: str) -> None:
        self._check_room(slot)
        if not any(self.records):
            # The records mark the two directories as ours, and get their final size.
            self.repl.run(f"for n in (0, 1):\n point(n, b' ' * {RECORD - 1} + b'\\n')")
            self.written += 2 * RECORD
        # Without its manifest the slot does not count, whatever happens from here on.
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
        raise Damaged(f"slot {slot} does not read back as it was written", "The previous program is in place.")

    def _point(self, slot: str, state: str) -> None:
        self.sequence += 1
        text = record(self.sequence, slot, state, 0)
        if not self.repl.ask(f"point({self.spare}, {text!r})"):
            raise Damaged("the boot pointer could not be written", "The previous program is in place.")
        self.records[self.spare] = text
        self.current, self.spare = pointer(self.records)
        self.written += RECORD

    def _replace_root(self) -> None:
        """Replace boot.py and main.py; if power fails between the two, each repairs the other."""
        stale = self.stale_root
        if not stale:
            return
        self._send([(f"{name}.new", self.root_files[name]) for name in stale])
        for name in stale:
            data = self.root_files[name]
            aside = self._aside(name)
            if not self.repl.ask(f"replace({name!r}, {hashlib.sha256(data).hexdigest()!r}, {aside!r})", 60):
                raise Damaged(f"{name} could not be replaced", "The previous one is in place.")

    def _aside(self, name: str) -> str:
        """The name under which a user's own boot.py or main.py is kept; "" if there is none."""
        there = self.root_there[name][1]
        if LOADER_MARK in there or not there or is_blank(self.repl.ask(f"text({name!r})", 60)):
            return ""
        stem = name.rpartition(".")[0]
        for number in range(1, 100):
            aside = f"{stem}.before-tig-pi.py" if number == 1 else f"{stem}.before-tig-pi.{number}.py"
            if self.repl.ask(f"absent({aside!r})"):
                return aside
        raise DeviceError(f"There are too many copies of {name} on the device; remove some of {stem}.before-tig-pi.*.")

    def started(self, slot: str, patience: float) -> Start:
        """How the program in `slot` starts after the reset.

        Raises:
            Damaged: it does not, because the file system has lost what was sent.
        """
        start = watch(self.repl, slot, patience)
        if not start.works:
            self._check_slot(slot)
        return start

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
            raise Damaged(f"slot {slot} has lost files that were written to it")

    # --- sending

    def _send(self, files: list[tuple[str, bytes]]) -> None:
        """Write files to the device, in as few batches as its memory allows."""
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
            # Smaller chunks after a failure: a line that loses bytes at full speed may work when it is slower.
            chunk = max(32, CHUNKS[self.platform] >> (2 * attempt))
            window = (4 if self.platform == "mainline" else 2) if attempt < 2 else 1
            try:
                if attempt:
                    self._define_again()
                self.repl.start(f"print(receive({len(wire)}, {chunk}, {bits}, {sha!r}))")
                if self._stream(wire, chunk, window, done, total) and self.repl.finish(60).endswith("True\n"):
                    return
            except RemoteError as error:
                # The stream arrived, but a file could not be written: sending again would not help.
                if "KeyboardInterrupt" not in str(error):
                    raise
            except Gone:
                raise
            except DeviceError:
                self.repl.interrupt()
            self.trouble += 1
        raise DeviceError(
            f"The serial line {self.repl.line.path} loses bytes: {ATTEMPTS} attempts failed. Use another cable or port. "
            "The previous program is in place."
        )

    def _stream(self, wire: bytes, chunk: int, window: int, done: int, total: int) -> bool:
        """Send with up to `window` chunks unacknowledged; False if the device stops acknowledging."""
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
                        # An exception, which finish() reads.
                        return True
                    break
                acknowledged += 1
            self.progress("sent", done + min(len(wire), acknowledged * chunk), total)
        return True
