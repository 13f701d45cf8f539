# What a board has frozen into its firmware and runs before boot.py: mounts the file system on the flash and puts the
# platform's modules in the place of the Unix port's. Run by child.py, which leaves three functions in the globals.
import sys


def _start(call, block, clock):
    import builtins
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

    class Flash:
        # The file system's part of the flash as a block device (extended interface: littlefs writes parts of blocks).
        def __init__(self, blocks, size):
            self.blocks = blocks
            self.size = size

        def readblocks(self, n, buf, offset=0):
            size = self.size
            if len(buf) <= size:
                block(n * 2, buf, offset)
                return
            view = memoryview(buf)
            for i in range(0, len(buf), size):
                block((n + i // size) * 2, view[i : i + size], 0)

        def writeblocks(self, n, buf, offset=None):
            size = self.size
            if len(buf) <= size:
                block(n * 2 + 1, buf, offset or 0)
                return
            view = memoryview(buf)
            for i in range(0, len(buf), size):
                block((n + i // size) * 2 + 1, view[i : i + size], 0)

        def ioctl(self, op, arg):
            if op == 4:
                return self.blocks
            if op == 5:
                return self.size
            if op == 6:
                return 0

    device = Flash(configuration["blocks"], configuration["block_size"])
    root = configuration["root"]
    little = configuration["file_system"] == "littlefs"

    # Load everything while the host's files are still in reach.
    import _platform

    modules = _platform.modules(configuration)

    vfs.umount("/_")
    vfs.umount("/")
    fresh = False
    if little:
        try:
            fs = vfs.VfsLfs2(device, progsize=32, readsize=32, lookahead=32)
        except OSError:
            vfs.VfsLfs2.mkfs(device, progsize=32, readsize=32, lookahead=32)
            fs = vfs.VfsLfs2(device, progsize=32, readsize=32, lookahead=32)
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

    _platform.builtins(builtins)
    sys.path[:] = _platform.path
    del sys.argv[:]
    gc.collect()


_start(_native_call, _native_block, _native_clock)
for _name in ("_native_call", "_native_block", "_native_clock", "_start", "_name"):
    globals().pop(_name, None)
globals().pop("sys", None)
