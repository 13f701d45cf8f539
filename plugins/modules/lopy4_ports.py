#!/usr/bin/python
"""List the serial ports of a host and the devices on them."""

from __future__ import annotations

DOCUMENTATION = r"""
module: lopy4_ports
short_description: List the serial ports of a host and the devices on them
description:
  - Queries the device on each port for its chip, MAC and firmware. This interrupts and restarts its program.
  - USB devices that are not LoPy4 boards are listed but not queried.
options:
  skip:
    description: Ports that are listed but not queried, because their devices are known.
    type: list
    elements: str
    default: []
  port:
    description: Query only this port, whatever its name.
    type: str
requirements: [pyserial]
attributes:
  check_mode:
    support: full
"""

EXAMPLES = r"""
- name: List the serial ports
  tig_pi.stack.lopy4_ports:
  delegate_to: pi
"""

RETURN = r"""
ports:
  description: One entry a port, with C(port), and C(mac), C(firmware), C(platform) and C(file_system), or C(problem).
  type: list
  elements: dict
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.tig_pi.stack.plugins.module_utils.lopy4.ports import DFU, foreign, ports, waiting
from ansible_collections.tig_pi.stack.plugins.module_utils.lopy4.session import identified
from ansible_collections.tig_pi.stack.plugins.module_utils.lopy4.transport import DeviceError, require_pyserial


def main() -> None:
    module = AnsibleModule(
        argument_spec={"skip": {"type": "list", "elements": "str", "default": []}, "port": {"type": "str"}},
        supports_check_mode=True,
    )
    require_pyserial(module, changed=False, ports=[])
    found = []
    only = module.params["port"]
    for path in [*([only] if only else []), *(path for path in ports() if path != only)]:
        if path != only and (only or path in module.params["skip"]):
            found.append({"port": path, "problem": "not queried"})
            continue
        strange = "" if path == only else foreign(path)
        if strange:
            found.append({"port": path, "problem": f"{strange} (if it is one, pass its port)"})
            continue
        try:
            found.append({"port": path, **identified(path, 4.0)})
        except DeviceError as error:
            found.append({"port": path, "problem": str(error)})
    found += [{"port": f"USB {place}", "problem": DFU} for place in waiting()]
    module.exit_json(changed=False, ports=found)


if __name__ == "__main__":
    main()
