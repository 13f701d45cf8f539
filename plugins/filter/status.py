"""The report of `make status`: the queries for it, the states of services and devices, and the text."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from ansible_collections.tig_pi.stack.plugins.filter.averages import FUNCTIONS
from ansible_collections.tig_pi.stack.plugins.module_utils.influxdb.influxql import nanoseconds
from ansible_collections.tig_pi.stack.plugins.plugin_utils.contract import CONTRACT

MEASUREMENTS = CONTRACT["measurements"]
STATES = {number: state["word"] for number, state in enumerate(CONTRACT["states"])}  # of a device
LISTED = 40  # undeclared devices in the report
QUERIED = 100  # undeclared devices in a query; most devices of a flood of names send only once
NAME_LENGTH = 60  # characters of a name in the report
VALUES = 20  # values of a reading in the report
BYTES = (
    3  # of a number in the database, time and indexes included: measured with 40 days of readings, and with averages
)
YEAR = 365 * 86400
SHORT_MARGIN = 86400  # seconds; a device keeps its readings for two weeks, and a backup is made each night
SECONDS_TO_START = 600  # from the start of a device to its first reading that has a time
WRITE_INTERVAL = 180  # seconds within which Telegraf always writes its own metrics


def status_queries(
    devices: list[Mapping], readings: list[Mapping], measurement: str, host_policy: str, ahead: int
) -> str:
    """The statements of InfluxQL whose results device_states, message_faults and message_notes read by their number.

    Their cost depends on what the site declares and not on what else is in the database. Points that are further ahead
    than `ahead` minutes are ignored.
    """
    names = "|".join(device["name"] for device in devices)
    known = f"{names}{'|' if names else ''}{CONTRACT['probe']}"
    fields = ", ".join(f'"{reading["field"]}"' for reading in readings) or "*"
    stored_status = MEASUREMENTS["status"]
    entries = '"online", "waiting_for", "version", "failed", "uptime", "kept_since", "gaps"'
    until = f"time < now() + {ahead}m"
    day = f"time > now() - 1d AND {until}"
    declared = f'WHERE "device" =~ /^({names})$/ AND {until} GROUP BY "device" ORDER BY time DESC LIMIT 1'
    other = f'WHERE "device" !~ /^({known})$/ AND {day} GROUP BY "device" ORDER BY time DESC'
    of_host = f'"{host_policy}".' if host_policy else ""

    def growth(counter: str, measurement: str, by: str) -> str:
        inner = f'SELECT non_negative_difference("{counter}") AS "n" FROM {of_host}"{measurement}" WHERE {day} GROUP BY {by}'
        return f'SELECT sum("n") FROM ({inner}) GROUP BY {by}'

    return "; ".join(
        (
            f'SELECT {fields} FROM "{measurement}" {declared}',
            f'SELECT {entries} FROM "{stored_status}" {declared}',
            growth("count", MEASUREMENTS["faults"], '"reason"'),
            growth("publish_messages_dropped", MEASUREMENTS["broker"], '"host"'),
            growth("metrics_dropped", "internal_write", '"alias"'),
            f'SELECT last("metrics_written") FROM {of_host}"internal_write" WHERE {until}',
            f'SELECT first("online") FROM "{stored_status}" WHERE "device" =~ /^({names})$/ GROUP BY "device"',
            # Last: the database refuses it, and all later statements, if there are too many series (max-select-series).
            f'SELECT {entries} FROM "{stored_status}" {other} LIMIT 1 SLIMIT {QUERIED}',
            f'SELECT * FROM "{measurement}" {other} LIMIT 2 SLIMIT {QUERIED}',
        )
    )


def series_of(results: list[Mapping], statement: int) -> list[Mapping]:
    return [
        series
        for result in results
        if result.get("statement_id", 0) == statement
        for series in result.get("series", [])
    ]


# States of a service with a problem: service_state's word for each, and the one in the report.
SERVICE_STATES = {
    "running": "has damaged files",
    "starting": "does not become ready",
    "restarting": "keeps restarting",
    "ended": "does not run",
    "not_listening": "does not listen",
    "missing": "is not installed",
    "unknown": "not known",
}


def secret_location(value: str, secret: str, variable: str, site_secrets: Mapping, inventory: str) -> str:
    """Where people find the password that a service has.

    Args:
        value: the password.
        secret: the name of the secret that it is by default.
        variable: the role variable that a site may have set to another password.
        site_secrets: secrets from elsewhere.
        inventory: the inventory's directory.
    """
    if secret in site_secrets:
        return f'site_secrets["{secret}"]' if site_secrets[secret] == value else variable
    path = Path(inventory, "secrets", secret)
    if path.is_file() and path.read_text(encoding="utf-8").rstrip("\n") == value:
        return os.path.relpath(path, os.environ.get("PWD"))
    return variable


def service_states(services: list[Mapping], found: Mapping[str, list[Mapping]]) -> list[dict]:
    """The services, each with its state in a few words, and its problem in full ("" if there is none).

    Args:
        services: those that people use, each with the error that a request to it returned ("" if it succeeded).
        found: the results of service_state by host. Services that are only here have a row, too.
    """
    rows = []
    for service in services:
        unit = next(unit for unit in found[service["host"]] if unit["unit"] == service["unit"])
        rows.append({"address": "", "account": "", "password": "", **service, **_state(service, unit)})
    known = {(service["host"], service["unit"]) for service in services}
    for host, units in found.items():
        for unit in units:
            if (host, unit["unit"]) not in known:
                name = unit["unit"].removesuffix(".service") + (f" on {host}" if len(found) > 1 else "")
                row = {"name": name, "unit": unit["unit"], "host": host}
                rows.append({**row, "address": "", "account": "", "password": "", **_state(row, unit)})
    return rows


def _state(service: Mapping, unit: Mapping) -> dict:
    problem, error = unit["problem"], service.get("error", "")
    if problem:
        state = SERVICE_STATES[unit["state"]]
    elif unit["state"] == "starting":
        state = time.strftime("starting since %H:%M:%S", time.localtime(unit["since"]))
    elif error:
        state = "does not answer"
        problem = f"{service['unit']} runs on {service['host']}, but does not answer at {service['address']}: {error}"
    else:
        state = "runs"
    return {"state": state, "problem": problem, "since": unit["since"], "restarts": unit["restarts"]}


def points(results: list[Mapping], statement: int) -> dict[str, dict]:
    """The last point of each device in the result of a statement, by device."""
    return {
        series["tags"]["device"]: dict(zip(series["columns"], series["values"][0], strict=True))
        for series in series_of(results, statement)
    }


def is_number(value) -> bool:
    """A measurement that is older than tig-pi has other tags, and a result has tags among its fields."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def undeclared_devices(results: list[Mapping]) -> list[str]:
    """Devices that the site does not declare and that have sent more than once in the last day."""
    return sorted(series["tags"]["device"] for series in series_of(results, 8) if len(series["values"]) > 1)


