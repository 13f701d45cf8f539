"""Server-side expressions: reduce, threshold, math and classic conditions over the results of queries."""

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
    """One value with labels; scalar is a number that was written into an expression."""

    labels: dict[str, str]
    value: float | None
    scalar: bool = False
    matches: list[dict[str, Any]] | None = None


@dataclass
class NoData:
    """A query that found nothing."""

    labels: dict[str, str] = field(default_factory=dict)


Value = Series | Number | NoData


def _is_numeric(column: Field) -> bool:
    return column.kind in ("number", "boolean")


def _as_float(value: Any) -> float | None:
    return None if value is None else float(value)


def from_frames(frames: list[Frame]) -> list[Value]:
    """Query results as expressions take them. Raises ExpressionError for what Grafana refuses."""
    if not frames:
        return [NoData()]
    if len(frames) == 1:
        columns = frames[0].fields
        if not columns:
            return [NoData()]
        if all(c.kind in ("number", "string") for c in columns) and sum(c.kind == "number" for c in columns) == 1:
            return _number_table(columns)
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


def _number_table(columns: list[Field]) -> list[Value]:
    number = next(column for column in columns if column.kind == "number")
    texts = [column for column in columns if column.kind == "string"]
    return [
        Number({column.name: column.values[row] or "" for column in texts}, _as_float(value))
        for row, value in enumerate(number.values)
    ]


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


def _median(values: list[float | None]) -> float | None:
    if not values or any(value is None or math.isnan(value) for value in values):
        return math.nan
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


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
    "median": _median,
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
    settings = model.get("settings") or {}
    mode = settings.get("mode") or ""
    if mode not in ("", "dropNN", "replaceNN"):
        raise ExpressionError(f"reducer mode '{mode}' is not supported. Supported only: [dropNN,replaceNN]")
    replacement = settings.get("replaceWithValue")
    if mode == "replaceNN" and not isinstance(replacement, int | float):
        raise ExpressionError("setting replaceWithValue must be specified when mode is 'replaceNN'")
    results: list[Value] = []
    for value in variables[_input(model)]:
        if isinstance(value, Series):
            values = value.values
            if mode:
                good = [v is not None and math.isfinite(v) for v in values]
                if mode == "dropNN":
                    values = [v for v, fine in zip(values, good, strict=True) if fine]
                else:
                    values = [v if fine else float(replacement) for v, fine in zip(values, good, strict=True)]
            reduced = _REDUCERS[reducer](values)
            if mode == "dropNN" and reduced is not None and math.isnan(reduced):
                reduced = None
            elif mode == "replaceNN" and (reduced is None or not math.isfinite(reduced)):
                reduced = float(replacement)
            results.append(Number(value.labels, reduced))
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
        return Number(value.labels, function(value.value), value.scalar)
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


def _classic(ref_id: str, model: dict[str, Any], variables: dict[str, list[Value]]) -> list[Value]:
    firing = no_data = False
    matches: list[dict[str, Any]] = []
    for position, condition in enumerate(model.get("conditions") or []):
        joint = (condition.get("operator") or {}).get("type", "and")
        if firing and joint == "logic-or":
            break
        evaluator = condition.get("evaluator") or {}
        name = (condition.get("query") or {}).get("params", [""])[0]
        reducer = str((condition.get("reducer") or {}).get("type", "avg")).lower()
        values = variables[name]
        fires, empty = False, 0
        for value in values:
            number = _classic_number(value, reducer)
            if evaluator.get("type") == "no_value":
                hit = number is None
            else:
                hit = number is not None and not math.isnan(number) and _predicate(evaluator)(number)
            if hit:
                fires = True
                labels = getattr(value, "labels", {})
                matches.append({"metric": getattr(value, "name", ""), "labels": labels, "value": number})
            elif number is None:
                empty += 1
        nothing = empty == len(values)
        if nothing:
            matches.append({"metric": "NoData", "labels": {}, "value": None})
        if not position:
            firing, no_data = fires, nothing
        elif joint in ("or", "logic-or"):
            firing, no_data = firing or fires, no_data or nothing
        else:
            firing, no_data = firing and fires, no_data and nothing
    return [Number({}, None if no_data else float(firing), matches=matches)]


def _classic_number(value: Value, reducer: str) -> float | None:
    if isinstance(value, NoData):
        return None
    if isinstance(value, Number):
        return value.value
    numbers = [v for v in value.values if v is not None and not math.isnan(v)]
    if reducer == "count_non_null":
        return float(len(numbers)) if numbers else None
    if not numbers:
        return None
    table: dict[str, Callable[[list[float]], float]] = {
        "avg": lambda v: math.fsum(v) / len(v),
        "mean": lambda v: math.fsum(v) / len(v),
        "sum": math.fsum,
        "min": min,
        "max": max,
        "count": lambda v: float(len(value.values)),
        "last": lambda v: v[-1],
        "median": lambda v: _median(v),
        "diff": lambda v: v[-1] - v[0],
        "diff_abs": lambda v: abs(v[-1] - v[0]),
        "percent_diff": lambda v: (v[-1] - v[0]) / abs(v[0]) * 100 if v[0] else math.nan,
        "percent_diff_abs": lambda v: abs((v[-1] - v[0]) / v[0] * 100) if v[0] else math.nan,
    }
    if reducer not in table:
        raise ExpressionError(f"invalid reducer '{reducer}' in condition")
    return table[reducer](numbers)


# --- math -------------------------------------------------------------------------------------------------------

