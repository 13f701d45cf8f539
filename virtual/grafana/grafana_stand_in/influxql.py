"""InfluxQL queries of a panel or a rule: macros, the request to the database, and the frames of its answer."""

import base64
import json
import re
import socket
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import Any

from .frames import Field, Frame

_ALIAS = re.compile(r"\$(\w+)|\[\[([\s\S]+?)\]\]")
_DEFAULT_TIMEOUT = 30
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
_UNITS = ((31536000000, "y"), (86400000, "d"), (3600000, "h"), (60000, "m"), (1000, "s"))


class QueryError(Exception):
    """A query that failed, with the status and the source for the answer of /api/ds/query."""

    def __init__(self, message: str, status: int, source: str) -> None:
        super().__init__(message)
        self.status = status
        self.source = source


@dataclass
class TimeRange:
    """Milliseconds since 1970."""

    start: int
    end: int


def format_interval(milliseconds: int) -> str:
    """An interval in the largest unit that fits, rounded down, as Grafana writes it."""
    for unit, letter in _UNITS:
        if milliseconds >= unit:
            return f"{milliseconds // unit}{letter}"
    return f"{max(milliseconds, 1)}ms"


def render(model: dict[str, Any], range_: TimeRange, interval_ms: int) -> str:
    """The query text with its macros replaced."""
    text = model.get("query") or ""
    if not (text and model.get("rawQuery")):
        raise QueryError("this stand-in for Grafana supports only raw queries", 500, "plugin")
    shown = format_interval(interval_ms)
    text = text.replace("$timeFilter", f"time >= {range_.start}ms and time <= {range_.end}ms")
    text = text.replace("$interval", shown).replace("$__interval_ms", str(interval_ms))
    return text.replace("$__interval", shown)


class InfluxDB:
    """The database of a data source, queried with the data source's credentials."""

    def __init__(self, source: dict[str, Any]) -> None:
        self._source = source
        self._json = source["jsonData"]
        self._mode = self._json.get("httpMode") or "GET"
        self._database = self._json.get("dbName") or source["database"]
        self._timeout = float(self._json.get("timeout") or _DEFAULT_TIMEOUT)

    def _headers(self) -> dict[str, str]:
        if self._source["basicAuth"] or any(key.startswith("httpHeaderName") for key in self._json):
            raise QueryError("this stand-in for Grafana logs in to InfluxDB by user and password only", 500, "plugin")
        secure, headers = self._source["secure"], {"User-Agent": "Grafana/12.2.0"}
        name, password = self._source["user"], secure.get("password", "")
        if name:
            headers["Authorization"] = "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()
        return headers

    def ask(self, query: str, policy: str = "") -> dict[str, Any]:
        """The database's JSON answer to one query. Raises QueryError."""
        parts = urllib.parse.urlsplit(self._source["url"])
        if not parts.scheme or not parts.netloc:
            raise QueryError("URL must contain scheme and host", 500, "downstream")
        parameters = {"db": self._database, "epoch": "ms"}
        if policy and policy != "default":
            parameters["rp"] = policy
        headers, body = self._headers(), None
        if self._mode == "GET":
            parameters["q"] = query
        elif self._mode == "POST":
            body = urllib.parse.urlencode({"q": query}).encode()
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        else:
            raise QueryError("'httpMode' should be either 'GET' or 'POST'", 500, "downstream")
        path = parts.path.rstrip("/") + "/query"
        url = urllib.parse.urlunsplit(
            (parts.scheme, parts.netloc, path, urllib.parse.urlencode(sorted(parameters.items())), "")
        )
        request = urllib.request.Request(url, data=body, headers=headers, method=self._mode)
        try:
            with _opener.open(request, timeout=self._timeout) as response:
                answer = json.load(response)
        except urllib.error.HTTPError as error:
            raise QueryError(f"InfluxDB returned error: {_reason(error)}", 500, "downstream") from error
        except (urllib.error.URLError, OSError) as error:
            verb = self._mode.capitalize()
            raise QueryError(f'{verb} "{url}": {_network_error(error, parts)}', 502, "downstream") from error
        except ValueError as error:
            raise QueryError(f"invalid JSON from InfluxDB: {error}", 500, "plugin") from error
        failure = answer.get("error") or (answer.get("results") or [{}])[0].get("error")
        if failure:
            raise QueryError(failure, 500, "downstream")
        return answer


def _reason(error: urllib.error.HTTPError) -> str:
    try:
        answer = json.loads(error.read())
        return answer.get("error") or answer.get("message") or ""
    except (ValueError, AttributeError, OSError):
        return ""


