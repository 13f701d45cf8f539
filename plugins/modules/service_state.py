#!/usr/bin/python
"""Start or restart services, and wait until they run."""

from __future__ import annotations

DOCUMENTATION = r"""
module: service_state
short_description: Start or restart services, wait until they run, and report why one does not
description:
  - M(ansible.builtin.systemd_service) is satisfied with a service that is starting, even for the hundredth time. Here a service
    runs when it is active, listens on its ports, has been up for O(settle) seconds, and does not keep restarting.
  - The module waits for services that are starting. It fails for a service that has ended, keeps restarting, or
    does not listen on its ports, and reports the last lines of its journal and what to do.
  - One call does all of that for all services of a host, and returns at once if they have been up for long.
options:
  services:
    description: The services of this host.
    type: list
    elements: dict
    required: true
    suboptions:
      unit:
        description: The systemd unit.
        type: str
        required: true
      ports:
        description: Ports that it has to listen on.
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
      timeout:
        description: Seconds that its start may take.
        type: int
        default: 60
  state:
    description:
      - V(started) enables the services and starts those that are stopped. Nothing is done if facts (M(tig_pi.stack.host_facts)),
        or an earlier task of the same playbook run, say that they run.
      - V(restarted) enables and restarts them, with their unit files loaded again.
      - Without it nothing is changed.
    type: str
    choices: [started, restarted]
  settle:
    description: Seconds that a service has to be up before it counts as running.
    type: int
    default: 8
  wait:
    description: Whether to wait for services that are starting, and to fail if one does not run. RV(services) has the states.
    type: bool
    default: true
  journal:
    description: Whether to return the last lines of the journal for services that run, too.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
    description: Nothing is changed or waited for. With O(state), a unit that does not exist yet is not an error.
"""

EXAMPLES = r"""
- name: Enable and start Telegraf
  tig_pi.stack.service_state:
    services: [{unit: telegraf.service}]
    state: started

- name: Wait until all services run
  tig_pi.stack.service_state:
    services:
      - {unit: mosquitto.service, ports: [{port: 1883}]}
      - {unit: influxdb.service, ports: [{port: 8086}], timeout: 900}
"""

RETURN = r"""
ansible_facts:
  description: The facts.
  type: dict
  returned: with O(state)
  contains:
    started_units:
      description: The units that this playbook run has started, restarted or found running.
      type: dict
services:
  description: The state of each service, in the order of O(services).
  type: list
  elements: dict
  returned: success
  contains:
    unit:
      description: The systemd unit.
      type: str
    state:
      description: >-
        V(running), V(starting), V(restarting) (it does not stay up), V(ended), V(not_listening), V(missing) (there is
        no such unit) or V(unknown) (systemd does not answer).
      type: str
    since:
      description: When it was started last, in seconds since 1970; 0 if never.
      type: int
    restarts:
      description: How many times systemd has restarted it by itself.
      type: int
    set_aside:
      description: State files that were damaged by a power cut and are kept for a while, with what was lost.
      type: list
      elements: dict
    problem:
      description: What is wrong, with the last lines of the journal and what to do; empty if nothing is.
      type: str
    said:
      description: The last lines of its journal, if something is wrong or O(journal) is set.
      type: list
      elements: str
"""

import functools
import json
import re
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.tig_pi.stack.plugins.module_utils.sockets import LISTENING, sockets
from ansible_collections.tig_pi.stack.plugins.module_utils.state_files import StateFiles

OPTIONS = {
    "services": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "unit": {"type": "str", "required": True},
            "ports": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "port": {"type": "int", "required": True},
                    "protocol": {"type": "str", "choices": list(LISTENING), "default": "tcp"},
                },
            },
            "timeout": {"type": "int", "default": 60},
        },
    },
    "state": {"type": "str", "choices": ["started", "restarted"]},
    "settle": {"type": "int", "default": 8},
    "wait": {"type": "bool", "default": True},
    "journal": {"type": "bool", "default": False},
}
PROPERTIES = (
    "LoadState",
    "ActiveState",
    "SubState",
    "Result",
    "NRestarts",
    "Job",
    "ConditionResult",
    "InactiveExitTimestampMonotonic",
    "ActiveEnterTimestampMonotonic",
)
UP = ("active", "reloading", "refreshing")
INTERVAL = 0.2  # seconds between two checks
# A service that has been restarted counts as running when it has been up for twice as long as between its last restarts,
# or for so many seconds.
FORGIVEN = 600
# The message of systemd that it restarts a service by itself (systemd.journal-fields(7), sd-messages.h).
RESTART_SCHEDULED = "5eb03494b6584870a536b337290809b3"
LINES = 8  # of the journal, and the maximum length of each
LINE_LENGTH = 300
# Messages of systemd that say why a unit ended.
TELLING = re.compile(
    r"exited|failed|killed|timed out|timeout|refus|not met|no such file|denied|too quickly", re.IGNORECASE
)
# Escape sequences and control characters must not reach the terminal.
UNPRINTABLE = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")
ENDED = {
    "success": "was stopped, or has ended without an error",
    "exit-code": "has ended with an error",
    "signal": "was killed",
    "core-dump": "has crashed",
    "oom-kill": "was killed because memory ran out",
    "timeout": "took too long and was killed",
    "watchdog": "hung and was killed",
    "exec-condition": "was not started, because the check of its state files does not allow it",
    "start-limit-hit": "has ended too often to be started again",
}