_TOKEN = re.compile(
    r"\s*(?:(?P<number>0[xX][0-9a-fA-F]+|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|\$\{(?P<quoted>[^}]+)\}|\$(?P<variable>\w+)"
    r"|(?P<function>[a-z_]+)(?=\s*\()|(?P<operator>\*\*|\|\||&&|==|!=|<=|>=|[-+*/%<>!(),]))"
)
_LEVELS = (("||",), ("&&",), ("==", "!=", "<", ">", "<=", ">="), ("+", "-"), ("*", "/", "%"), ("**",))


def _divide(left: float, right: float) -> float:
    if right:
        return left / right
    return math.nan if left == 0 or math.isnan(left) else math.copysign(math.inf, left)


def _guard(function: Callable[..., float]) -> Callable[..., float]:
    def guarded(*values: float) -> float:
        try:
            return float(function(*values))
        except (ValueError, ZeroDivisionError):
            return math.nan
        except OverflowError:
            return math.inf

    return guarded


_BINARY = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": _divide,
    "%": _guard(math.fmod),
    "**": _guard(operator.pow),
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
    "&&": lambda left, right: left != 0 and right != 0,
    "||": lambda left, right: left != 0 or right != 0,
}
_FUNCTIONS = {
    "abs": abs,
    "log": _guard(math.log),
    "round": _guard(lambda v: math.floor(abs(v) + 0.5) * (1 if v >= 0 else -1)),
    "ceil": _guard(math.ceil),
    "floor": _guard(math.floor),
    "is_nan": math.isnan,
    "is_inf": math.isinf,
    "is_number": math.isfinite,
}


class _Math:
    """Parser and evaluator of a math expression in one: every step gives a list of values."""

    def __init__(self, text: str, variables: dict[str, list[Value]]) -> None:
        self._variables = variables
        self._tokens: list[tuple[str, str]] = []
        position = 0
        while text[position:].strip():
            match = _TOKEN.match(text, position)
            if not match:
                raise ExpressionError(f"invalid math command type: unexpected {text[position:].strip()[:1]!r}")
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
            return self._unary()
        left = self._level(level + 1)
        while self._peek()[0] == "operator" and self._peek()[1] in _LEVELS[level]:
            symbol = self._take()[1]
            left = self._join(left, self._level(level + 1), symbol)
        return left

    def _unary(self) -> list[Value]:
        symbol = self._peek()[1] if self._peek()[0] == "operator" else ""
        if symbol in ("-", "!"):
            self._take()
            function = operator.neg if symbol == "-" else (lambda v: v == 0)
            return [_each(value, lambda v: None if v is None else float(function(v))) for value in self._unary()]
        return self._primary()

    def _primary(self) -> list[Value]:
        kind, text = self._take()
        if kind == "number":
            return [Number({}, float(int(text, 16)) if text.lower().startswith("0x") else float(text), scalar=True)]
        if kind in ("variable", "quoted"):
            return self._variables[text]
        if kind == "function":
            return self._call(text)
        if text == "(":
            values = self._level(0)
            self._take(")")
            return values
        raise ExpressionError(f"unexpected {text or 'end of expression'!r}")

    def _call(self, name: str) -> list[Value]:
        self._take("(")
        if name in ("inf", "infn", "nan", "null"):
            self._take(")")
            value = {"inf": math.inf, "infn": -math.inf, "nan": math.nan, "null": None}[name]
            return [Number({}, value, scalar=True)]
        argument = self._level(0)
        self._take(")")
        if name == "is_null":
            return [_each(value, lambda v: float(v is None)) for value in argument]
        if name not in _FUNCTIONS:
            raise ExpressionError(f"non existent function {name}")
        return [_each(value, lambda v: None if v is None else float(_FUNCTIONS[name](v))) for value in argument]

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
    if isinstance(a, Series) and isinstance(b, Series):
        other = dict(zip(b.times, b.values, strict=True))
        own = zip(a.times, a.values, strict=True)
        points = [(time, _apply(symbol, value, other[time])) for time, value in own if time in other]
        return Series(labels, [time for time, _ in points], [value for _, value in points])
    if isinstance(a, Series):
        return Series(labels, a.times, [_apply(symbol, value, b.value) for value in a.values])
    if isinstance(b, Series):
        return Series(labels, b.times, [_apply(symbol, a.value, value) for value in b.values])
    return Number(labels, _apply(symbol, a.value, b.value), a.scalar and b.scalar)


def _math(ref_id: str, model: dict[str, Any], variables: dict[str, list[Value]]) -> list[Value]:
    return _Math(str(model.get("expression") or ""), variables).result()


_COMMANDS = {"reduce": _reduce, "threshold": _threshold, "math": _math, "classic_conditions": _classic}


class _Anything(dict):
    """Stands for every variable, without a value: what is wrong with an expression shows on it before any query."""

    def __missing__(self, name: str) -> list[Value]:
        return []


def check(model: dict[str, Any]) -> None:
    """Raises ExpressionError for an expression that is wrong whatever its input."""
    if model.get("type") in ("reduce", "threshold") and not _input(model):
        raise ExpressionError("no variable specified to reference")
    evaluate("", model, _Anything())


def needs(model: dict[str, Any]) -> list[str]:
    """The refIds that an expression refers to."""
    kind = model.get("type")
    if kind == "math":
        return _Math(str(model.get("expression") or ""), {}).names()
    if kind == "classic_conditions":
        return [(c.get("query") or {}).get("params", [""])[0] for c in model.get("conditions") or []]
    return [_input(model)]


def evaluate(ref_id: str, model: dict[str, Any], variables: dict[str, list[Value]]) -> list[Value]:
    """Runs one expression over the results so far. Raises ExpressionError."""
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
