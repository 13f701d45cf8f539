"""The part of Go's templates that texts of alert rules use: values, printf, if, with, range."""

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
        if all(isinstance(item, str) for item in value.values()):
            return ", ".join(f"{key}={value[key]}" for key in sorted(value))
        return f"map[{' '.join(f'{key}:{show(value[key])}' for key in sorted(value))}]"
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
    # A value of an expression is a struct in Go, and a struct is true whatever it holds.
    return isinstance(value, Number) or (value is not MISSING and bool(value))


class _Expression:
    """One pipeline of an action."""

    def __init__(self, text: str, dot: Any, variables: dict[str, Any]) -> None:
        self._words = _WORD.findall(text)
        self._dot = dot
        self._variables = variables
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
                self._at += 1
                return _walk(result, self._words[self._at - 1][1:].split("."))
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
            return self._dot
        if word[0] == ".":
            return _walk(self._dot, word[1:].split("."))
        if word[0] == "$":
            name, *path = word.split(".")
            if name not in self._variables:
                raise TemplateError(f"undefined variable {name!r}")
            return _walk(self._variables[name], path)
        raise TemplateError(f'function "{word}" not defined')


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


_Node = tuple[str, str, list, list]  # kind (text, action, if, with, range), its text, what is inside, and the else part


def _pieces(text: str) -> list[tuple[str, str]]:
    """Text and actions in turn, white space trimmed where an action asks for it."""
    pieces: list[tuple[str, str]] = []
    position, trim = 0, False
    for match in _ACTION.finditer(text):
        literal = text[position : match.start()]
        literal = literal.lstrip() if trim else literal
        pieces += [("text", literal.rstrip() if match[1] else literal), ("action", match[2])]
        position, trim = match.end(), bool(match[3])
    rest = text[position:]
    return [*pieces, ("text", rest.lstrip() if trim else rest)]


def _parse(pieces: list[tuple[str, str]], nested: bool) -> tuple[list[_Node], str]:
    """Nodes up to {{ end }} or {{ else }}, and which of them it was."""
    nodes: list[_Node] = []
    while pieces:
        kind, text = pieces.pop(0)
        word, _, rest = text.partition(" ") if kind == "action" else ("", "", "")
        if word in ("if", "with", "range"):
            inside, stop = _parse(pieces, True)
            nodes.append((word, rest, inside, _otherwise(stop, pieces)))
        elif word in ("end", "else"):
            if not nested:
                raise TemplateError(f"unexpected {{{{{word}}}}}")
            return nodes, text
        elif word in ("define", "template", "block"):
            raise TemplateError(f"{{{{ {word} }}}} is not known to this stand-in")
        elif not word.startswith("/*"):
            nodes.append((kind, text, [], []))
    if nested:
        raise TemplateError("unexpected EOF")
    return nodes, ""


def _otherwise(stop: str, pieces: list[tuple[str, str]]) -> list[_Node]:
    if stop == "end":
        return []
    word, _, rest = stop.removeprefix("else").strip().partition(" ")
    inside, again = _parse(pieces, True)
    return [(word, rest, inside, _otherwise(again, pieces))] if word else inside


def _render(nodes: list[_Node], dot: Any, variables: dict[str, Any]) -> str:
    out = []
    for kind, text, inside, otherwise in nodes:
        if kind == "text":
            out.append(text)
            continue
        names, _, expression = text.partition(":=") if ":=" in text else ("", "", text)
        names = [name.strip() for name in names.split(",") if name.strip()]
        value = _Expression(expression, dot, variables).value()
        inner = {**variables, names[-1]: value} if names else variables
        if kind == "action":
            variables = inner
            out.append("" if names else show(value))
        elif kind == "range":
            pairs = sorted(value.items()) if isinstance(value, dict) else list(enumerate(value or []))
            for key, item in pairs:
                own = {names[-1]: item, **({names[0]: key} if len(names) == 2 else {})} if names else {}
                out.append(_render(inside, item, {**variables, **own}))
            out.append("" if pairs else _render(otherwise, dot, variables))
        elif _truth(value):
            out.append(_render(inside, value if kind == "with" else dot, inner))
        else:
            out.append(_render(otherwise, dot, variables))
    return "".join(out)


def expand(text: str, labels: dict[str, str], values: dict[str, Number], value: Any) -> str:
    """The text with its actions replaced. Raises TemplateError."""
    if "{{" not in text:
        return text
    nodes, _ = _parse(_pieces(text), False)
    data = {"Labels": labels, "Values": values, "Value": value}
    return _render(nodes, data, {"$": data, "$labels": labels, "$values": values, "$value": value})
