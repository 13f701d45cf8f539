"""Run the query of a continuous query over the points that are stored already."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime

from ansible_collections.tig_pi.stack.plugins.module_utils.influxdb.client import Server
from ansible_collections.tig_pi.stack.plugins.module_utils.influxdb.influxql import DAY, nanoseconds

GROUP = re.compile(r"\s+(?=GROUP\s+BY\b)", re.IGNORECASE)
INTERVAL = re.compile(r"\btime\s*\(\s*(\w+)", re.IGNORECASE)
SOURCE = re.compile(r"\bFROM\s+(.*)", re.IGNORECASE)
CONDITION = re.compile(r"\bWHERE\b", re.IGNORECASE)


def backfill(server: Server, query: str, kept: int) -> None:
    """Compute all intervals between the oldest stored point and now, in spans of a day, so that no query takes long.

    Args:
        server: the database, logged in.
        query: SELECT … INTO … FROM … GROUP BY time(…), with database and policy before each measurement.
        kept: duration of the policy that it writes to, in nanoseconds; 0 is forever.
    """
    head, group = GROUP.split(query, maxsplit=1)
    source = SOURCE.search(head)[1]
    oldest = [_time(row["time"]) for row in server.rows(f"SELECT * FROM {source} ORDER BY time LIMIT 1")]
    if not oldest:
        return
    interval = nanoseconds(INTERVAL.search(group)[1])
    now = time.time_ns()
    # An older interval would be refused, or removed at once.
    start = max(min(oldest), now - kept + interval if kept else 0) // interval * interval
    step = interval * max(1, DAY // interval)
    for begin in range(start, now, step):
        span = f"time >= {begin} AND time < {begin + step}"
        server.query(f"{head} {'AND' if CONDITION.search(source) else 'WHERE'} {span} {group}")


def _time(text: str) -> int:
    """Nanoseconds of a time as the database returns it, without the fraction of the second."""
    return int(datetime.fromisoformat(text[:19]).replace(tzinfo=UTC).timestamp()) * 10**9
