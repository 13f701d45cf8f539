import sys as _sys

import _stdio

argv = _sys.argv
byteorder = "little"
exit = _sys.exit
implementation = ("micropython", (1, 11, 0))
maxsize = 0x7FFFFFFF
modules = _sys.modules
path = _sys.path
platform = "LoPy4"
print_exception = _sys.print_exception
stdin = _stdio.Stdin(_sys.stdin, False)
version = "3.4.0"
version_info = (3, 4, 0)


class _Stdout:
    pass


stdout = _sys.stdout
stderr = _sys.stdout


def setup(configuration):
    from collections import namedtuple

    global implementation
    implementation = namedtuple("implementation", ("name", "version"))("micropython", (1, 11, 0))
    # sys.exc_info is on in Pycom's build, the Unix port has none: left out
