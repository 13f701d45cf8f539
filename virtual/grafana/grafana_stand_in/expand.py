"""Expansion of variables in grafana.ini and in the values of provisioning files."""

import os
import re
from pathlib import Path
from typing import Any

_EXPANDER = re.compile(r"\$(|__\w+)\{([^}]+)\}")
_NAME = re.compile(r"[A-Za-z0-9_]+")
_SPECIAL = "*#$@!?-0123456789"


class ExpandError(Exception):
    """A variable could not be expanded; .expander is env or file."""

    def __init__(self, expander: str, message: str) -> None:
        super().__init__(message)
        self.expander = expander


def _environment(name: str) -> str:
    value = os.environ.get(name, "")
    return os.uname().nodename if name == "HOSTNAME" and not value else value


def _file(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="surrogateescape").strip()
    except OSError as error:
        operation = "stat" if isinstance(error, FileNotFoundError) else "open"
        raise ExpandError("file", f"{operation} {path}: {(error.strerror or str(error)).lower()}") from error


def expand(text: str) -> str:
    """Replace ${NAME}, $__env{NAME} and $__file{PATH}."""
    for kinds, function in ((("", "__env"), _environment), (("__file",), _file)):
        for match in list(_EXPANDER.finditer(text)):
            if match[1] in kinds:
                text = text.replace(match[0], function(match[2]), 1)
    return text


def expand_environment(text: str) -> str:
    """Replace $NAME and ${NAME} as a shell does; a variable that is not set becomes an empty string."""
    out, position = [], 0
    while (dollar := text.find("$", position)) >= 0 and dollar + 1 < len(text):
        out.append(text[position:dollar])
        rest = text[dollar + 1 :]
        if rest[0] == "{":
            end = rest.find("}")
            name, width = (rest[1:end], end + 1) if end > 1 else ("", 2 if end == 1 else 1)
        elif rest[0] in _SPECIAL:
            name, width = rest[0], 1
        else:
            match = _NAME.match(rest)
            name, width = (match[0], len(match[0])) if match else ("", 0)
        if name:
            out.append(os.environ.get(name, ""))
        elif not width:
            out.append("$")
        position = dollar + 1 + width
    out.append(text[position:])
    return "".join(out)


def interpolate(text: str) -> str:
    """Expand a string of a provisioning file; `$$` is a `$`."""
    parts = []
    for part in text.split("$$"):
        try:
            parts.append(expand_environment(expand(part)))
        except ExpandError as error:
            raise ExpandError(
                error.expander,
                f"failed to interpolate value '{text}': got error while expanding expander {error.expander}: {error}",
            ) from error
    return "$".join(parts)


def interpolate_all(value: Any) -> Any:
    """Expand a whole structure; a value from a variable that looks like a number or a boolean becomes one."""
    if isinstance(value, dict):
        return {key: interpolate_all(item) for key, item in value.items()}
    if isinstance(value, list):
        return [interpolate_all(item) for item in value]
    if not isinstance(value, str):
        return value
    result = interpolate(value)
    if result == value or "$$" in value:
        return result
    for convert in (int, float):
        try:
            return convert(result)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(result.lower(), result)
