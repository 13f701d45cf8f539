"""Pycom's expansion board 3 and shields: a PIC on the same port switches the LoPy4 into its ROM loader and out of it.

It listens when the port is opened with 5 data bits. A command sets one register: 02, address, and three masks (and, or, xor).
"""

from __future__ import annotations

import time

from ansible_collections.tig_pi.stack.plugins.module_utils.lopy4.transport import Line

RESET = ("028e00df0000", "020e00df0000", 0.2, "020e00ff2000", 0.1, "028e00ff2000")
ENTER = ("028c00df0000", "020c00df0000", "028e00fe0000", "020e00fe0000", *RESET)
LEAVE = ("028c00df0000", "020c00ff2000", "028e00ff0100", *RESET)
FIRMWARE = b"\x11"


def switch(path: str, steps: tuple) -> None:
    with Line(path, bits=5) as line:
        line.drop()
        for step in steps:
            if isinstance(step, str):
                line.write(bytes.fromhex(step))
                time.sleep(0.01)
            else:
                time.sleep(step)
        line.receive(0.25)


def enter(path: str) -> None:
    """Reset the LoPy4 into the ROM loader."""
    switch(path, ENTER)


def leave(path: str) -> None:
    """Reset the LoPy4 into its program."""
    switch(path, LEAVE)
