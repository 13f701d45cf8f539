"""What `make status` shows: the devices' states from the database's answer, and the whole as text."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from ansible_collections.tig_pi.stack.plugins.plugin_utils.contract import CONTRACT

MEASUREMENTS = CONTRACT["measurements"]
STATES = {number: state["word"] for number, state in enumerate(CONTRACT["states"])}  # of a device
OTHERS = 40  # devices that nobody declared: no more of them are listed, and
HEARD = 100  # no more are looked at, since most of a flood is heard once
LONGEST = 60  # characters of a name, and
VALUES = 20  # values of a reading that are shown
WRITES = 180  # seconds in which Telegraf writes its own figures at the least


def status_queries(
    devices: list[Mapping], readings: list[Mapping], measurement: str, host_policy: str, ahead: int
) -> str:
    """What the database is asked: statement by statement what device_states, message_faults and message_notes read.

    It costs as much as the site declares, whatever else the database holds; a point far in the future is passed over.
    """
    names = "|".join(device["name"] for device in devices)
    known = f"{names}{'|' if names else ''}{CONTRACT['probe']}"
    fields = ", ".join(f'"{reading["field"]}"' for reading in readings) or "*"
    stored_status = MEASUREMENTS["status"]
    told = '"online", "waiting_for", "version", "failed"'
    until = f"time < now() + {ahead}m"
    day = f"time > now() - 1d AND {until}"
    declared = f'WHERE "device" =~ /^({names})$/ AND {until} GROUP BY "device" ORDER BY time DESC LIMIT 1'
    other = f'WHERE "device" !~ /^({known})$/ AND {day} GROUP BY "device" ORDER BY time DESC'
    kept = f'"{host_policy}".' if host_policy else ""

    def grown(counter: str, of: str, by: str) -> str:
        inner = f'SELECT non_negative_difference("{counter}") AS "n" FROM {kept}"{of}" WHERE {day} GROUP BY {by}'
        return f'SELECT sum("n") FROM ({inner}) GROUP BY {by}'

    return "; ".join(
        (
            f'SELECT {fields} FROM "{measurement}" {declared}',
            f'SELECT {told} FROM "{stored_status}" {declared}',
            grown("count", MEASUREMENTS["faults"], '"reason"'),
            grown("publish_messages_dropped", MEASUREMENTS["broker"], '"host"'),
            grown("metrics_dropped", "internal_write", '"alias"'),
            f'SELECT last("metrics_written") FROM {kept}"internal_write" WHERE {until}',
            # Last, since the database refuses it where there are very many (max-select-series), and what comes after it.
            f'SELECT {told} FROM "{stored_status}" {other} LIMIT 1 SLIMIT {HEARD}',
            f'SELECT * FROM "{measurement}" {other} LIMIT 2 SLIMIT {HEARD}',
        )
    )


def answer_to(results: list[Mapping], statement: int) -> list[Mapping]:
    return [
        series
        for result in results
        if result.get("statement_id", 0) == statement
        for series in result.get("series", [])
    ]


# What service_state calls a service that does not run, in the words of the table.
SERVICE_STATES = {
    "running": "has damaged files",
    "starting": "does not get ready",
    "restarting": "ends again and again",
    "ended": "does not run",
    "deaf": "does not listen",
    "missing": "is not there",
    "unknown": "not known",
}


def kept_in(secret: str, elsewhere: Mapping, folder: str) -> str:
    """Where a person finds a secret."""
    return f'site_secrets["{secret}"]' if secret in elsewhere else f"{folder}/{secret}"


def service_states(services: list[Mapping], looks: Mapping[str, list[Mapping]]) -> list[dict]:
    """The services with their state in few words and what is wrong with them in many ("" if nothing is).

    `services` are those that people know, each with what it answered (`error`: "" if it is well); `looks` has for each
    host what service_state saw there. What only the latter knows has a row, too.
    """
    rows = []
    for service in services:
        seen = next(look for look in looks[service["host"]] if look["unit"] == service["unit"])
        rows.append({"address": "", "account": "", "password": "", **service, **_state(service, seen)})
    known = {(service["host"], service["unit"]) for service in services}
    for host, seen_there in looks.items():
        for seen in seen_there:
            if (host, seen["unit"]) not in known:
                name = seen["unit"].removesuffix(".service") + (f" on {host}" if len(looks) > 1 else "")
                row = {"name": name, "unit": seen["unit"], "host": host}
                rows.append({**row, "address": "", "account": "", "password": "", **_state(row, seen)})
    return rows


def _state(service: Mapping, seen: Mapping) -> dict:
    problem, error = seen["problem"], service.get("error", "")
    if problem:
        state = SERVICE_STATES[seen["state"]]
    elif seen["state"] == "starting":
        state = time.strftime("starting since %H:%M:%S", time.localtime(seen["since"]))
    elif error:
        state = "does not answer"
        problem = f"{service['unit']} runs on {service['host']} and does not answer at {service['address']}: {error}"
    else:
        state = "runs"
    return {"state": state, "problem": problem, "since": seen["since"], "restarts": seen["restarts"]}


def points(results: list[Mapping], statement: int) -> dict[str, dict]:
    """The last point of each device in the answer to a statement of InfluxQL, by device."""
    return {
        series["tags"]["device"]: dict(zip(series["columns"], series["values"][0], strict=True))
        for series in answer_to(results, statement)
    }


def is_number(value) -> bool:
    """A measurement that is older than tig-pi has tags of its own, and the answer holds them among the fields."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def heard_again(results: list[Mapping]) -> list[str]:
    """Devices that nobody declared and that have sent more than once in the last day."""
    return sorted(series["tags"]["device"] for series in answer_to(results, 7) if len(series["values"]) > 1)


