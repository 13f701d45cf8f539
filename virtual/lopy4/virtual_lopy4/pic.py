"""The expansion board's PIC, which answers commands on the same port (Pycom's pypic.py opens it with 5 data bits).

A pseudo-terminal always carries 8 bits, so commands are known by their bytes: a write that consists of whole commands
and nothing else, on the registers that the tools use.
"""

import re

ANSELA, TRISA, PORTA, TRISC, PORTC = 0x18C, 0x8C, 0x0C, 0x8E, 0x0E
COMMAND = re.compile(
    rb"(?s)[\x10\x11\x12]|\x00[\x8c\x0c\x8e\x0e]\x00|\x01[\x8c\x0c\x8e\x0e]\x00.|\x02[\x8c\x0c\x8e\x0e]\x00..."
)
HARDWARE, FIRMWARE, PRODUCT = 3, 11, 0xEF98


class Pic:
    """changed(held, download): called when the reset line or GPIO0 changed."""

    def __init__(self, changed):
        self.changed = changed
        self.power_on()

    def power_on(self):
        self.registers = {TRISA: 0xFF, PORTA: 0xFF, TRISC: 0xFF, PORTC: 0xFF}

    @property
    def held(self):
        """The module's reset line is pulled low."""
        return not (self.registers[TRISC] & 0x20 or self.registers[PORTC] & 0x20)

    @property
    def download(self):
        """GPIO0 is pulled low: a reset enters the ROM loader."""
        return not (self.registers[TRISC] & 0x01 or self.registers[PORTC] & 0x01)

    @staticmethod
    def commands(data):
        """The commands that `data` is made of, or None if it is something else."""
        found, at = [], 0
        while at < len(data):
            match = COMMAND.match(data, at)
            if not match:
                return None
            found.append(match.group())
            at = match.end()
        if len(found) > 1 and all(len(command) == 1 for command in found):
            return None
        return found

    def execute(self, command):
        """Carry out one command; the answer is empty or two bytes, little-endian."""
        before = self.held, self.download
        answer = None
        op = command[0]
        if op in (0x10, 0x11, 0x12):
            answer = {0x10: HARDWARE, 0x11: FIRMWARE, 0x12: PRODUCT}[op]
        else:
            address = command[1] | command[2] << 8
            if op == 0x00:
                answer = self.registers[address]
            elif op == 0x01:
                self.registers[address] = command[3]
            else:
                self.registers[address] = (self.registers[address] & command[3] | command[4]) ^ command[5]
        if (self.held, self.download) != before:
            self.changed(*before)
        return b"" if answer is None else answer.to_bytes(2, "little")
