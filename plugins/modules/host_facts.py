#!/usr/bin/python
"""Gather in one call what the roles need to know about a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_facts
short_description: Gather facts about packages, services, ports and the system in one call
description:
  - M(ansible.builtin.setup), M(ansible.builtin.package_facts) and M(ansible.builtin.service_facts) would be three calls, of
    which each takes a second or more on a Pi. Packages and services have the form that these modules give them.
  - A Pi that has just booted may still be setting itself up, hold apt's lock, or not know the time. Until it is ready, the
    module returns only what is missing, as RV(not_ready); repeat it with C(until).
options:
  ready:
    description: What has to be finished on the host before facts are gathered. Ignored in check mode.
    type: list
    elements: str
    choices: [first_boot, apt, clock]
    default: []
attributes:
  check_mode:
    support: full
"""

EXAMPLES = r"""
- name: Gather facts as soon as the host is ready
  tig_pi.stack.host_facts:
    ready: [first_boot, apt, clock]
  register: host
  until: host is failed or host.not_ready | length == 0
  retries: 60
  delay: 5
"""

RETURN = r"""
not_ready:
  description: What the host is not ready for yet, of O(ready).
  type: list
  elements: str
  returned: always
msg:
  description: What is missing, and how to find out why.
  type: str
  returned: when the host is not ready
ansible_facts:
  description: The facts.
  type: dict
  returned: when the host is ready
  contains:
    packages:
      description: Version and architecture of each installed package, by name.
      type: dict
    services:
      description: Each service that systemd has loaded, by the name of its unit, with RV(ignore:state) and RV(ignore:status).
      type: dict
    listeners:
      description: Each port that is listened on, with its protocol, and the process, program and units that listen.
      type: list
      elements: dict
    timezone:
      description: The time zone, as C(timedatectl list-timezones) spells it; empty if none is set.
      type: str
    container:
      description: The kind of container, as systemd-detect-virt(1) calls it; empty if the host is none.
      type: str
    apt_interrupted:
      description: Whether apt was interrupted, by a power cut for example, or a package is not completely installed. Then
        M(tig_pi.stack.apt_package) cleans up.
      type: bool
system:
  description: What decides whether the services can run here.
  type: dict
  returned: when the host is ready
  contains:
    distribution:
      description: ID of the distribution (see os-release(5)).
      type: str
    release:
      description: Code name of the release; empty if it has none.
      type: str
    name:
      description: Name of the distribution and its release, for people.
      type: str
    machine:
      description: The kernel's architecture.
      type: str
    architecture:
      description: The architecture as dpkg calls it; a 32-bit system may have a 64-bit kernel.
      type: str
    free_mb:
      description: Free space in /var, in MB of 10^6 bytes.
      type: int
    clock:
      description: The time of the host's clock, in seconds since 1970.
      type: int
"""

import fcntl
import functools
import os
import re
import shutil
import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.tig_pi.stack.plugins.module_utils.interrupted_apt import is_interrupted
from ansible_collections.tig_pi.stack.plugins.module_utils.sockets import LISTENING, sockets

DPKG_LOCKS = ("/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock", "/var/lib/apt/lists/lock")
PACKAGE = "${db:Status-Abbrev}\t${Package}\t${Version}\t${Architecture}\n"
# Properties of a service to query.
SERVICE = ("Id", "SubState", "UnitFileState", "NRestarts", "ActiveEnterTimestampMonotonic")
TIMESYNC_DONE = "/run/systemd/timesync/synchronized"
ADVICE = {
    "first_boot": "The first-boot set-up (cloud-init) has not finished. See `cloud-init status --long` on the host.",
    "apt": "Another program holds apt's lock. See `sudo fuser -v /var/lib/dpkg/lock-frontend` on the host.",
    "clock": (
        "The clock is not synchronised. See `timedatectl` on the host: does it have a network, and a time server that it "
        "reaches? Set base_wait_for_clock: false to go on without."
    ),
}


