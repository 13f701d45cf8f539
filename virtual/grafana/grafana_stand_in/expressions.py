"""Server-side expressions over the results of queries: reduce, threshold, and math with comparisons.

What Grafana knows beyond that is an error here.
"""

import math
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .frames import Field, Frame

UIDS = ("__expr__", "-100")


class ExpressionError(Exception):
    """The expression cannot be evaluated."""


@dataclass
class Series:
    """Values over time (milliseconds) with labels."""

    labels: dict[str, str]
    times: list[int]
    values: list[float | None]
    name: str = ""


@dataclass
class Number:
    """One value with labels."""

    labels: dict[str, str]
    value: float | None


@dataclass
class NoData:
    """The result of a query without data."""

    labels: dict[str, str] = field(default_factory=dict)


Value = Series | Number | NoData


def _is_numeric(column: Field) -> bool:
    return column.kind in ("number", "boolean")


def _as_float(value: Any) -> float | None:
    return None if value is None else float(value)


def from_frames(frames: list[Frame]) -> list[Value]:
    """Query results as the input of expressions. Raises ExpressionError if Grafana refuses them."""
    if not frames:
        return [NoData()]
    series: list[Series] = []
    named: list[tuple[Series, Field]] = []
    for frame in frames:
        times = next((column for column in frame.fields if column.kind == "time"), None)
        numbers = [column for column in frame.fields if _is_numeric(column)]
        if times is None or not numbers:
            continue
        if any(column.kind == "string" for column in frame.fields):
            raise ExpressionError("input data must be a wide series but got type long (input refid)")
        for column in numbers:
            pairs = sorted(zip(times.values, column.values, strict=True), key=lambda pair: pair[0])
            values = [_as_float(value) for _, value in pairs]
            one = Series(dict(column.labels or {}), [time for time, _ in pairs], values, column.display)
            series.append(one)
            named.append((one, column))
    if not series:
        return [NoData()]
    _tell_apart(named)
    return list(series)


def _tell_apart(named: list[tuple[Series, Field]]) -> None:
    """Series without any labels get their unique display name as label `__name__`."""
    if any(series.labels for series, _ in named):
        return
    for choose in (lambda column: column.display, lambda column: column.name):
        names = [choose(column) for _, column in named]
        if all(names) and len(set(names)) == len(names):
            for (series, _), name in zip(named, names, strict=True):
                series.labels = {"__name__": name}
            return


def _last(values: list[float | None]) -> float | None:
    return values[-1] if values else math.nan


def _strict(function: Callable[[list[float]], float], empty: float = math.nan) -> Callable:
    def reduce(values: list[float | None]) -> float | None:
        if not values:
            return empty
        if any(value is None or math.isnan(value) for value in values):
            return math.nan
        return function(values)

    return reduce


_REDUCERS: dict[str, Callable[[list[float | None]], float | None]] = {
    "sum": _strict(math.fsum, 0.0),
    "mean": _strict(lambda values: math.fsum(values) / len(values)),
    "min": _strict(min),
    "max": _strict(max),
    "count": lambda values: float(len(values)),
    "last": _last,
}

_COMPARE: dict[str, tuple[int, Callable[..., bool]]] = {
    "gt": (1, operator.gt),
    "lt": (1, operator.lt),
    "eq": (1, operator.eq),
    "ne": (1, operator.ne),
    "gte": (1, operator.ge),
    "lte": (1, operator.le),
    "within_range": (2, lambda value, low, high: low < value < high or high < value < low),
    "outside_range": (2, lambda value, low, high: value < low or value > high),
    "within_range_included": (2, lambda value, low, high: low <= value <= high or high <= value <= low),
    "outside_range_included": (2, lambda value, low, high: value <= low or value >= high),
}


def _input(model: dict[str, Any]) -> str:
    return str(model.get("expression") or "").removeprefix("$").strip("{}")