def device_states(devices: list[Mapping], results: list[Mapping], now: float) -> list[dict]:
    """One entry a device: its state, what it waits for, and its last reading with its age in seconds (None: never).

    The name is "" for what was stored without a device.
    """
    readings = points(results, 7) | points(results, 0)
    states = points(results, 6) | points(results, 1)
    rows = []
    for name in [*(device["name"] for device in devices), *heard_again(results)[:OTHERS]]:
        reading, state = dict(readings.get(name, {})), states.get(name, {})
        seen = reading.pop("time", None)
        rows.append(
            {
                "name": name,
                "state": STATES.get(state.get("online"), "unknown"),
                "waiting_for": state.get("waiting_for") or "",
                "version": state.get("version") or "",
                "failed": state.get("failed") or "",
                "age": None if seen is None else max(0, int(now - seen)),
                "reading": {field: value for field, value in reading.items() if is_number(value)},
            }
        )
    return rows


def message_faults(results: list[Mapping]) -> dict[str, int]:
    """Messages and fields of the last day that were not as they should be, by reason."""
    counted = {series["tags"]["reason"]: int(series["values"][0][1] or 0) for series in answer_to(results, 2)}
    return {reason: number for reason, number in sorted(counted.items()) if number}


def message_notes(results: list[Mapping], now: float) -> list[str]:
    """What people should know of messages that wait, were rejected or dropped, and of devices that are not listed."""
    notes = []
    for series in answer_to(results, 5):
        if (silent := int(now - series["values"][0][0])) > WRITES:
            notes.append(
                f"Telegraf wrote to the database {age(silent)} for the last time. If it runs, the database refuses what it "
                "sends: journalctl -u telegraf says why. Messages wait meanwhile and are not lost."
            )
    if faults := message_faults(results):
        notes.append(
            f"Messages of the last day that were not as they should be: "
            f"{', '.join(f'{reason} {number}' for reason, number in faults.items())}. What became of them: "
            "docs/messages.md; examples: journalctl -u telegraf."
        )
    for statement, who, why in (
        (3, "The broker", "messages: the queue of a client that was away or slow was full"),
        (4, "Telegraf", "points: the database was away for long"),
    ):
        if number := sum(int(series["values"][0][1] or 0) for series in answer_to(results, statement)):
            notes.append(f"{who} dropped {number} {why}.")
    if (
        len(heard_again(results)) > OTHERS
        or len(answer_to(results, 7)) >= HEARD
        or any("error" in result for result in results)
    ):
        notes.append("There are very many devices that nobody declared; not all of them are listed.")
    return notes


def memory_notes(hosts: list[str]) -> list[str]:
    """What people should know of hosts whose kernel does not limit memory."""
    return [
        f"The kernel of {host} does not limit memory (Raspberry Pi OS boots so): only the programs' own limits hold. "
        "For the kernel's add cgroup_enable=memory to the line in /boot/firmware/cmdline.txt, and restart it."
        for host in hosts
    ]


def safe(text: object) -> str:
    """A name as a terminal may show it: nothing that moves the cursor or turns the text round, and not too long."""
    shown = "".join(one if one.isprintable() else f"\\u{{{ord(one):x}}}" for one in str(text)[: LONGEST + 1])
    return shown if len(shown) <= LONGEST else f"{shown[: LONGEST - 1]}…"


def values(reading: Mapping) -> str:
    shown = [f"{safe(field)}={value:g}" for field, value in sorted(reading.items())]
    more = [f"and {len(shown) - VALUES} more"] if len(shown) > VALUES else []
    return " ".join(shown[:VALUES] + more)


def age(seconds: int | None) -> str:
    if seconds is None:
        return "never"
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit} ago"
    return f"{seconds} s ago"


def table(head: list[str], rows: Iterable[list[str]]) -> str:
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def status_text(status: Mapping) -> str:
    services = table(
        ["SERVICE", "STATE", "ADDRESS", "ACCOUNT", "PASSWORD IN"],
        (
            [
                s["name"],
                s["state"]
                + (f", restarted {s['restarts']} times" if s["state"] == "runs" and s["restarts"] > 1 else ""),
                *[s["address"], s["account"], s["password"]],
            ]
            for s in status["services"]
        ),
    )
    devices = table(
        ["DEVICE", "STATE", "WAITS FOR", "LAST READING", ""],
        (
            [
                safe(d["name"]) or "(no device)",
                d["state"] + (f", failed: {safe(d['failed'])}" if d["failed"] else ""),
                safe(d["waiting_for"]),
                age(d["age"]),
                values(d["reading"]),
            ]
            for d in status["devices"]
        ),
    )
    problems = [service["problem"] for service in status["services"] if service["problem"]]
    notes = "".join("\n* " + note.replace("\n", "\n  ") for note in [*problems, *status["notes"]])
    return f"{services}\n\n{devices}\n{notes}"


class FilterModule:
    def filters(self):
        return {
            "device_states": device_states,
            "memory_notes": memory_notes,
            "message_faults": message_faults,
            "message_notes": message_notes,
            "status_queries": status_queries,
            "kept_in": kept_in,
            "service_states": service_states,
            "status_text": status_text,
        }
