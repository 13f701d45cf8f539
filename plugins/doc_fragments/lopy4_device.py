"""The options by which the modules of sensor nodes find a device."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  name:
    description: Name of the device, for messages.
    type: str
    required: true
  port:
    description: Serial port. Without one the device is found by O(mac).
    type: str
  mac:
    description: MAC of the chip. If another chip is on the port, the module fails before it writes anything.
    type: str
"""
