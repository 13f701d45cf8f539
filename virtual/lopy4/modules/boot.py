# What a board has frozen into its firmware and runs before boot.py: mounts the file system on the flash and puts the
# platform's modules in the place of the Unix port's. Run by child.py, which leaves four functions in the globals.
import sys


def _start(call, block, clock, limit):
    import gc
    import os

    import vfs

    here = "/_/"
    vfs.mount(vfs.VfsPosix(__file__[: -len("/boot.py")]), here[:-1])
    sys.path.insert(0, here + "common")
    sys.path.insert(0, here)

    import _hardware

    _hardware.connect(call, clock)
    configuration = _hardware.call("configuration")
    profile = configuration["profile"]
    sys.path[0] = here + profile

    READ, WRITE, PROGRAM, ERASE = range(4)  # what block() does; WRITE erases before

    class Blocks:
        # The file system's part of the flash as littlefs has it: it erases a block before it programs it.
        def __init__(self, blocks, size):
            self.blocks = blocks
            self.size = size

        def readblocks(self, n, buf, offset=0):
            block(n * 4 + READ, buf, offset)

        def writeblocks(self, n, buf, offset=0):
            block(n * 4 + PROGRAM, buf, offset)

        def ioctl(self, op, arg):
            if op == 4:
                return self.blocks
            if op == 5:
                return self.size
            if op == 6:
                block(arg * 4 + ERASE, b"", 0)
                return 0

    class Sectors:
        # The same as Pycom's FAT has it: sectors of 512 bytes, of which the firmware keeps the eight of one block in memory.
        # They are written, all of them, when another block is touched, or something is synchronised.
        SECTOR = 512

        def __init__(self, blocks, size):
            self.count = blocks * size // self.SECTOR
            self.each = size // self.SECTOR
            self.memory = memoryview(bytearray(size))
            self.block = None
            self.dirty = False

        def flush(self):
            if self.dirty:
                block(self.block * 4 + WRITE, self.memory, 0)
                self.dirty = False

        def turn_to(self, n):
            if n // self.each != self.block:
                self.flush()
                self.block = n // self.each
                block(self.block * 4 + READ, self.memory, 0)
            at = n % self.each * self.SECTOR
            return self.memory[at : at + self.SECTOR]

        def readblocks(self, n, buf):
            view = memoryview(buf)
            for i in range(0, len(view), self.SECTOR):
                view[i : i + self.SECTOR] = self.turn_to(n + i // self.SECTOR)

        def writeblocks(self, n, buf):
            view = memoryview(buf)
            for i in range(0, len(view), self.SECTOR):
                self.turn_to(n + i // self.SECTOR)[:] = view[i : i + self.SECTOR]
                self.dirty = True

        def ioctl(self, op, arg):
            if op == 4:
                return self.count
            if op == 5:
                return self.SECTOR
            if op in (2, 3):
                self.flush()
                return 0

    root = configuration["root"]
    little = configuration["file_system"] == "littlefs"
    device = (Blocks if little else Sectors)(configuration["blocks"], configuration["block_size"])
    # Pycom's littlefs reads and programs whole blocks.
    sizes = {"progsize": 4096, "readsize": 4096, "lookahead": 128} if profile == "pycom" else {"progsize": 32, "readsize": 32}

    # Load everything while the host's files are still in reach.
    import _platform

    modules = _platform.modules(configuration)

    vfs.umount("/_")
    vfs.umount("/")
    fresh = False
    if little:
        try:
            fs = vfs.VfsLfs2(device, **sizes)
        except OSError:
            vfs.VfsLfs2.mkfs(device, **sizes)
            fs = vfs.VfsLfs2(device, **sizes)
            fresh = True
        vfs.mount(fs, root)
    else:
        fs = vfs.VfsFat(device)
        try:
            vfs.mount(fs, root)
        except OSError:
            vfs.VfsFat.mkfs(device)
            fs = vfs.VfsFat(device)
            vfs.mount(fs, root)
            fresh = True
    os.chdir(root)
    if fresh or profile == "pycom":
        _platform.prepare(fresh, root)

    for name in list(sys.modules):
        sys.modules.pop(name)
    for name in modules:
        sys.modules[name] = modules[name]

    _platform.restrict(limit)
    sys.path[:] = _platform.path
    del sys.argv[:]
    gc.collect()


_start(_native_call, _native_block, _native_clock, _native_limit)
for _name in ("_native_call", "_native_block", "_native_clock", "_native_limit", "_start", "_name"):
    globals().pop(_name, None)
globals().pop("sys", None)
