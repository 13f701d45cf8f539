"""Two hosts of the inventory that claim one device."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from ansible_collections.tig_pi.stack.plugins.module_utils.lopy4.ports import BY_ID


def lopy4_conflicts(host: str, hostvars: Mapping, port: str, mac: str, where: str) -> list[str]:
    """What other hosts of the inventory claim of this one's: its port, or its chip.

    Args:
        host: the device.
        hostvars: the variables of all hosts.
        port, mac, where: the device's, as it is going to be flashed.
    """

    def same_place(other: Mapping) -> bool:
        there = other.get("__lopy4_where") or other.get("lopy4_serial_host")
        return there == where or not (there or hostvars[host].get("lopy4_serial_host"))

    def real(path: str) -> str:
        return os.path.realpath(path) if where == "localhost" else os.path.normpath(path)

    problems = []
    for name in hostvars:
        other = hostvars[name]
        if name == host:
            continue
        if port and other.get("lopy4_port") and real(str(other["lopy4_port"])) == real(port) and same_place(other):
            problems.append(
                f"{host}: lopy4_port: {name} also uses {other['lopy4_port']} on {where}. Correct the wrong one; `ls {BY_ID}` lists the "
                "ports there."
            )
        if mac and _digits(other.get("lopy4_mac")) == _digits(mac):
            problems.append(
                f"{host}: lopy4_mac: {name} also has the chip {mac}. Correct one of them, or remove the host that no longer exists "
                "from the inventory."
            )
    return problems


def _digits(mac: object) -> str:
    return re.sub(r"[^0-9a-f]", "", str(mac or "").lower())
