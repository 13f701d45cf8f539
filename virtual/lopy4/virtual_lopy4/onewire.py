"""A chip on a 1-Wire bus: resets, slots and ROM commands, after the data sheet of the DS18B20 (Maxim 19-7487).

Times are microseconds at the pins. A pulse or a slot that the data sheet does not allow is listed in `violations`, and the chip does
not answer until the next reset.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

RESET = 480  # the least, low; and the least until the first slot
SLOT = 61  # the least, with the recovery time
ONE, ZERO = (1, 15), (60, 120)  # how long the bus is low in a slot
VALID = 15  # how long a 0 of the chip is certain to be on the bus, from the falling edge on
SEARCH, READ, MATCH, SKIP = 0xF0, 0x33, 0x55, 0xCC


def checksum(data: bytes) -> int:
    """CRC-8 with the polynomial x^8 + x^5 + x^4 + 1, bits in the order of the bus: a division of the whole message."""
    remainder = 0
    for bit in bits(data):
        feedback = remainder & 1 ^ bit
        remainder = remainder >> 1 ^ (0b10001100 if feedback else 0)
    return remainder


def bits(data: bytes) -> list[int]:
    return [byte >> place & 1 for byte in data for place in range(8)]


# What a chip does from a reset on. It yields None for a slot in which the bus master writes, and is sent the bit; or a function that
# returns the bit of a slot in which the chip answers.
Conversation = Iterator[Callable[[], int] | None]


def receive(count: int) -> Conversation:
    value = 0
    for place in range(8 * count):
        value |= (yield None) << place
    return value


def send(data: bytes) -> Conversation:
    for bit in bits(data):
        yield lambda bit=bit: bit


class Chip:
    """function: what it does with a command for itself (byte -> conversation)."""

    def __init__(self, address: bytes, function: Callable[[int], Conversation]) -> None:
        self.address, self.function = address, function
        self.violations: list[str] = []
        self.power_on()

    def power_on(self) -> None:
        self.low_since: float | None = None
        self.holds = (0.0, 0.0)  # from when to when it pulls the bus low
        self.since = 0.0  # the last reset ended, or the last slot began
        self.least = 0.0  # how long that lasts at least
        self.conversation: Conversation | None = None  # None: it waits for a reset
        self.answer: Callable[[], int] | None = None
        self.early: float | None = None  # how long after the one before a slot began, if that is too early

    def level(self, us: float) -> int:
        return 0 if self.holds[0] <= us < self.holds[1] else 1

    def edge(self, low: bool, us: float) -> None:
        """The bus master pulls the bus low, or lets it go."""
        if low and self.low_since is None:
            self.low_since = us
            if self.conversation:
                self.begin(us)
        elif not low and self.low_since is not None:
            lasted, self.low_since = us - self.low_since, None
            if lasted >= RESET:
                self.reset(us)
            elif lasted > ZERO[1]:
                self.violated(f"the bus was low for {lasted:.0f} us: too long for a slot, too short for a reset")
            elif self.conversation:
                self.end(lasted)

    def reset(self, us: float) -> None:
        presence = us + random.uniform(15, 60)
        self.holds = (presence, presence + random.uniform(60, 240))
        self.since, self.least = us, RESET
        self.conversation = self.converse()
        self.answer = next(self.conversation)

    def begin(self, us: float) -> None:
        if us - self.since < self.least:
            # A reset may follow at any time; a slot may not, and only its length tells which of them this is.
            self.early = us - self.since
        else:
            self.early = None
        self.since, self.least = us, SLOT
        if self.answer and not self.answer():
            self.holds = (us, us + random.uniform(VALID, 45))

    def end(self, lasted: float) -> None:
        if self.early is not None:
            return self.violated(f"a slot {self.early:.0f} us after the one before or the reset")
        if ONE[0] <= lasted <= ONE[1]:
            bit = 1
        elif not self.answer and ZERO[0] <= lasted <= ZERO[1]:
            bit = 0
        else:
            return self.violated(
                f"the bus was low for {lasted:.1f} us in a slot of the {'chip' if self.answer else 'master'}"
            )
        try:
            self.answer = self.conversation.send(None if self.answer else bit)
        except StopIteration:
            self.conversation = self.answer = None

    def violated(self, what: str) -> None:
        self.violations = [*self.violations[-9:], what]
        self.conversation = self.answer = None

    def converse(self) -> Conversation:
        command = yield from receive(1)
        if command == SEARCH:
            for bit in bits(self.address):
                yield lambda bit=bit: bit
                yield lambda bit=bit: 1 - bit
                if (yield None) != bit:
                    return
        elif command == READ:
            yield from send(self.address)
        elif command == MATCH:
            for bit in bits(self.address):
                if (yield None) != bit:
                    return
        elif command != SKIP:
            return self.violated(f"ROM command {command:#04x}")
        yield from self.function((yield from receive(1)))
