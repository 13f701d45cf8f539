"""Averages that are stored beside the readings: their retention policies and queries, from the list site_averages."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ansible_collections.tig_pi.stack.plugins.module_utils.influxdb.influxql import nanoseconds

HOUR, DAY = 3600, 86400
FUNCTIONS = ("mean", "min", "max", "count")


def averages_policies(averages: list[Mapping]) -> list[dict]:
    """A retention policy for each interval."""
    return [{"name": _policy(entry), "duration": entry["retention"]} for entry in averages]


def averages_queries(averages: list[Mapping], database: str, measurement: str, probe: str) -> list[dict]:
    """The query of each interval, in parts: name, select (which ends with a condition), group, and look_back: the seconds that
    the continuous query computes again each time."""
    select = (
        f"SELECT {', '.join(f'{function}(*)' for function in FUNCTIONS)} "
        f'INTO "{database}"."{{}}".:MEASUREMENT FROM "{database}"."autogen"."{measurement}" WHERE "device" != \'{probe}\''
    )
    return [
        {
            "name": _policy(entry),
            "select": select.format(_policy(entry)),
            "group": f"time({entry['interval']}), *",
            "look_back": max(HOUR, 2 * _seconds(entry)),
        }
        for entry in averages
    ]


def averages_continuous_queries(queries: list[Mapping]) -> list[dict]:
    return [
        {
            "name": query["name"],
            "query": f"{query['select']} GROUP BY {query['group']}",
            "resample": f"FOR {query['look_back']}s",
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
