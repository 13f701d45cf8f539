import os as _os
from collections import namedtuple

import vfs as _vfs

chdir = _os.chdir
getcwd = _os.getcwd
ilistdir = _os.ilistdir
listdir = _os.listdir
mkdir = _os.mkdir
remove = _os.remove
unlink = _os.remove
rmdir = _os.rmdir
stat = _os.stat
statvfs = _os.statvfs
urandom = _os.urandom
mount = _vfs.mount
umount = _vfs.umount
rename = _os.rename  # FAT: fails with EEXIST where the new name exists

_names = None


def setup(configuration):
    global _names
    kind = namedtuple("uname", ("sysname", "nodename", "release", "version", "machine", "lorawan", "sigfox", "pybytes"))
    _names = kind(
        "LoPy4",
        "LoPy4",
        configuration["release"],
        configuration["version"],
        "LoPy4 with ESP32",
        "1.0.2",
        "1.0.1",
        "1.7.1",
    )


def uname():
    return _names


def sync():
    pass
