#!/usr/bin/python
"""Wait until a host is ready to be provisioned, and say what would keep the stack from running on it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: base_preflight
short_description: Wait until a host is ready, and name what would keep the stack from running on it
description:
  - A Pi that has just booted may still be at its first-boot set-up, hold apt's lock, or have no idea of the time.
    The module waits for each by its event, within O(timeout), and then names everything that stands in the way.
  - Nothing is changed. In check mode nothing is waited for.
  - What the host has already comes back as facts, packages and services in the form that M(ansible.builtin.package_facts)
    and M(ansible.builtin.service_facts) give them. Those and M(ansible.builtin.setup) would cost three more calls, of which
    each takes a second and more.
  - Without options it waits for nothing, demands nothing, and only looks.
options:
  releases:
    description: Code names of the Debian releases that are supported; [] for any.
    type: list
    elements: str
    default: []
  architectures:
    description: Architectures that are supported, as dpkg calls them; [] for any.
    type: list
    elements: str
    default: []
  minimum_disk_mb:
    description: Free space that /var needs, in MB of 10^6 bytes.
    type: int
    default: 0
  ports:
    description: Ports that the stack will listen on, each with the service that may hold it already.
    type: list
    elements: dict
    default: []
    suboptions:
      port:
        description: Number of the port.
        type: int
        required: true
      protocol:
        description: TCP or UDP.
        type: str
        choices: [tcp, udp]
        default: tcp
      unit:
        description: The systemd unit of the service that shall listen there.
        type: str
        required: true
  wait:
    description: Whether to wait until the host is ready.
    type: bool
    default: false
  wait_for_clock:
    description: Whether it is ready with a synchronised clock only. In a container it is the host's and never waited for.
    type: bool
    default: true
  timeout:
    description: Seconds to wait at the most, for everything together.
    type: int
    default: 300
attributes:
  check_mode:
    support: full
"""

EXAMPLES = r"""
- name: Wait for the host, and see whether the stack can run on it
  tig_pi.stack.base_preflight:
    releases: [bookworm, trixie]
    architectures: [amd64, arm64, armhf]
    minimum_disk_mb: 1000
    wait: true
    ports:
      - port: 1883
        unit: mosquitto.service
"""

RETURN = r"""
ansible_facts:
  description: What is installed, what runs, what time it is there, and whether it is a container.
  type: dict
  returned: always
  contains:
    packages:
      description: Version and architecture of each installed package, by name.
      type: dict
    services:
      description: Each service that systemd has loaded, by the name of its unit, with RV(ignore:state) and RV(ignore:status).
      type: dict
    timezone:
      description: The time zone that is set, as C(timedatectl list-timezones) spells it; empty where none is.
      type: str
    container:
      description: What kind of container the host is, as systemd-detect-virt(1) calls it; empty where it is none.
      type: str
architecture:
  description: The architecture as dpkg says it; a 32-bit userland may have a 64-bit kernel.
  type: str
  returned: always
waited_for:
  description: What had to be waited for.
  type: list
  elements: str
  returned: always
"""

import fcntl
import os
import re
import shutil
import signal
import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.tig_pi.stack.plugins.module_utils.sockets import LISTENING, PORT, sockets

DPKG_LOCKS = ("/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock", "/var/lib/apt/lists/lock")
PACKAGE = "${db:Status-Abbrev}\t${Package}\t${Version}\t${Architecture}\n"
# What systemd is asked of each service.
SERVICE = ("Id", "SubState", "UnitFileState", "NRestarts", "ActiveEnterTimestampMonotonic")
TIMESYNC_DONE = "/run/systemd/timesync/synchronized"


class TimeIsUp(Exception):
    """What was waited for did not come in time."""