def device_states(devices: list[Mapping], results: list[Mapping], now: float, backup: int = 0) -> list[dict]:
    """One entry per device: its state, what it waits for, its last reading with its age in seconds (None: never), and since when
    it keeps its readings (None: not known).

    `margin`: seconds by which these reach back further than the last backup (None: not known), which was made at `backup`
    (0: never). The name of a device is "" for points that were stored without one.
    """
    readings = points(results, 8) | points(results, 0)
    states = points(results, 7) | points(results, 1)
    firsts = points(results, 6)
    rows = []
    for name in [*(device["name"] for device in devices), *undeclared_devices(results)[:LISTED]]:
        reading, state = dict(readings.get(name, {})), states.get(name, {})
        time_of_reading = reading.pop("time", None)
        since = int(state.get("kept_since") or 0) or None
        rows.append(
            {
                "name": name,
                "state": STATES.get(state.get("online"), "unknown"),
                "waiting_for": state.get("waiting_for") or "",
                "version": state.get("version") or "",
                "failed": state.get("failed") or "",
                "age": None if time_of_reading is None else max(0, int(now - time_of_reading)),
                "reading": {field: value for field, value in reading.items() if is_number(value)},
                "kept_since": since,
                "kept_for": max(0, int(now - since)) if since else None,
                "started": int(state["time"] - state["uptime"]) if is_number(state.get("uptime")) else None,
                "first_status": firsts.get(name, {}).get("time"),
                "gaps": [
                    [int(moment) for moment in gap.split("-")] for gap in (state.get("gaps") or "").split(",") if gap
                ],
                "margin": backup - since if since and backup else None,
            }
        )
    return rows


