"""The program for nine days of readings on a clock that only sleeping moves: memory does not grow."""

from __future__ import annotations

import subprocess

import pytest
from firmware.network import Broker, Device, TimeServer

from firmware import MICROPYTHON

RUN = """
import gc
import os
import sys
sys.path.insert(0, "a/lib")
import time
import _hardware
from tig import link, log
link.IDLE_MS = 5000  # fewer idle turns between two readings
log.say = lambda what: None
from tig.program import Program

cycles, marks, every = {cycles}, {marks}, {every}
program = Program(os.getcwd() + "/a", None)
count = 0
measure = program._measure

def counted():
    global count
    count += 1
    measure()

def wifi(state):
    _hardware.call("control", "wifi", {{"state": state}})

program._measure = counted
most = 0
while count < cycles:
    time.sleep_ms(program.turn())
    most = max(most, program._ring.count)
    if count % every == every * 7 // 10:
        wifi("down")
    elif count % every == every * 7 // 10 + 20:
        wifi("up")
    if count in marks:
        marks.remove(count)
        while program._ring.count or program._link._outbox.sending:  # at rest
            time.sleep_ms(program.turn())
        gc.collect()
        gc.collect()
        print(count, gc.mem_alloc())
print("end", program._ring.dropped, most)
"""


def run(tmp_path, cycles: int, marks: list[int], every: int):
    broker, time_server = Broker(tmp_path / "broker", persistent=False), TimeServer()
    device = Device(tmp_path / "device", speed=0)
    try:
        broker.start()
        device.settings(broker.port, time_server.port, ring=100)
        (device.folder / "run.py").write_text(RUN.format(cycles=cycles, marks=marks, every=every))
        ran = subprocess.run(
            [MICROPYTHON, "-X", "heapsize=512k", "run.py"],
            cwd=device.folder,
            env=device.board.environment(),
            capture_output=True,
            text=True,
            timeout=cycles / 50 + 60,
            check=False,
        )
        assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-2000:]
        return parse(ran.stdout)
    finally:
        broker.stop()
        time_server.close()
        device.close()


def parse(output: str):
    """({cycles: bytes in use}, readings dropped, most readings held)"""
    *marks, last = output.splitlines()
    _, dropped, most = last.split()
    return {int(cycles): int(used) for cycles, used in map(str.split, marks)}, int(dropped), int(most)


@pytest.mark.slow
def test_memory_after_50000_cycles_equals_memory_after_500(tmp_path):
    """Wi-Fi goes for twenty readings every thousand; each return is a new socket, a new login and a backlog."""
    after, dropped, most = run(tmp_path, 50002, [500, 5000, 50000], every=1000)
    assert after[50000] == after[500] == after[5000]
    assert dropped == 0
    assert most >= 20  # the outages were real


def test_memory_is_steady_over_a_short_run(tmp_path):
    after, _, most = run(tmp_path, 1502, [500, 1000, 1500], every=200)
    assert len(set(after.values())) == 1, after
    assert most >= 20
