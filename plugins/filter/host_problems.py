"""Reasons why the services cannot run on a host, from the results of the module host_facts."""

from __future__ import annotations


def host_problems(
    system: dict, facts: dict, *, releases: list[str], architectures: list[str], free_mb: int, ports: list[dict]
) -> list[str]:
    """Reasons why the services cannot run on a host.

    Args:
        system: the system, as the module host_facts returns it.
        facts: the host's facts, with its listening ports.
        releases: code names of the Debian releases that are supported.
        architectures: supported architectures, with dpkg's names.
        free_mb: free space that /var needs, in MB.
        ports: ports that the services will listen on, each with the unit that may use it already.
    """
    problems = []
    if system["distribution"] not in ("debian", "raspbian") or system["release"] not in releases:
        problems.append(
            f"This is {system['name']}; the stack runs on Raspberry Pi OS and Debian {' and '.join(releases)}."
        )
    if system["machine"].startswith("armv6"):
        problems.append(
            "This Pi has an ARMv6 processor (Pi 1, Zero, Zero W); the stack needs ARMv7 or newer: a Pi 2, 3, 4, 5 or Zero 2 W."
        )
    elif system["architecture"] not in architectures:
        problems.append(f"The architecture is {system['architecture']}; the stack runs on {', '.join(architectures)}.")
    if system["free_mb"] < free_mb:
        problems.append(
            f"/var has {system['free_mb']} MB left, and the stack needs {free_mb} MB: "
            "make room (sudo apt-get clean), or use a larger card."
        )
    return problems + [problem for port in ports for problem in _port_problems(port, facts.get("listeners", []))]


def _port_problems(wanted: dict, listeners: list[dict]) -> list[str]:
    """Whether another program uses the port."""
    number, protocol = int(wanted["port"]), wanted.get("protocol", "tcp")
    others = [
        listener
        for listener in listeners
        if (listener["protocol"], listener["port"]) == (protocol, number) and wanted["unit"] not in listener["units"]
    ]
    return [
        f"Port {number}/{protocol} is needed by {wanted['unit']}, but used by "
        f"{other['program'] or 'a program'} (process {other['pid'] or 'unknown'}): stop that program, or choose another port."
        for other in others[:1]
    ]


class FilterModule:
    def filters(self) -> dict:
        return {"host_problems": host_problems}