def device_notes(devices: list[Mapping], declared: list[Mapping], backup: int) -> list[str]:
    """Notes on readings that neither the last backup nor their device has, from the result of device_states."""
    notes = []
    names = {device["name"] for device in declared}
    for row in (row for row in devices if row["name"] in names):
        name, margin, since = row["name"], row["margin"], row["kept_since"]
        if margin is not None and margin < 0 and not _is_new(row):
            notes.append(
                f"If the card failed now, the readings of {name} from {moment(backup)} to {moment(since)} would be lost: they are not"
                " in the last backup, and the device does not have them any more. make backup saves them."
            )
        elif margin is not None and margin < SHORT_MARGIN and not (_is_new(row) or _is_started(row)):
            notes.append(
                f"{name} has its readings since {moment(since)}. When it needs the space of those before {moment(backup)}, the"
                " time of the last backup, later ones are on the card only: run make backup."
            )
        if row["gaps"]:
            gaps = ", ".join(f"{moment(start)} to {moment(end)}" for start, end in row["gaps"])
            notes.append(f"{name} has no readings of {gaps}.")
    return notes


def _is_new(row: Mapping) -> bool:
    """Whether a device still has the first reading that it ever sent."""
    return row["first_status"] is not None and row["kept_since"] - row["first_status"] < SECONDS_TO_START


def _is_started(row: Mapping) -> bool:
    """Whether the oldest reading of a device is the first one since its start: it has not needed any space yet."""
    return row["started"] is not None and abs(row["kept_since"] - row["started"]) < SECONDS_TO_START


