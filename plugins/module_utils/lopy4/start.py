"""What a device says after a reset: whether its new program works."""

from __future__ import annotations

import re
import time
from typing import NamedTuple

from ansible_collections.tig_pi.stack.plugins.module_utils.lopy4.raw_repl import Repl

STARTED = re.compile(rb"slot ([ab]) works")
WAITS = re.compile(rb"slot ([ab]) runs and has not reached the broker")
BACK = re.compile(rb"slot ([ab]) (?:did not start|reached no broker), back to slot ([ab])")
NOTHING = re.compile(rb"no program in ")
TRACEBACK = re.compile(rb"Traceback \(most recent call last\):\r?\n(?:  .*\r?\n)*.*\r?\n")
SENSOR = re.compile(rb"\] sensor ([^:\r\n]+): ([^\r\n]+)\r?\n")  # its state has changed
RESTARTS = 4  # after this number there is no other program to go back to


class Start(NamedTuple):
    works: bool
    faults: dict[str, str]  # what is wrong with a sensor, by its name
    waits: bool = False  # it runs, and has not reached the broker yet
    said: str = ""  # if it does not work: the last traceback that it printed, or the last lines


def sensor_faults(heard: bytes) -> dict[str, str]:
    states = {name.decode(): state.decode("utf-8", "replace") for name, state in SENSOR.findall(heard)}
    return {name: state for name, state in states.items() if state != "working"}


def watch(repl: Repl, slot: str, patience: float) -> Start:
    """Read the console after the reset until the program in `slot` has confirmed that it works, or was given up."""
    heard, deadline = b"", time.monotonic() + patience
    while time.monotonic() < deadline:
        heard = (heard + repl.line.receive(0.5))[-20000:]
        works = STARTED.search(heard)
        if works and works[1].decode() == slot:
            return Start(True, sensor_faults(heard))
        waits = WAITS.search(heard)
        if waits and waits[1].decode() == slot:
            return Start(True, sensor_faults(heard), waits=True)
        if BACK.search(heard) or NOTHING.search(heard) or heard.count(b"restart in ") >= RESTARTS:
            break
    traces = TRACEBACK.findall(heard)
    said = traces[-1] if traces else b"\n".join(heard.splitlines()[-8:])
    return Start(False, {}, said=said.decode("utf-8", "replace").replace("\r\n", "\n").strip())
