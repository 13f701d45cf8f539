#!/usr/bin/python
"""List the serial ports of a host, and what is plugged into them."""

from __future__ import annotations

DOCUMENTATION = r"""
module: lopy4_ports
short_description: List the serial ports of a host, and what is plugged into them
description:
  - Asks the device on each port for its chip, MAC and firmware. Its program is interrupted for that, and restarted.
  - Ports of other USB devices than the boards of a LoPy4 are listed and not asked.
options:
  skip:
    description: Ports that are listed and not asked, because it is known what is there.
    type: list
    elements: str
    default: []
  port:
    description: A port that is asked whatever its name; only this one, if given.
    type: str
requirements: [pyserial]
attributes:
  check_mode:
    support: full
"""

EXAMPLES = r"""
- name: See what is plugged in
  lopy4_ports:
  delegate_to: pi
"""

RETURN = r"""
ports:
  description: One entry a port, with C(port), and C(mac), C(firmware), C(platform) and C(file_system), or C(problem).
  type: list
  elements: dict
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible.module_utils.lopy4_line import DFU, PYSERIAL, DeviceError, foreign, ports, waiting
from ansible.module_utils.lopy4_visit import identified


def main() -> None:
    module = AnsibleModule(
        argument_spec={"skip": {"type": "list", "elements": "str", "default": []}, "port": {"type": "str"}},
        supports_check_mode=True,
    )
    if not PYSERIAL:
        module.fail_json(msg=missing_required_lib("pyserial (Debian: python3-serial)"))
    found = []
    only = module.params["port"]
    for path in [*([only] if only else []), *(path for path in ports() if path != only)]:
        if path != only and (only or path in module.params["skip"]):
            found.append({"port": path, "problem": "not asked"})
            continue
        strange = "" if path == only else foreign(path)
        if strange:
            found.append({"port": path, "problem": f"{strange} (name it as the port if it is one)"})
            continue
        try:
            found.append({"port": path, **identified(path, 4.0)})
        except DeviceError as error:
            found.append({"port": path, "problem": str(error)})
    found += [{"port": f"USB {place}", "problem": DFU} for place in waiting()]
    module.exit_json(changed=False, ports=found)


if __name__ == "__main__":
    main()
