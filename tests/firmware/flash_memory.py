"""A flash in the memory of a MicroPython that runs as an ordinary program, with a LittleFS on it: it counts what is erased, and
keeps what is written, so that the power can be cut at each write afterwards. Loaded by the program, not by the tests."""

import os

import vfs

BLOCK = 4096
PYCOM = {"progsize": 4096, "readsize": 4096, "lookahead": 128}  # as Pycom's firmware has it
MAINLINE = {"progsize": 32, "readsize": 32}
TORN = ("none", "half", "erased", "garbage")  # what a cut leaves of a block, as in virtual_lopy4/cells.py


class Flash:
    def __init__(self, blocks, memory=None):
        self.memory = memory or bytearray(b"\xff" * (blocks * BLOCK))
        self.blocks = blocks
        self.erased = [0] * blocks  # how many times, by block
        self.operations = None  # (place, what is there afterwards) of each erasing and programming, if it is a list
        self.mark = 0, 0  # noted with each operation

    def readblocks(self, n, buf, offset=0):
        at = n * BLOCK + offset
        buf[:] = memoryview(self.memory)[at : at + len(buf)]

    def writeblocks(self, n, buf, offset=0):
        at = n * BLOCK + offset
        assert self.memory[at : at + len(buf)] == b"\xff" * len(buf)  # nothing is programmed that was not erased
        self._change(at, bytes(buf))

    def ioctl(self, op, arg):
        if op == 4:
            return self.blocks
        if op == 5:
            return BLOCK
        if op == 6:
            self.erased[arg] += 1
            self._change(arg * BLOCK, b"\xff" * BLOCK)
            return 0

    def _change(self, at, data):
        if self.operations is not None:
            self.operations.append((at, data, self.mark))
        self.memory[at : at + len(data)] = data

    def torn(self, at, data, how):
        """Another flash, in which the power was cut while `data` was written there."""
        memory = bytearray(self.memory)
        if how == "half":
            memory[at : at + len(data) // 2] = data[: len(data) // 2]
        elif how == "erased":
            memory[at : at + len(data)] = b"\xff" * len(data)
        elif how == "garbage":
            memory[at : at + len(data)] = bytes((index * 37 + at * 11 + 5) & 0xFF for index in range(len(data)))
        return Flash(self.blocks, memory)


class Mounted:
    """With the file system of a flash as the current directory."""

    def __init__(self, flash, sizes, fresh=False):
        if fresh:
            vfs.VfsLfs2.mkfs(flash, **sizes)
        self._fs = vfs.VfsLfs2(flash, **sizes)

    def __enter__(self):
        self._home = os.getcwd()
        vfs.mount(self._fs, "/flash")
        os.chdir("/flash")

    def __exit__(self, *_):
        os.chdir(self._home)
        vfs.umount("/flash")
