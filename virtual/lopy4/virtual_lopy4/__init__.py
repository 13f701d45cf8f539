"""A LoPy4 made of software: see ../README.md."""

from .control import Control
from .device import Device
from .interpreter import find_micropython

__all__ = ["Control", "Device", "find_micropython"]
