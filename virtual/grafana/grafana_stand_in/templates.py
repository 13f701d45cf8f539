"""The part of Go's templates that tig-pi's alert rules use: values, comparisons, printf, if, with."""

import math
import re
from typing import Any

_ACTION = re.compile(r"\{\{(-?)\s*(.*?)\s*(-?)\}\}", re.DOTALL)
_WORD = re.compile(r'"(?:\\.|[^"\\])*"|[()|]|[^\s()|"]+')
_VERB = re.compile(r"%([-+ 0#]*)(\d*)(?:\.(\d+))?([a-zA-Z%])")
MISSING = object()


class TemplateError(Exception):
    """The text cannot be expanded."""


class Number(float):
    """A value of an expression. It is printed without exponent; `.Value` is its number, `.Labels` are its labels."""

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
        raise TemplateError("this stand-in does not print maps")
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


_FUNCTIONS = {
    "printf": _printf,
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
}


def _truth(value: Any) -> bool:
    # A value of an expression is a struct in Go, and a struct is always true.
    return isinstance(value, Number) or (value is not MISSING and bool(value))


def _value(text: str, dot: Any, variables: dict[str, Any]) -> Any:
    """One action: a value, or a function and its arguments."""
    words = _WORD.findall(text)
    function = _FUNCTIONS.get(words[0]) if words else None
    arguments = [_operand(word, dot, variables) for word in (words[1:] if function else words)]
    if function is None:
        if len(arguments) != 1:
            raise TemplateError(f"this stand-in does not support {{{{ {text} }}}}")
        return arguments[0]
    try:
        return function(*arguments)
    except (TypeError, ValueError, AttributeError) as error:
        raise TemplateError(str(error)) from error


def _operand(word: str, dot: Any, variables: dict[str, Any]) -> Any:
    if word[0] == '"':
        return word[1:-1].replace('\\"', '"').replace("\\n", "\n").replace("\\\\", "\\")
    if re.fullmatch(r"[-+]?\d+", word):
        return int(word)
    if re.fullmatch(r"[-+]?\d*\.\d+", word):
        return float(word)
    if word[0] == ".":
        return _walk(dot, word[1:].split("."))
    if word[0] == "$":
        name, *path = word.split(".")
        if name not in variables:
            raise TemplateError(f"undefined variable {name!r}")
        return _walk(variables[name], path)
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


_Node = tuple[str, str, list, list]  # kind (text, action, if, with), text, body, and else part


def _pieces(text: str) -> list[tuple[str, str]]:
    """Text and actions in turn, without the white space that actions trim."""
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
    """Nodes up to {{ end }} or {{ else }}, and which of the two it was."""
    nodes: list[_Node] = []
    while pieces:
        kind, text = pieces.pop(0)
        word, _, rest = text.partition(" ") if kind == "action" else ("", "", "")
        if word in ("if", "with"):
            inside, stop = _parse(pieces, True)
            nodes.append((word, rest, inside, _otherwise(stop, pieces)))
        elif word in ("end", "else"):
            if not nested:
                raise TemplateError(f"unexpected {{{{{word}}}}}")
            return nodes, text
        elif kind == "action" and (word in ("range", "define", "template", "block") or ":=" in text):
            raise TemplateError(f"this stand-in does not support {{{{ {text} }}}}")
        else:
            nodes.append((kind, text, [], []))
    if nested:
        raise TemplateError("unexpected EOF")
    return nodes, ""


def _otherwise(stop: str, pieces: list[tuple[str, str]]) -> list[_Node]:
    if stop == "end":
        return []
    if stop != "else":
        raise TemplateError(f"this stand-in does not support {{{{ {stop} }}}}")
    return _parse(pieces, True)[0]


def _render(nodes: list[_Node], dot: Any, variables: dict[str, Any]) -> str:
    out = []
    for kind, text, inside, otherwise in nodes:
        if kind == "text":
            out.append(text)
            continue
        value = _value(text, dot, variables)
        if kind == "action":
            out.append(show(value))
        elif _truth(value):
            out.append(_render(inside, value if kind == "with" else dot, variables))
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