def clock(moment: float) -> str:
    """A time of day on the host, with its date unless that is today."""
    then, today = time.localtime(moment), time.localtime()
    return time.strftime("%H:%M:%S" if then[:3] == today[:3] else "%Y-%m-%d %H:%M", then)


def is_queued(properties: dict[str, str]) -> bool:
    """Whether systemd has yet to start, restart or reload the unit."""
    return properties.get("Job", "0") not in ("", "0")


class Service:
    """One service, as it is now."""

    def __init__(self, module: AnsibleModule, wanted: dict, has_job: bool = False) -> None:
        self.module = module
        self.wanted = wanted
        # Until systemd has finished its job, the properties are those before it.
        self.has_job = has_job
        self.unit = wanted["unit"]
        self.first_restarts: int | None = None
        self.began = time.clock_gettime(time.CLOCK_MONOTONIC)

    def see(self, properties: dict[str, str], listening: set[tuple[str, int]]) -> None:
        now = time.clock_gettime(time.CLOCK_MONOTONIC)

        def seconds_since(name: str) -> float:
            moment = int(properties.get(name) or 0)
            return now - moment / 1e6 if moment else 0.0

        self.properties = properties
        self.has_job = self.has_job and is_queued(properties)
        is_up = properties.get("ActiveState") in (*UP, "activating") and not self.has_job
        self.age = seconds_since("InactiveExitTimestampMonotonic") if is_up else now - self.began
        self.up = seconds_since("ActiveEnterTimestampMonotonic")
        self.restarts = int(properties.get("NRestarts") or 0)
        if self.first_restarts is None and not self.has_job:
            self.first_restarts = self.restarts
        self.closed = [
            f"{port['port']}/{port['protocol']}"
            for port in self.wanted["ports"]
            if (port["protocol"], port["port"]) not in listening
        ]
        self.state = self.judge()

    def judge(self) -> str:
        found = self.properties
        if not found:
            return "unknown"
        if found["LoadState"] != "loaded":
            return "missing"
        if self.has_job:
            return "starting"
        active = found["ActiveState"] in UP
        if self.restarts >= self.first_restarts + 2 or self.keeps_restarting(active):
            return "restarting"
        if is_queued(found):
            return "starting"
        if found["ActiveState"] in ("inactive", "failed"):
            return "ended"
        if active and not self.closed:
            return "running"
        if active and self.age > self.wanted["timeout"]:
            return "not_listening"
        return "starting"

    def keeps_restarting(self, active: bool) -> bool:
        if self.restarts < 2:
            return False
        _code, out, _err = self.module.run_command(
            [
                "journalctl",
                "--quiet",
                "--output=json",
                "--lines=2",
                f"MESSAGE_ID={RESTART_SCHEDULED}",
                f"UNIT={self.unit}",
            ]
        )
        moments = [int(json.loads(line)["__REALTIME_TIMESTAMP"]) / 1e6 for line in out.splitlines()]
        if len(moments) < 2:
            return False
        return (self.up if active else 0.0) < min(2 * (moments[1] - moments[0]), FORGIVEN)

    def is_settled(self, settle: float) -> bool:
        """Whether another check would show the same."""
        if self.state == "running":
            return self.up >= settle
        return self.state != "starting" or self.age > self.wanted["timeout"]

    # --- texts

    def problem(self, said: list[str]) -> str:
        what = self.what_is_wrong()
        files = [
            f"{file['file']} {file['problem']}; run {file['repair']}. Lost: {file['lost']}."
            for file in self.state_files["damaged"]
        ]
        if not what:
            return "\n".join(files)
        lines = [f"{self.unit} {what}.", *files]
        if said:
            lines += ["Last lines of its journal:", *(f"  {line}" for line in said)]
        return "\n".join([*lines, self.advice()])

    def what_is_wrong(self) -> str:
        """The rest of a sentence that begins with the unit; empty if nothing is."""
        found = self.properties
        return {
            "running": "",
            "starting": (
                f"has been starting since {clock(time.time() - self.age)}, longer than its timeout of {self.wanted['timeout']} s"
                if self.age > self.wanted["timeout"]
                else ""
            ),
            "restarting": f"does not stay up: systemd has restarted it {self.restarts} times",
            "ended": (
                "was not started, because a condition of its unit is not met"
                if found.get("ConditionResult") == "no"
                else ENDED.get(found.get("Result", ""), f"does not run ({found.get('Result')})")
            ),
            "not_listening": f"runs, but does not listen on port {', '.join(self.closed)}",
            "missing": f"cannot be started: its unit is {found.get('LoadState')}",
            "unknown": "cannot be checked: systemd does not answer",
        }[self.state]

    def advice(self) -> str:
        if self.state == "missing" and self.properties["LoadState"] == "masked":
            return f"Unmask it: sudo systemctl unmask {self.unit}"
        if self.state == "missing":
            return "Install it: run the playbook again without --tags."
        if self.state == "unknown":
            return "See `systemctl status` on the host."
        if self.state == "ended" and self.properties.get("Result") == "success":
            return f"Start it: sudo systemctl start {self.unit}. See also: sudo journalctl --unit={self.unit}"
        return f"See also: sudo journalctl --unit={self.unit}. Fix what it reports; systemd keeps trying, or run the playbook again."

    def said(self) -> list[str]:
        """The last significant lines of the journal, each once, of its last two starts."""
        _code, out, _err = self.module.run_command(
            ["journalctl", "--quiet", "--output=json", "--lines=100", f"--unit={self.unit}"]
        )
        lines: dict[str, None] = {}
        starts: dict[str, None] = {}
        for entry in (json.loads(line) for line in reversed(out.splitlines())):
            starts[entry.get("_SYSTEMD_INVOCATION_ID") or entry.get("INVOCATION_ID") or ""] = None
            text = entry.get("MESSAGE") or ""
            if isinstance(text, list):  # as bytes, where it is not UTF-8
                text = bytes(text).decode(errors="replace")
            text = UNPRINTABLE.sub("", text).strip()[:LINE_LENGTH]
            if len(starts) > 2 or len(lines) == LINES:
                break
            if text and (entry.get("SYSLOG_IDENTIFIER") != "systemd" or TELLING.search(text)):
                lines[text] = None
        return list(reversed(lines))

    @functools.cached_property
    def state_files(self) -> dict:
        """The report on its state files of its last start."""
        return StateFiles(self.unit.removesuffix(".service"), "report").report()

    def result(self, journal: bool) -> dict:
        is_there = self.state not in ("missing", "unknown")
        said = self.said() if is_there and (journal or self.what_is_wrong()) else []
        return {
            "unit": self.unit,
            "state": self.state,
            "since": int(time.time() - self.age) if self.age else 0,
            "restarts": self.restarts,
            "problem": self.problem(said),
            "set_aside": self.state_files["set_aside"],
            "said": said,
        }


