"""Readings in the flash on a LittleFS in the memory of a MicroPython: what their tests and `bench/cuts` share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from firmware import FIRMWARE, HERE

ON_FLASH = """
import json, os, sys
import flash_memory
from flash_memory import Flash, Mounted, TORN
from tig.pages import Pages
from tig.ring import Ring

with open("data.json") as f:
    data = json.load(f)
sizes = getattr(flash_memory, data["sizes"])


class Life:
    def __init__(self, fields, capacity, interval):
        names = ["field-%d" % number for number in range(fields)]
        self.interval = interval
        self.fields = fields
        self.pages = Pages(names, capacity, 2 * interval + 5)
        self.ring = Ring(capacity, fields, 2 * interval + 5)
        self.ring.attach(self.pages)

    def add(self, count, left=0):
        # As many readings as ten minutes have, delivered but for the last ones, and written.
        ring = self.ring
        for _ in range(count):
            at = 1700000000 + ring.end * self.interval
            ring.push(0, at, [ring.end % 1000] * self.fields)
            if ring.count > left:
                ring.remove(ring.first)
        ring.store()
"""


def on_flash(folder: Path, code: str, timeout: float = 300, **data):
    """Run code with the tests' interpreter, whichever is under test: only that one can have a LittleFS in its memory."""
    (folder / "data.json").write_text(json.dumps(data))
    (folder / "run.py").write_text(
        f'{ON_FLASH}\n{code}\nwith open("result.json", "w") as f:\n    json.dump(result, f)\n'
    )
    ran = subprocess.run(
        [Path(sys.executable).with_name("micropython"), "-X", "heapsize=96M", "run.py"],
        cwd=folder,
        env={**os.environ, "MICROPYPATH": f"{FIRMWARE / 'lib'}:{HERE}"},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return json.loads((folder / "result.json").read_text())


CUTS = """
flash = Flash(128)
cases = failures = 0
wrong = []


def look(cut, mark, what):
    # Everything that was written is there, as it was, what waited waits again, and the next life goes on.
    global cases
    cases += 1
    acknowledged, first = mark
    with Mounted(cut, sizes):
        life = Life(4, data["capacity"], 15)
        ring = life.ring
        missing = []
        for number in range(ring.begin, max(acknowledged, ring.end)):
            time = ring.time(number)
            if time != 1700000000 + number * 15 or ring.values(number)[0] != number % 1000:
                missing.append(number)
        if missing or ring.begin > max(0, acknowledged - data["capacity"]):
            wrong.append([what, acknowledged, ring.begin, ring.end, missing[:5]])
        if not first <= ring.first <= first + 40:
            wrong.append([what, "waits", first, ring.first])
        life.add(40)
        end = ring.end
        again = Life(4, data["capacity"], 15).ring
        if again.end != end or not again.time(end - 1):
            wrong.append([what, "not written on"])


with Mounted(flash, sizes, True):
    with open("program.py", "w") as f:
        f.write("x" * 9000)
image = Flash(128, bytearray(flash.memory))
flash.operations = []
with Mounted(flash, sizes):
    life = Life(4, data["capacity"], 15)
    for number in range(data["appends"]):
        life.add(40, number % 3 * 30)
        flash.mark = life.ring.end, life.ring.first
for place, (at, written, mark) in enumerate(flash.operations):
    if place % data["every"] == 0:
        for how in TORN:
            look(image.torn(at, written, how), mark, [place, how])
    image.memory[at : at + len(written)] = written
look(image, flash.mark, "whole")
result = [len(flash.operations), cases, wrong]
"""
