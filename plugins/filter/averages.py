"""Averages that are stored beside the readings: their retention policies and queries, from the list site_averages."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ansible_collections.tig_pi.stack.plugins.module_utils.influxdb.influxql import nanoseconds

DAY = 86400
EVERY = 1800  # seconds between two runs of a continuous query, if its interval is not longer; each run is a write to the card
LATE = 1800  # seconds for which a reading may be late and be included by the next run
SLACK = 60  # to write readings and averages takes some seconds
FUNCTIONS = ("mean", "min", "max", "count")


def averages_policies(averages: list[Mapping]) -> list[dict]:
    """A retention policy for each interval."""
    return [{"name": _policy(entry), "duration": entry["retention"]} for entry in averages]


def averages_queries(averages: list[Mapping], database: str, measurement: str, probe: str) -> list[dict]:
    """The query of each interval, in parts: name, select (which ends with a condition), group, late (how many seconds a reading
    may be late for the continuous query), and resample (how often that query runs, and how far it looks back)."""
    select = (
        f"SELECT {', '.join(f'{function}(*)' for function in FUNCTIONS)} "
        f'INTO "{database}"."{{}}".:MEASUREMENT FROM "{database}"."autogen"."{measurement}" WHERE "device" != \'{probe}\''
    )
    return [
        {
            "name": _policy(entry),
            "select": select.format(_policy(entry)),
            "group": f"time({entry['interval']}), *",
            "late": LATE,
            "resample": _resample(_seconds(entry)),
        }
        for entry in averages
    ]


def averages_continuous_queries(queries: list[Mapping]) -> list[dict]:
    return [
        {
            "name": query["name"],
            "query": f"{query['select']} GROUP BY {query['group']}",
            "resample": query["resample"],
            "backfill": True,
        }
        for query in queries
    ]


def averages_span(averages: list[Mapping]) -> int:
    """Seconds of a span of at least a day that consists of whole intervals of each length."""
    common = math.lcm(*map(_seconds, averages))
    return math.ceil(DAY / common) * common


def _policy(entry: Mapping) -> str:
    return f"averages_{entry['interval']}"


def _resample(interval: int) -> str:
    """Both are whole intervals."""
    every = max(1, EVERY // interval) * interval
    look_back = math.ceil((every + LATE + SLACK) / interval) * interval
    return f"EVERY {every}s FOR {look_back}s"


def _seconds(entry: Mapping) -> int:
    return nanoseconds(entry["interval"]) // 10**9


class FilterModule:
    def filters(self) -> dict:
        return {
            "averages_continuous_queries": averages_continuous_queries,
            "averages_policies": averages_policies,
            "averages_queries": averages_queries,
            "averages_span": averages_span,
        }
