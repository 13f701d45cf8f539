import os as _os
from collections import namedtuple

import vfs as _vfs

for _key in dir(_os):
    if _key in ["chdir", "getcwd", "ilistdir", "listdir", "mkdir", "remove", "rename", "rmdir", "stat", "statvfs", "unlink", "urandom", "VfsFat", "VfsLfs2", "mount", "umount"]:
        globals()[_key] = getattr(_os, _key)
unlink = _os.remove
mount = _vfs.mount
umount = _vfs.umount
VfsFat = _vfs.VfsFat
VfsLfs2 = _vfs.VfsLfs2

_names = None


def setup(configuration):
    global _names
    kind = namedtuple("uname", ("sysname", "nodename", "release", "version", "machine"))
    _names = kind(
        "esp32",
        "esp32",
        configuration["release"],
        configuration["version"],
        "Generic ESP32 module with SPIRAM with ESP32",
    )


def uname():
    return _names


def sync():
    pass
