# The Unix port's own clock and sockets, which child.py connects to the device's clock and network.
import socket  # noqa: F401
import time  # noqa: F401
