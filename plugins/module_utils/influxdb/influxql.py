"""InfluxQL: names, strings, durations and queries, and whether two queries are the same."""

from __future__ import annotations

import re

UNITS = {
    "ns": 1,
    "u": 1_000,
    "µ": 1_000,
    "us": 1_000,
    "µs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
    "d": 86_400_000_000_000,
    "w": 604_800_000_000_000,
}
DURATION = re.compile(r"(\d+)(ns|us|µs|ms|u|µ|s|m|h|d|w)")
DAY = UNITS["d"]


def nanoseconds(duration: str) -> int:
    """A duration of InfluxQL (30d, 1h30m, 720h0m0s, INF) in nanoseconds; 0 is forever.

    Raises:
        ValueError: it is not a duration.
    """
    text = str(duration).strip()
    if text.lower() in ("inf", "0"):
        return 0
    parts = DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{duration!r} is not a duration; write 30d, 26w, 12h or 0s (forever)")
    return sum(int(number) * UNITS[unit] for number, unit in parts)


def in_words(duration: int) -> str:
    """Nanoseconds as a duration of InfluxQL, in the largest unit that fits."""
    if duration == 0:
        return "INF"
    for unit in ("w", "d", "h", "m", "s"):
        if duration % UNITS[unit] == 0:
            return f"{duration // UNITS[unit]}{unit}"
    return f"{duration}ns"


def usual_shard(duration: int) -> int:
    """The shard duration that the server chooses for a retention policy."""
    if duration == 0 or duration >= 180 * DAY:
        return 7 * DAY
    return DAY if duration >= 2 * DAY else UNITS["h"]


def normal_query(text: str) -> str:
    """A statement without differences that do not matter: case, spaces, quotes around names, units of durations."""
    # Before the spaces are removed, which separate a duration from the word before it.
    text = re.sub(
        r"(?<![\w.])(?:\d+(?:ns|us|µs|ms|u|µ|s|m|h|d|w))+(?!\w)",
        lambda found: f"{nanoseconds(found[0])}ns",
        text.lower(),
    )
    return re.sub(r"\s+", "", text.replace('"', "")).rstrip(";")


SEGMENT = r'(?:"(?:[^"\\]|\\.)*"|/(?:[^/\\]|\\.)*/|:MEASUREMENT\b|\w+)'
PATH = rf"{SEGMENT}(?:\.{SEGMENT}?){{0,2}}"
SOURCES = re.compile(rf"\b(INTO|FROM)\s+({PATH}(?:\s*,\s*{PATH})*)", re.IGNORECASE)


def qualified(text: str, database: str, policy: str) -> str:
    """A query with database and retention policy before each measurement, as the server stores it."""

    def full(path: re.Match) -> str:
        parts = re.findall(rf"{SEGMENT}|(?<=\.)(?=\.)", path[0], re.IGNORECASE)
        parts = ["", "", *parts][-3:]
        return f"{parts[0] or database}.{parts[1] or policy}.{parts[2]}"

    return SOURCES.sub(lambda found: f"{found[1]} {re.sub(PATH, full, found[2], flags=re.IGNORECASE)}", text)


def target_policy(query: str, database: str, policy: str) -> str:
    """The name of the retention policy that a query writes INTO; `policy` if it names none."""
    into = re.search(rf"\bINTO\s+({PATH})", qualified(query, name_of(database), name_of(policy)), re.IGNORECASE)
    return re.findall(SEGMENT, into[1], re.IGNORECASE)[1].strip('"')


def name_of(identifier: str) -> str:
    escaped = identifier.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def text_of(string: str) -> str:
    escaped = string.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return f"'{escaped}'"
