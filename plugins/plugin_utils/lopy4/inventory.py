"""A new device in the inventory: which of the ports it is on, and its line in hosts.yml."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.tig_pi.stack.plugins.plugin_utils.lopy4.drivers import Driver, drivers
from ansible_collections.tig_pi.stack.plugins.plugin_utils.lopy4.sensors import limits, pins
from ansible_collections.tig_pi.stack.plugins.plugin_utils.lopy4.text import perhaps


def lopy4_known(hosts: list[str], hostvars: Mapping) -> dict[str, list[str]]:
    """The ports, chips and Wi-Fi networks of the devices that the inventory has already."""
    variables = {"ports": "lopy4_port", "macs": "lopy4_mac", "wifi_ssids": "lopy4_wifi_ssid"}
    return {
        key: [hostvars[host][name] for host in hosts if hostvars[host].get(name)] for key, name in variables.items()
    }


def lopy4_choice(found: list[Mapping], port: str, known: list[str]) -> dict:
    """The new device among the ports that were found: the one on `port`, or the only one that is not known yet.

    Returns:
        Its entry; with the key `problem` if there is none, or more than one: a sentence that lists what is on each port.
    """
    listed = "; ".join(
        f"{entry['port']}: {entry.get('problem') or entry['firmware'] + ', chip ' + entry['mac']}" for entry in found
    )
    if port:
        chosen = [entry for entry in found if entry["port"] == port]
        return dict(chosen[0]) if chosen else {"problem": f"There is no port {port}. Available: {listed or 'none'}."}
    new = [entry for entry in found if "mac" in entry and entry["mac"] not in known]
    if not new:
        return {"problem": f"No new device is plugged in. On the ports: {listed or 'there are none at all'}."}
    if len(new) > 1:
        return {"problem": f"There are several new devices; say which one with PORT=…: {listed}."}
    return dict(new[0])


def lopy4_proposal(names: list[str], program: str, own_drivers: str = "") -> list[str]:
    """The lines of `lopy4_sensors` for sensors of these drivers, with all settings that the drivers declare.

    Settings without a default are marked with an arrow; those with a default are comments, unless they are pins.

    Raises:
        AnsibleFilterError: there is no such driver.
    """
    catalogue = drivers(program, own_drivers)
    lines = []
    for name in names:
        if name not in catalogue:
            raise AnsibleFilterError(
                f"There is no driver {name}. Available: {', '.join(sorted(catalogue))}.{perhaps(name, catalogue)}"
            )
        lines += [f"- driver: {name}", *(f"  {line}" for line in _settings(catalogue[name]))]
    return lines


def _settings(driver: Driver) -> list[str]:
    lines = []
    for name, setting in driver.settings.items():
        value = setting.get("default", setting.get("example"))
        if value is None:
            text = ""
        elif "choices" in setting and isinstance(value, int):
            text = f" {value:#x}"
        else:
            text = f" {value if setting['kind'] == 'pin' else json.dumps(value)}"
        comment = "" if name in driver.needs() or (value is not None and setting["kind"] == "pin") else "# "
        arrow = "<-- " if name in driver.needs() else ""
        may_be = f": {pins(setting['direction'])}" if setting["kind"] == "pin" else limits(setting)
        lines.append(f"{comment}{name}:{text} # {arrow}{setting['about']}{may_be}")
    return lines


def lopy4_with_host(text: str, name: str) -> str:
    """The text of hosts.yml with one more host in group `devices`; everything else in it stays as it is.

    Raises:
        AnsibleFilterError: the group is written in a way that is not understood.
    """
    before = yaml.safe_load(text)
    path = _devices_of(before)
    if path is not None and name in (path.get("hosts") or {}):
        return text
    more = _with_line(text.splitlines(), name)
    expected = yaml.safe_load(text)
    group = _devices_of(expected)
    if group is not None:
        group["hosts"] = {**(group.get("hosts") or {}), name: None}
        if yaml.safe_load(more) == expected:
            return more
    raise AnsibleFilterError(
        f"hosts.yml is written in a way that is not understood here: add {name} to its group devices by hand."
    )


def _with_line(lines: list[str], name: str) -> str:
    """The lines with one for the host, behind the last one below `devices:` and `hosts:`; unchanged where they are not found."""

    def depth(line: str) -> int:
        return len(line) - len(line.lstrip())

    def below(top: int) -> list[int]:
        """Numbers of the lines that belong to the one at `top`."""
        found = []
        for number in range(top + 1, len(lines)):
            if lines[number].strip():
                if depth(lines[number]) <= depth(lines[top]):
                    break
                found.append(number)
        return found

    for top, line in enumerate(lines):
        if re.fullmatch(r" *devices: *(#.*)?", line):
            for hosts in below(top):
                if re.fullmatch(r" *hosts: *(\{ *\})? *(#.*)?", lines[hosts]):
                    members = below(hosts)
                    indent = depth(lines[members[0]]) if members else 2 * depth(lines[hosts]) - depth(line)
                    lines[hosts] = re.sub(r" *\{ *\}", "", lines[hosts])
                    lines.insert(members[-1] + 1 if members else hosts + 1, f"{' ' * indent}{name}:")
                    return "\n".join(lines) + "\n"
    return "\n".join(lines) + "\n"


def _devices_of(hosts: object) -> dict | None:
    """The group `devices` in a parsed inventory."""
    if isinstance(hosts, dict):
        if isinstance(hosts.get("devices"), dict):
            return hosts["devices"]
        for value in hosts.values():
            found = _devices_of(value)
            if found is not None:
                return found
    return None
