"""The ESP32's ROM loader on the serial line, as far as esptool asks for it with `--no-stub`.

Protocol: Espressif, "Serial Protocol" (docs.espressif.com/projects/esptool): SLIP frames, request `00 op size checksum
data`, response `01 op size value data status`.
"""

import struct

END, ESC, ESC_END, ESC_ESC = 0xC0, 0xDB, 0xDC, 0xDD
SPI_BASE = 0x3FF42000
SPI_CMD, SPI_USR2, SPI_W0 = SPI_BASE, SPI_BASE + 0x24, SPI_BASE + 0x80
EFUSE = 0x3FF5A000
UART_CLOCK_DIVIDER = 0x3FF40014
MAGIC_REGISTER, MAGIC = 0x40001000, 0x00F01D83
FLASH_ID = 0x1740EF  # 8 MB


def encode(payload):
    """One SLIP frame."""
    body = bytes(payload).replace(b"\xdb", b"\xdb\xdd").replace(b"\xc0", b"\xdb\xdc")
    return b"\xc0" + body + b"\xc0"


class RomLoader:
    """State of the loader from entering download mode to the next reset.

    flash: flash.Flash. mac: 6 bytes. answer(bytes): sends to the host. change_baud(int).
    """

    def __init__(self, flash, mac, answer, change_baud):
        self.flash, self.mac, self.answer, self.change_baud = flash, mac, answer, change_baud
        self.frame = None
        self.escaped = False
        self.registers = {}
        self.write_at = self.write_end = 0
        self.block = 0x400

    @property
    def between_frames(self):
        return not self.frame

    def receive(self, data):
        for byte in data:
            if byte == END:
                if self.frame:
                    self.request(bytes(self.frame))
                    self.frame = None
                else:
                    self.frame = bytearray()
                self.escaped = False
            elif self.frame is None:
                continue
            elif self.escaped:
                self.frame.append({ESC_END: END, ESC_ESC: ESC}.get(byte, byte))
                self.escaped = False
            elif byte == ESC:
                self.escaped = True
            else:
                self.frame.append(byte)

    def reply(self, op, value=0, data=b"", error=0):
        status = bytes([1 if error else 0, error, 0, 0])
        self.answer(encode(struct.pack("<BBHI", 1, op, len(data) + 4, value) + data + status))

    def request(self, frame):
        if len(frame) < 8 or frame[0] != 0:
            return
        _direction, op, size, checksum = struct.unpack_from("<BBHI", frame)
        data = frame[8 : 8 + size]
        if len(data) != size:
            return self.reply(op, error=5)
        words = struct.unpack(f"<{len(data) // 4}I", data[: len(data) // 4 * 4])
        if op == 0x08:  # SYNC: answered eight times
            for _ in range(8):
                self.reply(op, 0x20120707)
        elif op == 0x0A:  # READ_REG
            self.reply(op, self.register(words[0]))
        elif op == 0x09:  # WRITE_REG
            for at in range(0, len(words) // 4 * 4, 4):
                address, value, mask, _delay = words[at : at + 4]
                self.set_register(address, (self.registers.get(address, 0) & ~mask) | (value & mask))
            self.reply(op)
        elif op in (0x0D, 0x0B):  # SPI_ATTACH, SPI_SET_PARAMS
            self.reply(op)
        elif op == 0x0F:  # CHANGE_BAUD: answered at the old rate
            self.reply(op)
            self.change_baud(words[0])
        elif op == 0x02:  # FLASH_BEGIN: erases
            size, _blocks, self.block, offset = words[:4]
            if offset + size > 0x800000 or offset % 0x1000:
                return self.reply(op, error=6)
            if size:
                self.flash.erase(offset, -(-size // 0x1000) * 0x1000)
            self.write_at, self.write_end = offset, offset + size
            self.reply(op)
        elif op == 0x03:  # FLASH_DATA
            length, sequence = words[:2]
            block = data[16 : 16 + length]
            total = 0xEF
            for byte in block:
                total ^= byte
            if total != checksum & 0xFF or len(block) != length:
                return self.reply(op, error=7)
            self.program(self.write_at + sequence * self.block, block)
            self.reply(op)
        elif op == 0x04:  # FLASH_END: stay in the loader
            self.reply(op)
        elif op == 0x13:  # SPI_FLASH_MD5
            self.reply(op, data=self.flash.md5(words[0], words[1]).encode())
        elif op == 0x0E:  # READ_FLASH_SLOW
            self.reply(op, data=self.flash.read(words[0], min(words[1], 64)).ljust(64, b"\0"))
        else:
            self.reply(op, error=5)

    def program(self, offset, data):
        """NOR flash: programming can only clear bits."""
        data = data[: max(0, 0x800000 - offset)]
        old = self.flash.read(offset, len(data))
        if old.count(0xFF) != len(old):
            data = (int.from_bytes(old, "big") & int.from_bytes(data, "big")).to_bytes(len(old), "big")
        self.flash.write(offset, data)

    def register(self, address):
        if address == MAGIC_REGISTER:
            return MAGIC
        if address == EFUSE + 4:
            return int.from_bytes(self.mac[2:6], "big")
        if address == EFUSE + 8:
            return int.from_bytes(self.mac[0:2], "big")
        if address == UART_CLOCK_DIVIDER:
            return 40000000 // 115200  # a crystal of 40 MHz
        if address == EFUSE + 12:
            return 1 << 15  # chip revision 1
        return self.registers.get(address, 0)

    def set_register(self, address, value):
        self.registers[address] = value
        if address == SPI_CMD and value & (1 << 18):  # user command: done at once
            self.registers[SPI_CMD] = 0
            if self.registers.get(SPI_USR2, 0) & 0xFF == 0x9F:
                self.registers[SPI_W0] = FLASH_ID
            else:
                self.registers[SPI_W0] = 0