def moment(seconds: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def message_faults(results: list[Mapping]) -> dict[str, int]:
    """How many faulty messages and fields were counted in the last day, by reason."""
    counted = {series["tags"]["reason"]: int(series["values"][0][1] or 0) for series in series_of(results, 2)}
    return {reason: number for reason, number in sorted(counted.items()) if number}


def message_notes(results: list[Mapping], now: float) -> list[str]:
    """Notes on messages that wait, were rejected or dropped, and on devices that are not listed."""
    notes = []
    for series in series_of(results, 5):
        if (seconds := int(now - series["values"][0][0])) > WRITE_INTERVAL:
            notes.append(
                f"Telegraf last wrote to the database {age(seconds)}. If it runs, the database refuses its points: "
                "journalctl -u telegraf says why. Messages wait meanwhile and are not lost."
            )
    if faults := message_faults(results):
        notes.append(
            f"Faulty messages of the last day: {', '.join(f'{reason} {number}' for reason, number in faults.items())}. "
            "docs/messages.md describes each reason; journalctl -u telegraf has examples."
        )
    for statement, program, what in (
        (3, "The broker", "messages: the queue of a client that was offline or slow was full"),
        (4, "Telegraf", "points: the database was not available for long"),
    ):
        if number := sum(int(series["values"][0][1] or 0) for series in series_of(results, statement)):
            notes.append(f"{program} dropped {number} {what}.")
    if (
        len(undeclared_devices(results)) > LISTED
        or len(series_of(results, 8)) >= QUERIED
        or any("error" in result for result in results)
    ):
        notes.append("There are too many undeclared devices to list all of them.")
    return notes


def expected_sizes(devices: list[Mapping], readings_retention: str, averages: list[Mapping]) -> list[dict]:
    """What the readings of the declared devices will take on the card, in bytes: per year, and in total if they are not kept
    forever (None)."""
    fields = sum(len(device["fields"]) for device in devices)
    readings = sum(len(device["fields"]) * YEAR / device["interval"] for device in devices)
    stored = [("readings", readings, readings_retention)]
    for entry in averages:
        numbers = fields * len(FUNCTIONS) * YEAR / (nanoseconds(entry["interval"]) / 1e9)
        stored.append((f"averages of {entry['interval']}", numbers, entry["retention"]))
    sizes = []
    for name, numbers, retention in stored:
        kept = nanoseconds(retention) / 1e9
        per_year = round(numbers * BYTES)
        total = round(per_year * kept / YEAR) if kept else None
        sizes.append({"name": name, "retention": retention, "per_year": per_year, "total": total})
    return sizes


def size(number: int) -> str:
    megabytes = number / 1e6
    return f"{megabytes:.0f} MB" if megabytes >= 10 else f"{megabytes:.1f} MB"


def memory_notes(hosts: list[str]) -> list[str]:
    """Notes on hosts whose kernel does not limit memory."""
    return [
        f"The kernel of {host} does not limit the memory of services (the default of Raspberry Pi OS): only the programs' own "
        "limits hold. To change that, add cgroup_enable=memory to the line in /boot/firmware/cmdline.txt and reboot."
        for host in hosts
    ]


def safe(text: object) -> str:
    """A name for the terminal: shortened, and without characters that move the cursor or change the direction of writing."""
    shown = "".join(one if one.isprintable() else f"\\u{{{ord(one):x}}}" for one in str(text)[: NAME_LENGTH + 1])
    return shown if len(shown) <= NAME_LENGTH else f"{shown[: NAME_LENGTH - 1]}…"


def values(reading: Mapping) -> str:
    shown = [f"{safe(field)}={value:g}" for field, value in sorted(reading.items())]
    more = [f"and {len(shown) - VALUES} more"] if len(shown) > VALUES else []
    return " ".join(shown[:VALUES] + more)


def age(seconds: int | None) -> str:
    return "never" if seconds is None else f"{span(seconds)} ago"


def span(seconds: int | None) -> str:
    if seconds is None:
        return ""
    sign, seconds = ("-" if seconds < 0 else ""), abs(seconds)
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{sign}{seconds // length} {unit}"
    return f"{sign}{seconds} s"


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
        ["DEVICE", "STATE", "WAITS FOR", "KEEPS", "MARGIN", "LAST READING", ""],
        (
            [
                safe(d["name"]) or "(no device)",
                d["state"] + (f", failed: {safe(d['failed'])}" if d["failed"] else ""),
                safe(d["waiting_for"]),
                span(d["kept_for"]),
                span(d["margin"]),
                age(d["age"]),
                values(d["reading"]),
            ]
            for d in status["devices"]
        ),
    )
    sizes = table(
        ["STORED", "KEPT", "EXPECTED SIZE"],
        (
            [
                s["name"],
                "forever" if s["total"] is None else s["retention"],
                f"{size(s['per_year'])} a year" if s["total"] is None else size(s["total"]),
            ]
            for s in status["sizes"]
        ),
    )
    problems = [service["problem"] for service in status["services"] if service["problem"]]
    notes = "".join("\n* " + note.replace("\n", "\n  ") for note in [*problems, *status["notes"]])
    stored = f"\n{sizes}\n" if status["sizes"] else ""
    return f"{services}\n\n{devices}\n{stored}{notes}"


class FilterModule:
    def filters(self):
        return {
            "device_notes": device_notes,
            "device_states": device_states,
            "expected_sizes": expected_sizes,
            "memory_notes": memory_notes,
            "message_faults": message_faults,
            "message_notes": message_notes,
            "status_queries": status_queries,
            "secret_location": secret_location,
            "service_states": service_states,
            "status_text": status_text,
        }