def _reduce(ref_id: str, model: dict[str, Any], variables: dict[str, list[Value]]) -> list[Value]:
    reducer = str(model.get("reducer", "")).lower()
    if reducer not in _REDUCERS:
        raise ExpressionError(f"reduction {reducer} not implemented" if reducer else "no reducer specified")
    if mode := (model.get("settings") or {}).get("mode"):
        raise ExpressionError(f"this stand-in does not support reducer mode '{mode}'")
    results: list[Value] = []
    for value in variables[_input(model)]:
        if isinstance(value, Series):
            results.append(Number(value.labels, _REDUCERS[reducer](value.values)))
        elif isinstance(value, Number):
            results.append(Number(value.labels, value.value))
        else:
            results.append(NoData())
    return results


def _predicate(evaluator: dict[str, Any]) -> Callable[[float], bool]:
    kind, params = str(evaluator.get("type", "")), evaluator.get("params") or []
    if kind not in _COMPARE:
        raise ExpressionError(f"expected threshold function to be one of [{', '.join(_COMPARE)}], got {kind}")
    needed, compare = _COMPARE[kind]
    if len(params) < needed:
        raise ExpressionError(
            f"incorrect number of arguments for threshold function '{kind}': got {len(params)} but need {needed}"
        )
    return lambda value: compare(value, *[float(param) for param in params[:needed]])


def _each(value: Value, function: Callable[[float | None], float | None]) -> Value:
    if isinstance(value, Series):
        return Series(value.labels, value.times, [function(v) for v in value.values])
    if isinstance(value, Number):
        return Number(value.labels, function(value.value))
    return NoData()


def _threshold(ref_id: str, model: dict[str, Any], variables: dict[str, list[Value]]) -> list[Value]:
    conditions = model.get("conditions") or []
    if len(conditions) != 1:
        raise ExpressionError("threshold expression requires exactly one condition")
    try:
        holds = _predicate(conditions[0].get("evaluator") or {})
    except ExpressionError as error:
        raise ExpressionError(f"invalid condition: {error}") from error
    return [_each(value, lambda v: None if v is None else float(holds(v))) for value in variables[_input(model)]]


# --- math -------------------------------------------------------------------------------------------------------

_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+\.?\d*|\.\d+)|\$\{(?P<quoted>[^}]+)\}|\$(?P<variable>\w+)|(?P<operator>\|\||&&|==|!=|<=|>=|[*<>()]))"
)
_LEVELS = (("||",), ("&&",), ("==", "!=", "<", ">", "<=", ">="), ("*",))
_BINARY = {
    "*": operator.mul,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
    "&&": lambda left, right: left != 0 and right != 0,
    "||": lambda left, right: left != 0 or right != 0,
}


class _Math:
    """Parses and evaluates a math expression; every step returns a list of values."""

    def __init__(self, text: str, variables: dict[str, list[Value]]) -> None:
        self._variables = variables
        self._tokens: list[tuple[str, str]] = []
        position = 0
        while text[position:].strip():
            match = _TOKEN.match(text, position)
            if not match:
                raise ExpressionError(f"this stand-in does not support {text[position:].strip()[:1]!r} in math")
            self._tokens.append((match.lastgroup or "", match[match.lastgroup]))
            position = match.end()
        self._at = 0

    def names(self) -> list[str]:
        return [text for kind, text in self._tokens if kind in ("variable", "quoted")]

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._at] if self._at < len(self._tokens) else ("end", "")

    def _take(self, wanted: str = "") -> tuple[str, str]:
        token = self._peek()
        if wanted and token[1] != wanted:
            raise ExpressionError(f"unexpected {token[1] or 'end of expression'!r}, expected {wanted!r}")
        self._at += 1
        return token

    def result(self) -> list[Value]:
        values = self._level(0)
        if self._peek()[0] != "end":
            raise ExpressionError(f"unexpected {self._peek()[1]!r}")
        return values

    def _level(self, level: int) -> list[Value]:
        if level == len(_LEVELS):
            return self._primary()
        left = self._level(level + 1)
        while self._peek()[0] == "operator" and self._peek()[1] in _LEVELS[level]:
            symbol = self._take()[1]
            left = self._join(left, self._level(level + 1), symbol)
        return left

    def _primary(self) -> list[Value]:
        kind, text = self._take()
        if kind == "number":
            return [Number({}, float(text))]
        if kind in ("variable", "quoted"):
            return self._variables[text]
        if text == "(":
            values = self._level(0)
            self._take(")")
            return values
        raise ExpressionError(f"unexpected {text or 'end of expression'!r}")

    @staticmethod
    def _join(left: list[Value], right: list[Value], symbol: str) -> list[Value]:
        """Pairs values whose labels agree: equal, one side without any, or one set within the other."""
        if not left or not right:
            return []
        if (len(left) == 1 or len(right) == 1) and (isinstance(left[0], NoData) or isinstance(right[0], NoData)):
            return [NoData()]
        results: list[Value] = []
        for a in left:
            for b in right:
                small, large = sorted((a.labels, b.labels), key=len)
                if small == large or (len(small) < len(large) and small.items() <= large.items()):
                    results.append(_pair(a, b, large, symbol))
        if not results and len(left) == len(right) == 1:
            return [_pair(left[0], right[0], {}, symbol)]
        return results


