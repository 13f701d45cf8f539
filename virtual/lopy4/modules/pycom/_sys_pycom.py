import sys as _sys
from collections import namedtuple as _namedtuple

import _stdio

argv = _sys.argv
byteorder = "little"
exit = _sys.exit
exc_info = _sys.exc_info
implementation = None  # set up below
maxsize = 0x7FFFFFFF
modules = _sys.modules
path = _sys.path
platform = "LoPy4"
print_exception = _sys.print_exception
stdin = _stdio.Stdin(_sys.stdin, False)
version = "3.4.0"
version_info = (3, 4, 0)
stdout = _stdio.Stdout(_sys.stdout)
stderr = stdout


def setup(configuration):
    global implementation
    implementation = _namedtuple("implementation", ("name", "version"))("micropython", (1, 11, 0))