def _network_error(error: OSError, parts: urllib.parse.SplitResult) -> str:
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    if isinstance(reason, ConnectionRefusedError):
        address = "[::1]" if host == "::1" else ("127.0.0.1" if host == "localhost" else host)
        return f"dial tcp {address}:{port}: connect: connection refused"
    if isinstance(reason, TimeoutError):
        return "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
    if isinstance(reason, socket.gaierror):
        return f"dial tcp: lookup {host}: no such host"
    return str(reason)


def _kind(values: list[Any]) -> str:
    for value in values:
        if value is not None:
            return "boolean" if isinstance(value, bool) else "string" if isinstance(value, str) else "number"
    return "number"


def _typed(values: list[Any], kind: str) -> list[Any]:
    if kind == "number":
        return [value if isinstance(value, int | float) and not isinstance(value, bool) else None for value in values]
    wanted = str if kind == "string" else bool
    return [value if isinstance(value, wanted) else None for value in values]


def _name(series: dict[str, Any], column: str, model: dict[str, Any], interval_ms: int) -> str:
    tags, name = series.get("tags") or {}, series.get("name", "")
    alias = model.get("alias") or ""
    if not alias:
        shown = f"{name}.{column}"
        return f"{shown} {{ {', '.join(f'{key}: {value}' for key, value in tags.items())} }}" if tags else shown
    segments = name.split(".")

    def replace(match: re.Match) -> str:
        word = match[1] if match[1] is not None else match[2]
        if word in ("m", "measurement"):
            return name
        if word == "col":
            return column
        if word == "__interval":
            return format_interval(interval_ms)
        if word == "__interval_ms":
            return str(interval_ms)
        if word.isdigit() and int(word) < len(segments):
            return segments[int(word)]
        return tags.get(word.removeprefix("tag_"), match[0]) if word.startswith("tag_") else match[0]

    return _ALIAS.sub(replace, alias)


def _time_series(rows: list[dict], model: dict[str, Any], interval_ms: int) -> list[Frame]:
    frames = []
    for series in rows:
        columns, values = series["columns"], series.get("values") or []
        if "time" not in [column.lower() for column in columns]:
            second = "key" in columns and "value" in columns and len(columns) == 2
            texts = [str(value[1] if second else value[0]) for value in values]
            frames.append(Frame(series.get("name", ""), [Field("Value", "string", texts)]))
            continue
        times = [value[0] for value in values]
        for position, column in enumerate(columns):
            if column == "time":
                continue
            cells = [value[position] for value in values]
            kind = _kind(cells)
            name = _name(series, column, model, interval_ms)
            value = Field("Value", kind, _typed(cells, kind), series.get("tags"), name)
            frames.append(Frame(name, [Field("Time", "time", times, nullable=False), value]))
    return frames


def _table(rows: list[dict]) -> list[Frame]:
    first = rows[0]
    columns = first["columns"]
    fields = []
    start = 0
    if columns[0] == "time":
        fields.append(
            Field("Time", "time", [v[0] for series in rows for v in series.get("values") or []], nullable=False)
        )
        start = 1
    tags = []
    for key in first.get("tags") or {}:
        cells = [(series.get("tags") or {}).get(key) for series in rows for _ in series.get("values") or []]
        tags.append(Field(key, "string", cells, None, key))
    others = []
    for position in range(start, len(columns)):
        cells = [value[position] for series in rows for value in series.get("values") or []]
        kind = _kind(cells)
        others.append(Field(columns[position], kind, _typed(cells, kind), None, columns[position]))
    if not start:
        fields, others = others[:1], others[1:]
    return [Frame(first.get("name", ""), fields + tags + others)]


def query(source: dict[str, Any], model: dict[str, Any], range_: TimeRange, interval_ms: int) -> list[Frame]:
    """Run a query of a panel or a rule. Raises QueryError."""
    if (source["jsonData"].get("version") or "InfluxQL") != "InfluxQL":
        raise QueryError("this stand-in for Grafana supports only InfluxQL", 500, "plugin")
    interval_ms = max(int(interval_ms), 1)
    text = render(model, range_, interval_ms)
    answer = InfluxDB(source).ask(text, model.get("policy") or "")
    rows = (answer.get("results") or [{}])[0].get("series") or []
    if not rows:
        return []
    kind = model.get("resultFormat") or ""
    frames = _table(rows) if kind == "table" else _time_series(rows, model, interval_ms)
    shown = {"table": "table", "logs": "logs"}.get(kind, "graph")
    frames[0].meta = {"custom": None, "preferredVisualisationType": shown, "executedQueryString": text}
    return frames


def health(source: dict[str, Any]) -> str:
    """The number of measurements. Raises QueryError."""
    answer = InfluxDB(source).ask("SHOW measurements")
    rows = (answer.get("results") or [{}])[0].get("series") or []
    return f"datasource is working. {len(rows[0].get('values') or []) if rows else 0} measurements found"
