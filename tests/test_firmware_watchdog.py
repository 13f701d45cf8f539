"""A board whose watchdog takes less than the loader and the program ask for: both start all the same."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest
from firmware.board import Board

from firmware import FIRMWARE, MICROPYTHON, write_loader

MACHINE = """
class WDT:
    def __init__(self, id=0, timeout=5000):
        if not 1 <= timeout <= {longest}:
            raise ValueError("timeout exceeds {longest}")
        print("armed for", timeout)
    def feed(self):
        pass

def reset():
    raise SystemExit

ADC = I2C = Pin = None
"""
PROGRAM = """
from tig.board import board
from tig.watchdog import Watchdog

def run(path, confirm):
    Watchdog(board, 120)
    confirm()
    raise {ends}
"""


def boot(folder, longest: int, says: int | None, ends: str = "ValueError") -> list[str]:
    """Start the loader on a board whose watchdog takes `longest` ms; its file says `says`, and is missing where None."""
    write_loader(folder)
    shutil.copytree(FIRMWARE / "lib", folder / "a/lib", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "machine.py").write_text(MACHINE.format(longest=longest))
    program = folder / "a/lib/tig"
    (program / "program.py").write_text(PROGRAM.format(ends=ends))
    file = program / "board_esp32.py"
    if says is None:
        file.unlink()
    else:
        file.write_text(file.read_text().replace("WATCHDOG_MS = 0x3FFFFFFF", f"WATCHDOG_MS = {says}"))
    (folder / "a/manifest.json").write_text(json.dumps({"version": "1", "files": {}}))
    with Board("mainline", speed=0) as board:
        ran = subprocess.run(
            [MICROPYTHON, "main.py"],
            cwd=folder,
            env=board.environment(),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    return ran.stdout.splitlines()


@pytest.mark.parametrize("longest", [8388, 5000])  # RP2, ESP8266
@pytest.mark.parametrize("ends", ["ValueError", "KeyboardInterrupt"])
def test_the_longest_time_is_that_of_the_boards_file(tmp_path, longest, ends):
    said = boot(tmp_path, longest, says=longest, ends=ends)
    assert "slot a works" in said, said
    # The loader before the program, the program, and the loader after it: for the pause, or for who is at the console.
    assert [line for line in said if line.startswith("armed")] == [f"armed for {longest}"] * 3


def test_without_the_boards_file_the_loader_goes_on_and_says_so(tmp_path):
    said = boot(tmp_path, 8388, says=None)
    assert any(line.startswith("no watchdog: ") for line in said), said
    assert "restart in 5 s, Ctrl-C stops" in said
    assert (tmp_path / "crash.txt").exists()


def test_a_board_that_takes_the_time_is_asked_for_it(tmp_path):
    said = boot(tmp_path, 10**9, says=0x3FFFFFFF)
    assert [line for line in said if line.startswith("armed")] == [
        "armed for 180000",
        "armed for 120000",
        "armed for 180000",
    ]