def _apply(symbol: str, left: float | None, right: float | None) -> float | None:
    if left is None or right is None:
        return None
    if symbol == "||" and left != 0:
        return 1.0
    if symbol == "&&" and left == 0:
        return 0.0
    if math.isnan(left) or math.isnan(right):
        return math.nan
    return float(_BINARY[symbol](left, right))


def _pair(a: Value, b: Value, labels: dict[str, str], symbol: str) -> Value:
    if isinstance(a, NoData) or isinstance(b, NoData):
        return NoData()
    if isinstance(a, Series) or isinstance(b, Series):
        raise ExpressionError("this stand-in does math with numbers only: reduce the series first")
    return Number(labels, _apply(symbol, a.value, b.value))


def _math(ref_id: str, model: dict[str, Any], variables: dict[str, list[Value]]) -> list[Value]:
    return _Math(str(model.get("expression") or ""), variables).result()


_COMMANDS = {"reduce": _reduce, "threshold": _threshold, "math": _math}


class _Anything(dict):
    """A placeholder for all variables, to check an expression before any query."""

    def __missing__(self, name: str) -> list[Value]:
        return []


def check(model: dict[str, Any]) -> None:
    """Raise ExpressionError if an expression is invalid for any input."""
    if model.get("type") in ("reduce", "threshold") and not _input(model):
        raise ExpressionError("no variable specified to reference")
    try:
        evaluate("", model, _Anything())
    except ExpressionError as error:
        if model.get("type") == "math":
            raise ExpressionError(f"invalid math command: {error}") from error
        raise


def needs(model: dict[str, Any]) -> list[str]:
    """The refIds that an expression refers to."""
    kind = model.get("type")
    if kind == "math":
        return _Math(str(model.get("expression") or ""), {}).names()
    return [_input(model)]


def evaluate(ref_id: str, model: dict[str, Any], variables: dict[str, list[Value]]) -> list[Value]:
    """Evaluate an expression with the results so far. Raises ExpressionError."""
    kind = model.get("type") or ""
    if kind not in _COMMANDS:
        raise ExpressionError(f"'{kind}' is not a recognized expression type")
    return _COMMANDS[kind](ref_id, model, variables)


def to_frames(ref_id: str, values: list[Value]) -> list[Frame]:
    """The results of an expression as frames."""
    frames = []
    for value in values:
        if isinstance(value, Series):
            columns = [
                Field("Time", "time", value.times, nullable=False),
                Field(ref_id, "number", value.values, value.labels or None),
            ]
            frames.append(Frame("", columns, {"type": "timeseries-multi", "typeVersion": [0, 1]}))
        elif isinstance(value, Number):
            column = Field(ref_id, "number", [value.value], value.labels or None)
            frames.append(Frame("", [column], {"type": "numeric-multi", "typeVersion": [0, 1]}))
        else:
            frames.append(Frame("", []))
    return frames