class Preflight:
    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.wanted = module.params
        self.deadline = time.monotonic() + self.wanted["timeout"]
        self.waited_for: list[str] = []

    def output(self, *command: str) -> str:
        _code, out, _err = self.module.run_command(list(command))
        return out.strip()

    # --- what to wait for

    def wait(self) -> None:
        for what, ready in (
            ("first-boot set-up (cloud-init)", self.cloud_init_is_done),
            ("apt's lock", self.apt_is_free),
            ("a synchronised clock", self.clock_is_right),
        ):
            started = time.monotonic()
            if not ready():
                minutes = self.wanted["timeout"] / 60
                self.module.fail_json(
                    msg=f"Waited {minutes:.0f} minutes for {what}, in vain. {self.advice(what)}",
                    waited_for=self.waited_for,
                )
            if time.monotonic() - started > 1:
                self.waited_for.append(what)

    @staticmethod
    def advice(what: str) -> str:
        return {
            "first-boot set-up (cloud-init)": "See `cloud-init status --long` on the host.",
            "apt's lock": "See `sudo fuser -v /var/lib/dpkg/lock-frontend` for the program that holds it.",
            "a synchronised clock": (
                "See `timedatectl` on the host: has it a network, and a time server that it reaches? "
                "base_wait_for_clock: false goes on without."
            ),
        }[what]

    def left(self) -> float:
        return max(0.0, self.deadline - time.monotonic())

    def cloud_init_is_done(self) -> bool:
        if not shutil.which("cloud-init") or not Path("/run/cloud-init").is_dir():
            return True
        seconds = str(max(1, int(self.left())))
        code, _out, _err = self.module.run_command(["timeout", seconds, "cloud-init", "status", "--wait"])
        return code != 124  # a set-up that ended with errors has ended, too

    def apt_is_free(self) -> bool:
        """Wait in the kernel's queue for each lock, and give it back at once."""

        def give_up(_signal, _frame):
            raise TimeIsUp

        signal.signal(signal.SIGALRM, give_up)
        signal.alarm(max(1, int(self.left())))
        try:
            for path in DPKG_LOCKS:
                if os.path.exists(path):
                    with open(path, "r+b") as file:
                        fcntl.lockf(file, fcntl.LOCK_EX)
        except TimeIsUp:
            return False
        finally:
            signal.alarm(0)
        return True

    def clock_is_right(self) -> bool:
        if not self.wanted["wait_for_clock"] or self.container():
            return True
        while True:  # neither timesyncd nor chrony tells by an event that can be waited for
            if (
                os.path.exists(TIMESYNC_DONE)
                or self.output("timedatectl", "show", "-p", "NTPSynchronized", "--value") == "yes"
            ):
                return True
            if not self.left():
                return False
            time.sleep(1)

    # --- what is there

    def container(self) -> str:
        return self.output("systemd-detect-virt", "--container").removeprefix("none")

    def packages(self) -> dict[str, list[dict[str, str]]]:
        found: dict[str, list[dict[str, str]]] = {}
        lines = self.output("dpkg-query", "--show", "--showformat", PACKAGE).splitlines()
        for status, name, version, architecture in (line.split("\t") for line in lines):
            if status[1:2] == "i":  # the first letter is what is wanted of it: install, or hold
                found.setdefault(name, []).append(
                    {"name": name, "version": version, "arch": architecture, "source": "apt"}
                )
        return found

    def services(self) -> dict[str, dict[str, str]]:
        """Those that systemd has loaded; to it, none of the others runs."""
        shown = self.output("systemctl", "show", f"--property={','.join(SERVICE)}", "*.service")
        units = (dict(line.split("=", 1) for line in unit.splitlines()) for unit in shown.split("\n\n") if unit)
        listening = {key for protocol in LISTENING for key in sockets(protocol)}
        deaf = {
            wanted["unit"] for wanted in self.wanted["ports"] if (wanted["protocol"], wanted["port"]) not in listening
        }
        return {
            unit["Id"]: {
                "name": unit["Id"],
                "state": state_of(unit, unit["Id"] in deaf),
                "status": unit["UnitFileState"] or "unknown",
                "source": "systemd",
            }
            for unit in units
        }

    # --- problems

    def problems(self) -> list[str]:
        checks = (self.release_problem(), self.architecture_problem(), self.disk_problem(), *self.port_problems())
        return [problem for problem in checks if problem]

    def release_problem(self) -> str | None:
        release = dict(
            line.replace('"', "").split("=", 1)
            for line in Path("/etc/os-release").read_text(encoding="utf-8").splitlines()
            if "=" in line
        )
        name, code_name = release.get("PRETTY_NAME", "something unknown"), release.get("VERSION_CODENAME")
        if not self.wanted["releases"] or (
            release.get("ID") in ("debian", "raspbian") and code_name in self.wanted["releases"]
        ):
            return None
        return f"This is {name}; the stack runs on Raspberry Pi OS and Debian {' and '.join(self.wanted['releases'])}."

    def architecture_problem(self) -> str | None:
        self.architecture = self.output("dpkg", "--print-architecture")
        if not self.wanted["architectures"]:
            return None
        if os.uname().machine.startswith("armv6"):
            return "This Pi has an ARMv6 processor (Pi 1, Zero, Zero W); the stack needs ARMv7 or newer: a Pi 2, 3, 4, 5 or Zero 2 W."
        if self.architecture not in self.wanted["architectures"]:
            return (
                f"The architecture is {self.architecture}; the stack runs on {', '.join(self.wanted['architectures'])}."
            )
        return None

    def disk_problem(self) -> str | None:
        space = os.statvfs("/var")
        free = space.f_bavail * space.f_frsize / 1e6
        if free < self.wanted["minimum_disk_mb"]:
            return (
                f"/var has {free:.0f} MB left, and the stack needs {self.wanted['minimum_disk_mb']} MB: "
                "make room (sudo apt-get clean), or take a larger card."
            )
        return None

    def port_problems(self) -> list[str]:
        if not self.wanted["ports"]:
            return []
        listening = {key: inodes for protocol in LISTENING for key, inodes in sockets(protocol).items()}
        owners = socket_owners({inode for inodes in listening.values() for inode in inodes}) if listening else {}
        problems = []
        for wanted in self.wanted["ports"]:
            for inode in sorted(listening.get((wanted["protocol"], wanted["port"]), ())):
                pid = owners.get(inode)
                if pid is None or wanted["unit"] not in units(pid):
                    what = f"{program_name(pid)} (process {pid})" if pid else "a process that is not to be seen"
                    problems.append(
                        f"Port {wanted['port']}/{wanted['protocol']} is wanted for {wanted['unit']}, and taken by {what}: "
                        "stop that one, or choose another port."
                    )
                    break
        return problems


