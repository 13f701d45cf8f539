"""Requests to devices to send readings again, and the report of what became of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from zoneinfo import ZoneInfo

from ansible_collections.tig_pi.stack.plugins.plugin_utils.contract import CONTRACT

EARLIEST = CONTRACT["earliest_time"]
UNITS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
WRITTEN = "write it like 2026-07-12 14:40, 2026-07-12T12:40:00Z, 36h (that long ago), or in seconds since 1970"


def moment(text: object, zone: str, now: float) -> int:
    """Seconds since 1970 of a time as people write it.

    Args:
        text: a date and time, in the time zone of the site unless it names another; seconds since 1970; or how long ago.
        zone: the time zone of the site.
        now: seconds since 1970.

    Raises:
        ValueError: it is none of these.
    """
    text = str(text).strip()
    if ago := re.fullmatch(r"(\d+)([mhdw])", text):
        return int(now) - int(ago[1]) * UNITS[ago[2]]
    if re.fullmatch(r"\d{9,10}", text):
        return int(text)
    if not re.match(r"\d{4}-\d\d-\d\d", text):
        raise ValueError(f"{text!r} is not a time; {WRITTEN}")
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a time; {WRITTEN}") from None
    return int((found if found.tzinfo else found.replace(tzinfo=ZoneInfo(zone))).timestamp())


def replay_request(since: object, until: object, zone: str, now: float) -> dict:
    """A request as people write it: `since` and `until` in seconds since 1970 (None: now), and `problem`, "" if there is none."""
    request: dict = {"since": None, "until": None, "problem": ""}
    try:
        request["since"] = moment(since, zone, now)
        if str(until).strip():
            request["until"] = moment(until, zone, now)
    except ValueError as error:
        return {**request, "problem": f"{'UNTIL' if request['since'] is not None else 'SINCE'}: {error}."}
    if request["since"] < EARLIEST:
        request["problem"] = f"SINCE: {_time(request['since'], zone)} is before there were any readings."
    elif request["since"] >= now:
        request["problem"] = f"SINCE: {_time(request['since'], zone)} is not in the past."
    elif request["until"] is not None and request["until"] <= request["since"]:
        request["problem"] = (
            f"UNTIL: {_time(request['until'], zone)} is not after SINCE, {_time(request['since'], zone)}."
        )
    return request


def missing_spans(status: Mapping, since: int, until: int) -> list[tuple[int, int]]:
    """The parts of a span of which the device has no readings any more, from its status; the first one ends where its ring begins.

    A device that never knew the time has no reading that it could send again.
    """
    oldest = status.get("kept_since") or 0
    if not oldest:
        return [(since, until)]
    before = [(since, min(oldest, until))] if oldest > since else []
    gaps = [(max(start, since), min(end, until)) for start, end in status.get("gaps") or []]
    return before + [(start, end) for start, end in gaps if start < end]


def replay_line(name: str, result: Mapping, zone: str, now: float, overlap: int = 0) -> str:
    """What became of a request to a device, from the result of the module device_command.

    Args:
        name: the device.
        result: of the device.
        zone: the time zone of the site.
        now: seconds since 1970.
        overlap: seconds at the beginning of the span that are requested to be safe, and are no loss if they are missing.
    """
    answer, command = result["answer"], result["command"]
    again = "run the command again when `make status` shows that it is online"
    states = {
        "done": f"sent {answer.get('sent', 0)} readings again, in {result['seconds']} s",
        "refused": f"refused the request: {answer.get('reason', 'it gives no reason')}",
        "away": f"does not answer; {again}",
        "silent": f"accepted the request, and has been silent since; {again}",
        "incapable": "has a program that cannot send readings again; run `make flash`, and then this command again",
    }
    line = f"{name}: {states[result['state']]}"
    since = command["since"] + overlap
    # All that a device has is requested of one that the backup does not know.
    spans = missing_spans(result["status"], since, command.get("until") or int(now)) if since > EARLIEST else []
    if spans and result["state"] == "done":
        line += f"; it has no readings of {', '.join(f'{_time(start, zone)} to {_time(end, zone)}' for start, end in spans)}"
    return f"{line}."


def replay_requests(devices: Iterable[Mapping], only: str, span: Mapping, backup: Mapping, overlap: int) -> list[dict]:
    """The requests for the module device_command.

    Args:
        devices: of the site.
        only: the host of the only one that is asked; "" is all.
        span: `since` and `until`, see replay_request; {} is all since the backup.
        backup: what was restored, as `tig-pi-backup` has recorded it.
        overlap: so many seconds before the newest reading of the backup: not all may have been stored in the order of their times.
    """
    return [
        {
            "device": device["host"],
            "topics": {
                branch: f"{device['topic']}/{CONTRACT['branches'][branch]}"
                for branch in ("command", "answer", "status")
            },
            "command": {"do": "replay", **_span(device["name"], span, backup, overlap)},
        }
        for device in devices
        if only in ("", device["host"])
    ]


def _span(name: str, span: Mapping, backup: Mapping, overlap: int) -> dict[str, int]:
    if not span:
        return {"since": int(min(backup["newest"].get(name, EARLIEST), backup["begun"]) - overlap)}
    return {word: span[word] for word in ("since", "until") if span[word]}


def replay_lines(devices: Iterable[str], replayed: Mapping, zone: str, now: float, overlap: int = 0) -> list[str]:
    """A line for each device to which a request was sent, from the result of the module; one for all if it has failed."""
    if "devices" not in replayed:
        said = replayed.get("msg", "The requests were not sent.")
        return [f"{', '.join(devices)}: {said} `make pi` starts the broker and creates the account."]
    return [replay_line(device, replayed["devices"][device], zone, now, overlap) for device in devices]


def replay_result(devices: Iterable[str], replayed: Mapping) -> dict[str, list[str]]:
    """The devices that have carried out a request, and those that still owe their readings, for `tig-pi-backup replayed`."""
    states = {device: replayed.get("devices", {}).get(device, {}).get("state") for device in devices}
    return {
        "done": [device for device, state in states.items() if state == "done"],
        "owing": [device for device, state in states.items() if state != "done"],
    }


def _time(seconds: int, zone: str) -> str:
    return datetime.fromtimestamp(seconds, ZoneInfo(zone)).strftime("%Y-%m-%d %H:%M:%S")


class FilterModule:
    def filters(self) -> dict:
        return {
            "replay_lines": replay_lines,
            "replay_request": replay_request,
            "replay_requests": replay_requests,
            "replay_result": replay_result,
        }