def show(module: AnsibleModule, units: list[str], properties: tuple[str, ...]) -> list[dict[str, str]]:
    """Properties of each unit; without any if systemd does not answer."""
    code, out, _err = module.run_command(["systemctl", "show", f"--property={','.join(properties)}", *units])
    shown = [dict(line.split("=", 1) for line in unit.splitlines()) for unit in out.strip().split("\n\n")]
    return [{} for _ in units] if code or len(shown) != len(units) else shown


def look(module: AnsibleModule, services: list[Service]) -> None:
    """Check all of them once."""
    shown = show(module, [service.unit for service in services], PROPERTIES)
    listening = {key for protocol in LISTENING for key in sockets(protocol)}
    for service, properties in zip(services, shown, strict=True):
        service.see(properties, listening)


def start(module: AnsibleModule, units: list[str], restart: bool) -> tuple[bool, list[str]]:
    """Enable units, and have systemd start or restart them. Returns whether anything changes, and the units that are started or restarted."""

    def systemctl(*arguments: str) -> None:
        if not module.check_mode:
            code, _out, err = module.run_command(["systemctl", *arguments])
            if code:
                module.fail_json(msg=f"systemctl {' '.join(arguments)} failed: {err.strip()}")

    if restart:
        systemctl("daemon-reload")
    shown = show(module, units, ("LoadState", "ActiveState", "UnitFileState"))
    # The next check reports a unit that is missing or masked.
    loaded = {unit: found for unit, found in zip(units, shown, strict=True) if found.get("LoadState") == "loaded"}
    disabled = [unit for unit, found in loaded.items() if found["UnitFileState"] != "enabled"]
    due = [unit for unit, found in loaded.items() if restart or found["ActiveState"] not in (*UP, "activating")]
    if disabled:
        systemctl("enable", *disabled)
    if due:
        systemctl("--no-block", "restart" if restart else "start", *due)
    return bool(disabled or due), due


def main() -> None:
    module = AnsibleModule(argument_spec=OPTIONS, supports_check_mode=True)
    wanted, changed, started = module.params["services"], False, []
    if module.params["state"]:
        units = [service["unit"] for service in wanted]
        changed, started = start(module, units, restart=module.params["state"] == "restarted")
        if module.check_mode:
            module.exit_json(changed=changed, services=[])
    services = [Service(module, service, has_job=service["unit"] in started) for service in wanted]
    waited_for = services
    while waited_for:
        look(module, waited_for)
        waited_for = [service for service in waited_for if not service.is_settled(module.params["settle"])]
        if not module.params["wait"] or module.check_mode:
            break
        if waited_for:
            time.sleep(INTERVAL)
    results = [service.result(module.params["journal"]) for service in services]
    problems = [result["problem"] for result in results if result["problem"]]
    if problems and module.params["wait"]:
        module.fail_json(msg="\n\n".join(problems))
    module.exit_json(changed=changed, services=results)


if __name__ == "__main__":
    main()