def state_of(unit: dict[str, str], is_deaf: bool) -> str:
    """C(running) if there is no doubt about it: one that has just been started may end at once, and for the second time."""
    if unit["SubState"] != "running":
        return "stopped"
    up = time.clock_gettime(time.CLOCK_MONOTONIC) - int(unit["ActiveEnterTimestampMonotonic"]) / 1e6
    enough = 10 if int(unit["NRestarts"]) < 2 else 600
    return "running" if up > enough and not is_deaf else "unknown"


def timezone() -> str:
    """The name of the zone that /etc/localtime links to (see localtime(5))."""
    _before, _zoneinfo, name = os.path.realpath("/etc/localtime").partition("/zoneinfo/")
    return name


def socket_owners(inodes: set[str]) -> dict[str, int]:
    """Number of the process that holds each socket."""
    owners = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            for link in os.scandir(process / "fd"):
                held = re.fullmatch(r"socket:\[(\d+)\]", os.readlink(link.path))
                if held and held[1] in inodes:
                    owners[held[1]] = int(process.name)
        except OSError:  # the process has ended meanwhile
            continue
    return owners


def units(pid: int) -> set[str]:
    """The systemd units that a process is part of, by the names of its control groups."""
    try:
        text = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8")
    except OSError:
        return set()
    return {name for line in text.splitlines() for name in line.split(":", 2)[2].split("/")}


def program_name(pid: int) -> str:
    process = Path("/proc", str(pid))
    try:
        return os.path.basename(os.readlink(process / "exe")).removesuffix(" (deleted)")
    except OSError:
        return "a program that has just ended"


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "releases": {"type": "list", "elements": "str", "default": []},
            "architectures": {"type": "list", "elements": "str", "default": []},
            "minimum_disk_mb": {"type": "int", "default": 0},
            "ports": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {**PORT, "unit": {"type": "str", "required": True}},
            },
            "wait": {"type": "bool", "default": False},
            "wait_for_clock": {"type": "bool", "default": True},
            "timeout": {"type": "int", "default": 300},
        },
        supports_check_mode=True,
    )
    preflight = Preflight(module)
    if module.params["wait"] and not module.check_mode:
        preflight.wait()
    problems = preflight.problems()
    if problems:
        module.fail_json(msg=" ".join(problems), problems=problems)
    module.exit_json(
        changed=False,
        ansible_facts={
            "packages": preflight.packages(),
            "services": preflight.services(),
            "timezone": timezone(),
            "container": preflight.container(),
        },
        architecture=preflight.architecture,
        waited_for=preflight.waited_for,
    )


if __name__ == "__main__":
    main()