class Host:
    def __init__(self, module: AnsibleModule) -> None:
        self.module = module

    def output(self, *command: str) -> str:
        _code, out, _err = self.module.run_command(list(command))
        return out.strip()

    # --- whether it is ready

    def not_ready(self, wanted: list[str]) -> list[str]:
        ready = {"first_boot": self.has_booted, "apt": self.apt_is_free, "clock": self.clock_is_right}
        return [what for what in wanted if not ready[what]()]

    def has_booted(self) -> bool:
        if not shutil.which("cloud-init") or not Path("/run/cloud-init").is_dir():
            return True
        # A set-up that ended with errors has ended, too.
        return not re.search(
            r"^status: (running|not run|not started)$", self.output("cloud-init", "status"), re.MULTILINE
        )

    @staticmethod
    def apt_is_free() -> bool:
        for path in DPKG_LOCKS:
            if os.path.exists(path):
                with open(path, "r+b") as file:
                    try:
                        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    except OSError:
                        return False
        return True

    def clock_is_right(self) -> bool:
        return (
            bool(self.container)  # it has its host's clock
            or os.path.exists(TIMESYNC_DONE)
            or self.output("timedatectl", "show", "-p", "NTPSynchronized", "--value") == "yes"
        )

    # --- facts

    @functools.cached_property
    def container(self) -> str:
        return self.output("systemd-detect-virt", "--container").removeprefix("none")

    @functools.cached_property
    def dpkg(self) -> list[list[str]]:
        """What dpkg knows of each package, in the order of PACKAGE."""
        lines = self.output("dpkg-query", "--show", "--showformat", PACKAGE).splitlines()
        return [line.split("\t") for line in lines]

    def packages(self) -> dict[str, list[dict[str, str]]]:
        found: dict[str, list[dict[str, str]]] = {}
        for status, name, version, architecture in self.dpkg:
            if status[1:2] == "i":  # the first letter is the wanted state: install or hold
                found.setdefault(name, []).append(
                    {"name": name, "version": version, "arch": architecture, "source": "apt"}
                )
        return found

    def apt_interrupted(self) -> bool:
        return is_interrupted(status for status, *_ in self.dpkg)

    def services(self) -> dict[str, dict[str, str]]:
        """The services that systemd has loaded; no other runs."""
        shown = self.output("systemctl", "show", f"--property={','.join(SERVICE)}", "*.service")
        units = (dict(line.split("=", 1) for line in unit.splitlines()) for unit in shown.split("\n\n") if unit)
        return {
            unit["Id"]: {
                "name": unit["Id"],
                "state": state_of(unit),
                "status": unit["UnitFileState"] or "unknown",
                "source": "systemd",
            }
            for unit in units
        }

    def system(self) -> dict[str, str | int]:
        release = dict(
            line.replace('"', "").split("=", 1)
            for line in Path("/etc/os-release").read_text(encoding="utf-8").splitlines()
            if "=" in line
        )
        space = os.statvfs("/var")
        return {
            "distribution": release.get("ID", ""),
            "release": release.get("VERSION_CODENAME", ""),
            "name": release.get("PRETTY_NAME", "an unknown system"),
            "machine": os.uname().machine,
            "architecture": self.output("dpkg", "--print-architecture"),
            "free_mb": space.f_bavail * space.f_frsize // 10**6,
            "clock": int(time.time()),
        }


def state_of(unit: dict[str, str]) -> str:
    """C(running) only if that is certain: a service that was just started may end at once."""
    if unit["SubState"] != "running":
        return "stopped"
    up = time.clock_gettime(time.CLOCK_MONOTONIC) - int(unit["ActiveEnterTimestampMonotonic"]) / 1e6
    enough = 10 if int(unit["NRestarts"]) < 2 else 600
    return "running" if up > enough else "unknown"


def timezone() -> str:
    """The name of the zone that /etc/localtime links to (see localtime(5))."""
    _before, _zoneinfo, name = os.path.realpath("/etc/localtime").partition("/zoneinfo/")
    return name


def listeners() -> list[dict]:
    listening = {key: inodes for protocol in LISTENING for key, inodes in sockets(protocol).items()}
    owners = socket_owners({inode for inodes in listening.values() for inode in inodes})
    return [
        {"protocol": protocol, "port": port, "pid": pid, "program": program_name(pid), "units": units(pid)}
        for (protocol, port), inodes in sorted(listening.items())
        for pid in sorted({owners.get(inode, 0) for inode in inodes})
    ]


def socket_owners(inodes: set[str]) -> dict[str, int]:
    """Number of the process that holds each socket."""
    owners = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            for link in os.scandir(process / "fd"):
                held = re.fullmatch(r"socket:\[(\d+)\]", os.readlink(link.path))
                if held and held[1] in inodes:
                    owners[held[1]] = int(process.name)
        except OSError:  # the process has ended
            continue
    return owners


def units(pid: int) -> list[str]:
    """The systemd units that a process is part of, by the names of its control groups."""
    try:
        text = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8")
    except OSError:
        return []
    names = {name for line in text.splitlines() for name in line.split(":", 2)[2].split("/")}
    return sorted(name for name in names if "." in name)


def program_name(pid: int) -> str:
    """Name of the program of a process; empty if it has ended, or is outside of the host's container."""
    try:
        return os.path.basename(os.readlink(f"/proc/{pid}/exe")).removesuffix(" (deleted)")
    except OSError:
        return ""


def main() -> None:
    module = AnsibleModule(
        argument_spec={"ready": {"type": "list", "elements": "str", "choices": list(ADVICE), "default": []}},
        supports_check_mode=True,
    )
    host = Host(module)
    not_ready = [] if module.check_mode else host.not_ready(module.params["ready"])
    if not_ready:
        module.exit_json(not_ready=not_ready, msg=" ".join(ADVICE[what] for what in not_ready))
    module.exit_json(
        not_ready=[],
        ansible_facts={
            "packages": host.packages(),
            "services": host.services(),
            "listeners": listeners(),
            "timezone": timezone(),
            "container": host.container,
            "apt_interrupted": host.apt_interrupted(),
        },
        system=host.system(),
    )


if __name__ == "__main__":
    main()
