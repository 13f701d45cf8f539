"""A dashboard drawn simply: curves as SVG, everything else as its last values. Not Grafana's looks, but its numbers."""

import datetime
import html
import re
import time
from typing import Any

from . import influxql
from .datasources import DataSources
from .frames import Field, Frame
from .influxql import QueryError, TimeRange
from .queries import moment

_COLOURS = ("#d95f02", "#1b6ca8", "#7b3294", "#2c8c3c", "#b8860b", "#c0392b")
_POINTS = 200
_WIDTH, _HEIGHT = 600, 180
_UNITS = {"celsius": " °C", "percent": " %", "humidity": " %", "pressurehpa": " hPa", "s": " s", "bytes": " B"}


def _shown(value: Any, unit: str = "") -> str:
    if value is None or value == "":
        return "–"
    if isinstance(value, bool | str):
        return str(value)
    if unit == "percentunit":
        return f"{value * 100:.4g} %"
    return f"{value:.6g}{_UNITS.get(unit, '')}"


def _variables(model: dict[str, Any], sources: DataSources) -> dict[str, str]:
    """One value for each variable: all where all are wanted, else the one chosen, else the first that there is."""
    values = {}
    for variable in (model.get("templating") or {}).get("list") or []:
        chosen = (variable.get("current") or {}).get("value")
        chosen = chosen[0] if isinstance(chosen, list) and chosen else chosen
        if chosen == "$__all":
            chosen = variable.get("allValue") or ".*"
        source = sources.find((variable.get("datasource") or {}).get("uid") or "default")
        if not chosen and source and isinstance(variable.get("query"), str):
            try:
                answer = influxql.query(source, {"rawQuery": True, "query": variable["query"]}, TimeRange(0, 0), 1000)
                chosen = next((frame.fields[0].values[0] for frame in answer if frame.fields[0].values), "")
            except QueryError:
                chosen = ""
        values[variable["name"]] = str(chosen or "")
    return values


def _fill_in(text: str, values: dict[str, str]) -> str:
    return re.sub(r"\$\{(\w+)\}|\$(\w+)", lambda m: values.get(m[1] or m[2], m[0]), text)


def _frames(panel: dict[str, Any], values: dict[str, str], range_: TimeRange, sources: DataSources) -> list[Frame]:
    frames = []
    for target in panel.get("targets") or []:
        uid = ((target.get("datasource") or panel.get("datasource")) or {}).get("uid") or "default"
        source = sources.find(uid)
        if source and source["type"] == "influxdb" and not target.get("hide"):
            model = {**target, "query": _fill_in(target.get("query") or "", values)}
            frames += influxql.query(source, model, range_, (range_.end - range_.start) // _POINTS)
    return frames


def _curves(frames: list[Frame], range_: TimeRange, unit: str, axis: list[float]) -> str:
    lines: list[tuple[str, list[tuple[int, float]]]] = []
    for frame in frames:
        times = next((column for column in frame.fields if column.kind == "time"), None)
        for column in frame.fields:
            if times and column.kind == "number":
                points = [(t, v) for t, v in zip(times.values, column.values, strict=True) if v is not None]
                lines.append((column.display or column.name, points))
    numbers = [value for _, points in lines for _, value in points]
    if not numbers:
        return "<p>No data</p>"
    low, high = min(numbers + axis), max(numbers + axis)
    if low == high:
        margin = abs(low) / 10 or 1
        low, high = low - margin, high + margin
    across, up = _WIDTH / max(1, range_.end - range_.start), _HEIGHT / (high - low)
    drawn, legend = [], []
    for position, (name, points) in enumerate(lines):
        colour = _COLOURS[position % len(_COLOURS)]
        path = " ".join(
            f"{(at - range_.start) * across:.1f},{_HEIGHT - (value - low) * up:.1f}" for at, value in points
        )
        drawn.append(f'<polyline points="{path}" stroke="{colour}"/>')
        last = _shown(points[-1][1], unit) if points else "–"
        legend.append(f'<span style="color:{colour}">&#9632;</span> {html.escape(name)}: {last}')
    return (
        f'<small>{_shown(high, unit)}</small><svg viewBox="0 -4 {_WIDTH} {_HEIGHT + 8}" preserveAspectRatio="none">'
        f"{''.join(drawn)}</svg><small>{_shown(low, unit)}</small><p>{'&ensp;'.join(legend)}</p>"
    )


def _cell(column: Field, row: int, unit: str) -> str:
    value = column.values[row]
    if column.kind == "time" and value is not None:
        value = datetime.datetime.fromtimestamp(value / 1000, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return html.escape(_shown(value, unit if column.kind == "number" else ""))


def _table(frames: list[Frame]) -> str:
    tables = []
    for frame in frames:
        head = "".join(f"<th>{html.escape(column.name)}</th>" for column in frame.fields)
        rows = [
            "<tr>" + "".join(f"<td>{_cell(column, row, '')}</td>" for column in frame.fields) + "</tr>"
            for row in range(min(50, len(frame.fields[0].values) if frame.fields else 0))
        ]
        tables.append(f"<table><tr>{head}</tr>{''.join(rows)}</table>")
    return "".join(tables) or "<p>No data</p>"


def _age(frames: list[Frame]) -> str:
    times = [at for frame in frames for c in frame.fields if c.kind == "time" for at in c.values if at is not None]
    if not times:
        return "<p>No data</p>"
    return f"<p><b>{max(0, int(time.time() - max(times) / 1000))} s ago</b></p>"


def _last(frames: list[Frame], unit: str) -> str:
    if unit == "dateTimeFromNow":
        return _age(frames)
    shown = []
    for frame in frames:
        for column in frame.fields:
            rows = [row for row, value in enumerate(column.values) if value is not None]
            if rows and (column.kind != "time" or len(frame.fields) == 1):
                name = "" if column.name == "Value" else f"<small>{html.escape(column.name)}</small> "
                shown.append(f"{name}<b>{_cell(column, rows[-1], unit)}</b>")
    return f"<p>{'&ensp;'.join(shown)}</p>" if shown else "<p>No data</p>"


def draw(model: dict[str, Any], sources: DataSources) -> str:
    """The panels of a dashboard as HTML, over the dashboard's own time range."""
    now = time.time_ns() // 1_000_000
    wanted = model.get("time") or {}
    range_ = TimeRange(moment(wanted.get("from") or "now-6h", now), moment(wanted.get("to") or "now", now))
    values = _variables(model, sources)
    parts = []
    for panel in model.get("panels") or []:
        title = html.escape(_fill_in(str(panel.get("title") or ""), values))
        if panel.get("type") == "row":
            parts.append(f'<h2 style="grid-column:span 24">{title}</h2>')
            continue
        defaults = (panel.get("fieldConfig") or {}).get("defaults") or {}
        unit, custom = defaults.get("unit") or "", defaults.get("custom") or {}
        axis = [custom[key] for key in ("axisSoftMin", "axisSoftMax") if isinstance(custom.get(key), int | float)]
        try:
            frames = _frames(panel, values, range_, sources)
            if panel.get("type") in ("timeseries", "graph", "barchart"):
                content = _curves(frames, range_, unit, axis)
            else:
                content = _table(frames) if panel.get("type") == "table" else _last(frames, unit)
        except QueryError as error:
            content = f'<p class="wrong">{html.escape(str(error))}</p>'
        width = (panel.get("gridPos") or {}).get("w") or 12
        parts.append(f'<section style="grid-column:span {int(width)}"><h3>{title}</h3>{content}</section>')
    return f'<div class="grid">{"".join(parts)}</div>'
