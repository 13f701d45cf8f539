"""MicroPython's raw REPL over a serial line, with raw-paste where the device has it.

Bytes: MicroPython, docs/reference/repl.rst; for 1.11 lib/utils/pyexec.c.
"""

from __future__ import annotations

import ast
import re
import struct
import time

from ansible_collections.tig_pi.stack.plugins.module_utils.lopy4.transport import DeviceError, Line

INTERRUPT, RAW, FRIENDLY, RUN, PASTE = b"\x03", b"\x01", b"\x02", b"\x04", b"\x05"
SAFE_BOOT = b"\x06"  # Pycom: a hard reset without boot.py and main.py, at any time
BANNER = b"raw REPL; CTRL-B to exit\r\n>"

SILENT = (
    "The device on {port} does not answer. Look at the expansion board: are the jumpers TX and RX in place? Does the cable "
    "have data lines (many charge only)? Press its reset button and run again. Is it a device with MicroPython? If it has none, "
    "set lopy4_interpreter."
)


class RemoteError(DeviceError):
    """An exception on the device."""

    def __init__(self, traceback: str) -> None:
        self.traceback = traceback
        super().__init__(f"The device says: {traceback.strip().splitlines()[-1] if traceback.strip() else 'nothing'}")


def compact(source: str) -> str:
    """The source without comments, blank lines and with one blank for each level: less to send."""
    lines = []
    for line in source.strip("\n").split("\n"):
        bare = re.sub(r"\s+#\s.*$", "", line.rstrip())
        text = bare.lstrip(" ")
        if text and not text.startswith("#"):
            lines.append(" " * ((len(bare) - len(text)) // 4) + text)
    return "\n".join(lines) + "\n"


class Repl:
    """The raw REPL of the device at the end of a line."""

    def __init__(self, line: Line) -> None:
        self.line = line
        self.raw_paste: bool | None = None
        self.console = b""
        self.left = True  # the program runs, and not our commands

    def enter(self, patience: float = 12.0) -> None:
        """Interrupt the program and get a prompt: with Ctrl-C, or with Pycom's safe boot if that does not help.

        Raises:
            DeviceError: nothing answers.
        """
        self.line.drop()
        deadline = time.monotonic() + patience
        attempt = 0
        while True:
            if attempt in (2, 6):
                self.line.write(SAFE_BOOT)
                self.line.read_until((b">>> ",), 6)
            self.line.write(b"\r" + INTERRUPT + INTERRUPT)
            self.line.write(b"\r" + RAW)
            heard = self.line.read_until((BANNER,), (0.4, 0.8)[attempt] if attempt < 2 else 1.5)
            if heard is not None:
                self.console = heard
                self.left = False
                self._settle()
                return
            attempt += 1
            if time.monotonic() > deadline:
                raise DeviceError(SILENT.format(port=self.line.path))

    def _settle(self) -> None:
        """Each attempt may still produce a prompt: skip them all, up to the answer to our own question."""
        token = f"tig-pi-{time.monotonic_ns():x}".encode()
        for _ in range(5):
            self.line.write(RAW + b"print('" + token + b"')" + RUN)
            if self.line.read_until((token + b"\r\n\x04\x04>",), 1.5) is not None:
                return
            self.line.write(INTERRUPT)
        raise DeviceError(SILENT.format(port=self.line.path))

    def start(self, source: str) -> None:
        """Run `source` on the device; the caller reads its output."""
        code = source.encode()
        if self.raw_paste is not False and self._paste(code):
            return
        for at in range(0, len(code), 256):
            self.line.write(code[at : at + 256])
        self.line.write(RUN)
        answer = self.line.read_until((b"OK", BANNER), 10 + len(code) / 5000)
        if answer is None or not answer.endswith(b"OK"):
            raise DeviceError(
                f"The device on {self.line.path} did not take a command. Press its reset button and run again."
            )

    def _paste(self, code: bytes) -> bool:
        if self.raw_paste is None or self.raw_paste:
            self.line.write(PASTE + b"A" + RAW)
            answer = self._exactly(2)
            if answer == b"ra":
                self.line.read_until((b">",), 1)
            if answer != b"R\x01":
                self.raw_paste = False
                return False
            self.raw_paste = True
        (window,) = struct.unpack("<H", self._exactly(2))
        credit = window
        at = 0
        while at < len(code):
            while credit == 0 or self.line.pending:
                byte = self._exactly(1)
                if byte == b"\x01":
                    credit += window
                elif byte == b"\x04":  # it stops us because of a syntax error, which the caller reads
                    self.line.write(RUN)
                    return True
                else:
                    raise DeviceError(
                        f"The device on {self.line.path} lost synchronisation. Press its reset button and run again."
                    )
            part = code[at : at + credit]
            self.line.write(part)
            at += len(part)
            credit -= len(part)
            self.line.pending += self.line.receive(0)
        self.line.write(RUN)
        if self.line.read_until((b"\x04",), 10) is None:
            raise DeviceError(
                f"The device on {self.line.path} did not take a command. Press its reset button and run again."
            )
        return True

    def _exactly(self, size: int) -> bytes:
        data = b""
        deadline = time.monotonic() + 5
        while len(data) < size:
            data += self.line.receive(0.5)
            if time.monotonic() > deadline:
                raise DeviceError(f"The device on {self.line.path} fell silent. Press its reset button and run again.")
        self.line.pending = data[size:] + self.line.pending
        return data[:size]

    def finish(self, timeout: float = 30.0) -> str:
        """The output of the code that was started, once it has ended.

        Raises:
            RemoteError: it ended with an exception.
            DeviceError: it did not end in time.
        """
        output = self.line.read_until((b"\x04",), timeout)
        error = self.line.read_until((b"\x04",), 5) if output is not None else None
        if output is None or error is None or self.line.read_until((b">",), 5) is None:
            raise DeviceError(f"The device on {self.line.path} fell silent. Press its reset button and run again.")
        if error[:-1]:
            raise RemoteError(error[:-1].decode("utf-8", "replace").replace("\r\n", "\n"))
        return output[:-1].decode("utf-8", "replace").replace("\r\n", "\n")

    def run(self, source: str, timeout: float = 30.0) -> str:
        self.start(source)
        return self.finish(timeout)

    def ask(self, expression: str, timeout: float = 30.0):
        """The value of an expression on the device."""
        said = self.run(f"print(repr({expression}))", timeout).strip()
        try:
            return ast.literal_eval(said)
        except (ValueError, SyntaxError) as error:
            raise RemoteError(f"{said[-60:]!r} is not an answer to {expression[:60]}") from error

    def interrupt(self) -> None:
        """End whatever runs and return to the prompt; pending output is discarded."""
        self.line.write(INTERRUPT)
        time.sleep(0.05)
        self.enter()

    def reset(self) -> None:
        """Reset the device: its program starts again, also after a safe boot."""
        # Pycom resets through its watchdog; the key tells the loader that this reset was intended (see firmware/loader.py).
        self.start(
            "import machine\ntry:\n import pycom\n pycom.nvs_set('tig_reset', 1)\nexcept ImportError:\n pass\n"
            "machine.reset()"
        )
        self.left = True
        # Wait for the ROM's message, so that nobody sees the old prompt.
        self.line.read_until((b"rst:",), 0.5)
