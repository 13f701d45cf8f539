"""The virtual LoPy4's hardware for a MicroPython that runs as an ordinary program, started with `Board.environment`.

Its modules `machine`, `network`, `pycom`, `dht`, `socket`, `time` and `ubinascii` are the virtual board's; what they ask the
hardware comes here over a connection (common/_hardware.py). The program's clock counts: each request tells its time.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import socketserver
import tempfile
import threading
from pathlib import Path

from virtual_lopy4.control import execute
from virtual_lopy4.resets import reset_cause
from virtual_lopy4.hardware import Hardware, HardwareError
from virtual_lopy4.shared import Shared

HERE = Path(__file__).parent
MODULES = HERE.parents[1] / "virtual/lopy4/modules"
# Weather that does not change, so that readings can be compared.
WEATHER = {"temperature": 25, "humidity": 53, "pressure": 699.64, "boardtemperature": 15, "moisture": 0.7}


class Page(Shared):
    """The page that the hardware shares with the program, in the program's time."""

    now = 0

    def now_us(self) -> int:
        return self.now


class Storage:
    """The part of the flash that the hardware itself uses; it outlives the program."""

    def __init__(self):
        self.values: dict = {}

    def load_nvs(self) -> dict:
        return dict(self.values)

    def save_nvs(self, values: dict) -> bool:
        self.values = dict(values)
        return True


class Board:
    """One board; programs run on it one after the other, each from a reset to the next one."""

    def __init__(self, profile: str = "pycom", speed: float = 1, **settings):
        self.profile, self.speed = profile, speed
        self.file = tempfile.NamedTemporaryFile(prefix="board-")  # noqa: SIM115 - as long as the board
        self.file.truncate(mmap.PAGESIZE)
        self.page = Page.from_buffer(mmap.mmap(self.file.fileno(), mmap.PAGESIZE))
        self.page.speed = speed
        self.file_system = settings.pop("file_system", "LittleFS")  # or FAT; what there is in truth is a folder
        self.hardware = Hardware(self.page, Storage(), b"\x24\x0a\xc4\x01\x02\x03", settings)
        self.ctl("set", **WEATHER)
        self.next_reset = "power_on"  # why the next program starts
        self.reset = "power_on"
        self.resets = 0  # that a program asked for
        self.lock = threading.RLock()
        self.server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), self._handler(), bind_and_activate=True)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def environment(self, *more: Path) -> dict[str, str]:
        """Environment of the program; `more` are folders in which it looks for modules first."""
        folders = [*more, HERE / self.profile, HERE / "common", MODULES / self.profile, MODULES / "common"]
        return {
            **os.environ,
            "MICROPYPATH": ":".join(map(str, folders)),
            "SPEED": str(self.speed),
            "PROFILE": self.profile,
            "BOARD": f"{self.server.server_address[1]} {Page.wifi.offset} {self.file.name}",
        }

    def ctl(self, do: str, **arguments):
        """A command of the virtual board's: see control.py."""
        return execute(self, do, arguments)

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.file.close()

    def __enter__(self) -> Board:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def _handler(board):  # noqa: N805 - `self` is the handler's
        class Handler(socketserver.StreamRequestHandler):
            disable_nagle_algorithm = True

            def handle(self) -> None:
                with board.lock:
                    start = board.page.now
                    board._start()
                with contextlib.suppress(OSError):
                    for line in self.rfile:
                        name, arguments, now = json.loads(line)
                        with board.lock:
                            board.page.now = start + now
                            answer = board._answer(name, arguments)
                        self.wfile.write(json.dumps(answer).encode() + b"\n")

        return Handler

    def _start(self) -> None:
        self.reset, self.next_reset = self.next_reset, "power_on"
        self.page.boot_us = self.page.now
        if self.reset == "power_on":
            self.hardware.power_on()
        else:
            self.hardware.reset()

    def _answer(self, name: str, arguments: list) -> dict:
        self.hardware.step()
        if name == "clock":
            return {"value": self.page.operate(*arguments)}
        if name == "control":
            return {"value": self.ctl(arguments[0], **arguments[1])}
        if name == "reset":
            self.resets += 1
            self.next_reset = "watchdog" if self.profile == "pycom" else "software"
            return {"exit": True}
        if name == "file_system":
            return {"value": self.file_system}
        if name == "reset_cause":
            return {"value": reset_cause(self.profile, self.reset)}
        try:
            return {"value": getattr(self.hardware, "do_" + name)(*arguments)}
        except HardwareError as error:
            return {"error": error.args[0]}
