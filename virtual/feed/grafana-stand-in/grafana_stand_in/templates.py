"""The part of Go's templates that texts of alert rules use: {{ $labels.x }}, {{ $values.A.Value }}, printf, if."""

import math
import re
from typing import Any

_ACTION = re.compile(r"\{\{(-?)\s*(.*?)\s*(-?)\}\}", re.DOTALL)
_WORD = re.compile(r'"(?:\\.|[^"\\])*"|`[^`]*`|\(|\)|\||[^\s()|"`]+')
_VERB = re.compile(r"%([-+ 0#]*)(\d*)(?:\.(\d+))?([a-zA-Z%])")
MISSING = object()


class TemplateError(Exception):
    """The text cannot be expanded."""


class Number(float):
    """A value of an expression: prints without exponent, `.Value` is the bare number, `.Labels` its labels."""

    labels: dict[str, str]

    @classmethod
    def of(cls, value: float | None, labels: dict[str, str]) -> "Number":
        number = cls(math.nan if value is None else value)
        number.labels = labels
        return number


def format_number(value: float) -> str:
    """A float as Go prints it with %v in the form 'f'."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    text = repr(float(value))
    if "e" in text:
        text = f"{value:.20f}".rstrip("0") if abs(value) < 1 else f"{value:f}".rstrip("0")
    return text.removesuffix(".0").rstrip(".") if "." in text else text


def _go(value: float) -> str:
    """A bare float64 as Go prints it with %v: exponents from 1e21 on and below 1e-4."""
    if math.isfinite(value) and value and (abs(value) >= 1e21 or abs(value) < 1e-4):
        mantissa, exponent = repr(value).split("e") if "e" in repr(value) else f"{value:e}".split("e")
        mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
        return f"{mantissa}e{int(exponent):+03d}"
    return format_number(value)


def show(value: Any) -> str:
    if value is MISSING:
        return "[no value]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Number):
        return format_number(value)
    if isinstance(value, float):
        return _go(value)
    if isinstance(value, dict):
        inner = [f"{key}={show(value[key])}" for key in sorted(value)]
        return ", ".join(inner) if all(isinstance(v, str) for v in value.values()) else f"map[{' '.join(inner)}]"
    return str(value)


def _printf(pattern: str, *arguments: Any) -> str:
    rest = list(arguments)

    def replace(match: re.Match) -> str:
        if match[4] == "%":
            return "%"
        if not rest:
            return f"%!{match[4]}(MISSING)"
        value = rest.pop(0)
        if match[4] in "feEgG" and isinstance(value, int | float):
            precision = match[3] if match[3] is not None else ("6" if match[4] in "feE" else "")
            return f"%{match[1]}{match[2]}{'.' + precision if precision else ''}{match[4]}" % value
        if match[4] == "d" and isinstance(value, int):
            return f"%{match[1]}{match[2]}d" % value
        if match[4] == "q":
            return '"' + show(value).replace('"', '\\"') + '"'
        return f"%{match[1].replace('0', '')}{match[2]}s" % show(value)

    return _VERB.sub(replace, pattern)


def _humanize(value: Any) -> str:
    number = float(value)
    if number == 0 or not math.isfinite(number):
        return f"{number:.4g}"
    if abs(number) >= 1:
        prefixes, factor = ["", "k", "M", "G", "T", "P", "E", "Z", "Y"], 1000.0
    else:
        prefixes, factor = ["", "m", "u", "n", "p", "f", "a", "z", "y"], 0.001
    index = 0
    while index + 1 < len(prefixes) and (abs(number) >= 1000 if factor > 1 else abs(number) < 1):
        number, index = number / factor, index + 1
    return f"{number:.4g}{prefixes[index]}"


def _humanize_duration(value: Any) -> str:
    number = float(value)
    if not math.isfinite(number):
        return f"{number:.4g}"
    if abs(number) < 1:
        return _humanize(number) + "s"
    sign, whole = ("-" if number < 0 else ""), int(abs(number))
    days, hours, minutes, secs = whole // 86400, whole // 3600 % 24, whole // 60 % 60, whole % 60
    if days:
        return f"{sign}{days}d {hours}h {minutes}m {secs}s"
    if hours:
        return f"{sign}{hours}h {minutes}m {secs}s"
    return f"{sign}{minutes}m {secs}s" if minutes else f"{sign}{abs(number):.4g}s"


_FUNCTIONS = {
    "printf": _printf,
    "print": lambda *a: "".join(show(v) for v in a),
    "humanize": _humanize,
    "humanizeDuration": _humanize_duration,
    "humanizePercentage": lambda v: f"{float(v) * 100:.4g}%",
    "toUpper": lambda v: show(v).upper(),
    "toLower": lambda v: show(v).lower(),
    "title": lambda v: show(v).title(),
    "eq": lambda a, *b: any(a == c for c in b),
    "ne": lambda a, b: a != b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
    "and": lambda *a: next((v for v in a if not v), a[-1]),
    "or": lambda *a: next((v for v in a if v), a[-1]),
    "not": lambda v: not _truth(v),
    "len": len,
    "index": lambda v, *keys: _index(v, keys),
}


def _index(value: Any, keys: tuple) -> Any:
    for key in keys:
        value = value.get(key, "" if all(isinstance(v, str) for v in value.values()) else MISSING)
    return value


def _truth(value: Any) -> bool:
    return value is not MISSING and bool(value)


class _Expression:
    """One pipeline of an action."""

    def __init__(self, text: str, data: dict[str, Any]) -> None:
        self._words = _WORD.findall(text)
        self._data = data
        self._at = 0

    def value(self) -> Any:
        result = self._pipeline()
        if self._at < len(self._words):
            raise TemplateError(f"unexpected {self._words[self._at]!r}")
        return result

    def _pipeline(self) -> Any:
        result = self._command([])
        while self._at < len(self._words) and self._words[self._at] == "|":
            self._at += 1
            result = self._command([result])
        return result

    def _command(self, piped: list[Any]) -> Any:
        arguments, function = [], None
        first = True
        while self._at < len(self._words) and self._words[self._at] not in ("|", ")"):
            word = self._words[self._at]
            self._at += 1
            if first and word in _FUNCTIONS:
                function = _FUNCTIONS[word]
            else:
                arguments.append(self._operand(word))
            first = False
        arguments += piped
        if function is None:
            if len(arguments) != 1:
                raise TemplateError("an action needs one value or a function")
            return arguments[0]
        try:
            return function(*arguments)
        except (TypeError, ValueError, AttributeError) as error:
            raise TemplateError(str(error)) from error

    def _operand(self, word: str) -> Any:
        if word == "(":
            result = self._pipeline()
            if self._at >= len(self._words) or self._words[self._at] != ")":
                raise TemplateError("unclosed left paren")
            self._at += 1
            if self._at < len(self._words) and self._words[self._at].startswith("."):
                path = self._words[self._at][1:]
                self._at += 1
                return _walk(result, path.split("."))
            return result
        if word[0] == '"':
            return word[1:-1].replace('\\"', '"').replace("\\n", "\n").replace("\\\\", "\\")
        if word[0] == "`":
            return word[1:-1]
        if word in ("true", "false"):
            return word == "true"
        if re.fullmatch(r"[-+]?\d+", word):
            return int(word)
        if re.fullmatch(r"[-+]?\d*\.\d+", word):
            return float(word)
        if word == ".":
            return self._data
        head, *path = word.removeprefix("$").split(".") if word[0] == "$" else word[1:].split(".")
        names = {"labels": "Labels", "values": "Values", "value": "Value", "": ""}
        if word[0] == "$":
            if head not in names:
                raise TemplateError(f"undefined variable {word}")
            head = names[head]
        elif word[0] != ".":
            raise TemplateError(f'function "{word}" not defined')
        if not head:
            return _walk(self._data, path)
        if head not in self._data:
            raise TemplateError(f"can't evaluate field {head}")
        return _walk(self._data[head], path)


def _walk(value: Any, path: list[str]) -> Any:
    for name in path:
        if isinstance(value, Number) and name in ("Value", "Labels"):
            value = float(value) if name == "Value" else value.labels
        elif isinstance(value, dict):
            value = value.get(name, MISSING)
        elif value is MISSING:
            return MISSING
        else:
            raise TemplateError(f"can't evaluate field {name}")
    return value


def expand(text: str, labels: dict[str, str], values: dict[str, Number], value: Any) -> str:
    """The text with its actions replaced. Raises TemplateError."""
    if "{{" not in text:
        return text
    data = {"Labels": labels, "Values": values, "Value": value}
    out: list[str] = []
    stack: list[list[bool]] = []  # per open if: whether this branch is shown, whether one was shown already
    position, trim = 0, False
    for match in _ACTION.finditer(text):
        literal = text[position : match.start()]
        if trim:
            literal = literal.lstrip()
        if match[1]:
            literal = literal.rstrip()
        position, trim = match.end(), bool(match[3])
        visible = all(level[0] for level in stack)
        if visible:
            out.append(literal)
        _act(match[2], data, stack, out)
    if stack:
        raise TemplateError("unexpected EOF")
    rest = text[position:]
    out.append(rest.lstrip() if trim else rest)
    return "".join(out)


def _act(action: str, data: dict[str, Any], stack: list[list[bool]], out: list[str]) -> None:
    word, _, rest = action.partition(" ")
    visible = all(level[0] for level in stack)
    if word.startswith("/*"):
        return
    if word == "if":
        holds = visible and _truth(_Expression(rest, data).value())
        stack.append([holds, holds])
    elif word == "else":
        if not stack:
            raise TemplateError("unexpected {{else}}")
        level = stack[-1]
        outer = all(other[0] for other in stack[:-1])
        condition = rest.strip().removeprefix("if").strip()
        level[0] = outer and not level[1] and (not condition or _truth(_Expression(condition, data).value()))
        level[1] = level[1] or level[0]
    elif word == "end":
        if not stack:
            raise TemplateError("unexpected {{end}}")
        stack.pop()
    elif word in ("range", "with", "define", "template", "block"):
        raise TemplateError(f"{{{{ {word} }}}} is not known to this stand-in")
    elif visible:
        out.append(show(_Expression(action, data).value()))
