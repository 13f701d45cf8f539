"""Run queries and expressions that refer to each other, for panels (/api/ds/query) and for alert rules."""

import re
import time
from dataclasses import dataclass, field, replace
from typing import Any

from . import expressions, influxql
from .datasources import DataSources, not_registered
from .errors import ApiError, coded
from .frames import Frame
from .influxql import QueryError, TimeRange


@dataclass
class Query:
    """One query of a request or a rule."""

    ref_id: str
    source_uid: str
    model: dict[str, Any]
    range: TimeRange
    interval_ms: int = 1000

    @property
    def is_expression(self) -> bool:
        return self.source_uid in expressions.UIDS


@dataclass
class Result:
    """The result of a query: frames and values, or an error."""

    frames: list[Frame] = field(default_factory=list)
    values: list[expressions.Value] = field(default_factory=list)
    error: str = ""
    status: int = 200
    error_source: str = ""


class SourceNotFound(Exception):
    """A query names a data source that does not exist."""


class BadPipeline(Exception):
    """The references between the expressions are circular or missing."""


class BadExpression(BadPipeline):
    """An invalid expression."""

    def __init__(self, ref_id: str, reason: str) -> None:
        super().__init__(f"failed to parse expression [{ref_id}]: {reason}")
        self.ref_id = ref_id
        self.reason = reason


def order(queries: list[Query]) -> list[Query]:
    """The queries in an order in which each comes after those that it refers to. Raises BadPipeline."""
    known = {query.ref_id: query for query in queries}
    done: list[Query] = []
    visiting: set[str] = set()

    def visit(query: Query) -> None:
        if query in done:
            return
        if query.ref_id in visiting:
            raise BadPipeline(
                f"expression '{query.ref_id}' cannot reference itself. Must be query or another expression"
            )
        visiting.add(query.ref_id)
        if query.is_expression:
            for name in expressions.needs(query.model):
                if name not in known:
                    raise BadPipeline(f"unable to find dependent node '{name}'")
                visit(known[name])
        visiting.discard(query.ref_id)
        done.append(query)

    for query in queries:
        visit(query)
    return done


def run(queries: list[Query], sources: DataSources, for_rule: bool = False) -> dict[str, Result]:
    """Results by refId. Raises SourceNotFound, BadPipeline."""
    results: dict[str, Result] = {}
    found = {}
    for query in queries:
        if not query.is_expression and query.source_uid not in found:
            source = sources.find(query.source_uid)
            if source is None:
                raise SourceNotFound("data source not found")
            found[query.source_uid] = source
    with_expressions = for_rule or any(query.is_expression for query in queries)
    for query in queries:
        if query.is_expression:
            try:
                expressions.check(query.model)
            except expressions.ExpressionError as error:
                raise BadExpression(query.ref_id, str(error)) from error
    ordered = order(queries)
    for query in ordered:
        if query.is_expression:
            results[query.ref_id] = _expression(query, results)
        else:
            results[query.ref_id] = _source(query, found[query.source_uid], with_expressions)
    return results


def _source(query: Query, source: dict[str, Any], with_expressions: bool) -> Result:
    if source["type"] != "influxdb":
        raise not_registered()
    try:
        frames = influxql.query(source, query.model, query.range, query.interval_ms)
    except QueryError as error:
        message = str(error)
        if with_expressions:
            message = f"[sse.dataQueryError] failed to execute query [{query.ref_id}]: {message}"
        return Result(error=message, status=error.status, error_source=error.source)
    try:
        values = expressions.from_frames(frames) if with_expressions else []
    except expressions.ExpressionError as error:
        return Result(
            error=f"[sse.readDataError] [{query.ref_id}] got error: {error}", status=500, error_source="plugin"
        )
    if with_expressions:
        frames = [_named(frame) for frame in frames]
    return Result(frames, values)


def _named(frame: Frame) -> Frame:
    """In the input of an expression, a column of values has its display name."""
    columns = [replace(c, name=c.display) if c.name == "Value" and c.display else c for c in frame.fields]
    return replace(frame, fields=columns)


def _expression(query: Query, results: dict[str, Result]) -> Result:
    names = expressions.needs(query.model)
    for name in names:
        if results[name].error:
            return Result(
                error=f"[sse.dependencyError] did not execute expression [{query.ref_id}] due to a failure of the"
                f" dependent expression or query [{name}]",
                status=500,
                error_source="downstream",
            )
    try:
        values = expressions.evaluate(query.ref_id, query.model, {name: results[name].values for name in names})
    except expressions.ExpressionError as error:
        return Result(
            error=f"[sse.expressionError] [{query.ref_id}] {error}",
            status=500,
            error_source="plugin",
        )
    return Result(expressions.to_frames(query.ref_id, values), values)


_UNITS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_RELATIVE = re.compile(r"now(?:([-+])(\d+)([smhd]))?")


def moment(text: Any, now_ms: int) -> int:
    """`now`, `now-1h` or milliseconds since 1970, in milliseconds; anything else is 0, as in Grafana."""
    shown = str(text)
    if shown.lstrip("-").isdigit():
        return int(shown)
    match = _RELATIVE.fullmatch(shown)
    if not match:
        return 0
    at = now_ms
    if match[1]:
        at += (1 if match[1] == "+" else -1) * int(match[2]) * _UNITS[match[3]]
    return at


def parse_request(body: Any, sources: DataSources) -> list[Query]:
    """Queries of a request to /api/ds/query. Raises ApiError."""
    if not isinstance(body, dict):
        raise ApiError(400, "bad request data")
    entries = body.get("queries") or []
    if not entries:
        raise coded(400, "query.noQueries", "No queries found")
    now_ms = time.time_ns() // 1_000_000
    parsed = []
    for entry in entries:
        reference = entry.get("datasource") or {}
        uid = reference.get("uid", "") if isinstance(reference, dict) else str(reference)
        if not uid and isinstance(reference, dict) and reference.get("type") == "__expr__":
            uid = "__expr__"
        if not uid:
            raise coded(
                400,
                "query.invalidDatasourceId",
                "Query does not contain a valid data source identifier",
            )
        own = entry.get("timeRange") or {}
        range_ = TimeRange(
            moment(own.get("from") or body.get("from") or "now-6h", now_ms),
            moment(own.get("to") or body.get("to") or "now", now_ms),
        )
        interval = entry.get("intervalMs") or 1000
        parsed.append(Query(str(entry.get("refId") or "A"), uid, entry, range_, int(interval)))
    if len({query.ref_id for query in parsed}) < len(parsed):
        raise coded(400, "query.duplicateRefId", "Multiple queries using the same RefId is not allowed ")
    return parsed


def answer(queries: list[Query], results: dict[str, Result]) -> tuple[int, dict[str, Any]]:
    """Status and body of the answer of /api/ds/query."""
    shown: dict[str, Any] = {}
    failed = False
    with_expressions = any(query.is_expression for query in queries)
    for query in queries:
        result = results[query.ref_id]
        if result.error:
            failed = True
            shown[query.ref_id] = {
                "error": result.error,
                "errorSource": "" if with_expressions else result.error_source,
                "status": result.status,
            }
            if with_expressions:
                shown[query.ref_id]["frames"] = []
        else:
            shown[query.ref_id] = {
                "status": 200,
                "frames": [frame.to_json(query.ref_id) for frame in result.frames],
            }
    return (400 if failed else 200), {"results": shown}
