"""What `make status` shows: the devices' states from the database's answer, and the whole as text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping


def points(results: list[Mapping], statement: int) -> dict[str, dict]:
    """The last point of each device in the answer to a statement of InfluxQL, by device."""
    found = {}
    for result in results:
        if result.get("statement_id", 0) == statement:
            for series in result.get("series", []):
                found[series["tags"]["device"]] = dict(zip(series["columns"], series["values"][0], strict=True))
    return found


def is_number(value) -> bool:
    """A measurement that is older than tig-pi has tags of its own, and the answer holds them among the fields."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def device_states(devices: list[Mapping], results: list[Mapping], now: float) -> list[dict]:
    """One entry a device: its state, what it waits for, and its last reading with its age in seconds (None: never).

    The name is "" for what was stored without a device.
    """
    readings, states = points(results, 0), points(results, 1)
    known = {device["name"] for device in devices}
    rows = []
    # What nobody has declared may send all the same; what is silent for a day has gone.
    others = {name for name, point in readings.items() if now - point["time"] < 86400} - known
    for name in [*(device["name"] for device in devices), *sorted(others)]:
        reading, state = readings.get(name, {}), states.get(name, {})
        seen = reading.pop("time", None)
        rows.append(
            {
                "name": name,
                "state": {1: "online", 0: "offline"}.get(state.get("online"), "unknown"),
                "waiting_for": state.get("waiting_for") or "",
                "version": state.get("version") or "",
                "failed": state.get("failed") or "",
                "age": None if seen is None else max(0, int(now - seen)),
                "reading": {field: value for field, value in reading.items() if is_number(value)},
            }
        )
    return rows


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
        ([s["name"], s["state"], s["address"], s["account"], s["password"]] for s in status["services"]),
    )
    devices = table(
        ["DEVICE", "STATE", "WAITS FOR", "LAST READING", ""],
        (
            [
                d["name"] or "(no device)",
                d["state"] + (f", failed: {d['failed']}" if d["failed"] else ""),
                d["waiting_for"],
                age(d["age"]),
                " ".join(f"{field}={value:g}" for field, value in sorted(d["reading"].items())),
            ]
            for d in status["devices"]
        ),
    )
    notes = "".join(f"\n* {note}" for note in status["notes"])
    return f"{services}\n\n{devices}\n{notes}"


class FilterModule:
    def filters(self):
        return {"device_states": device_states, "status_text": status_text}
