"""Read grafana.ini by the rules of Grafana's reader (comments, quotes, continuation lines)."""

from typing import NamedTuple


class Setting(NamedTuple):
    """One key of the file."""

    section: str
    key: str
    value: str
    line: int


class IniError(Exception):
    """A line that is neither a section, a key nor a comment."""


def _key_end(line: str) -> int:
    positions = [position for position in (line.find("="), line.find(":")) if position >= 0]
    return min(positions, default=-1)


def _plain(value: str) -> str:
    cut = min((position for position in (value.find("#"), value.find(";")) if position >= 0), default=-1)
    if cut >= 0:
        value = value[:cut].strip()
    for quote in "'\"":
        if len(value) >= 2 and value[0] == value[-1] == quote:
            return value[1:-1]
    return value


def parse(text: str) -> list[Setting]:
    """All keys in the order of the file. The section before the first header is called DEFAULT."""
    settings: list[Setting] = []
    section = "DEFAULT"
    lines = text.removeprefix("\ufeff").splitlines()
    number = 0
    while number < len(lines):
        line = lines[number].strip()
        start = number = number + 1
        if not line or line[0] in "#;":
            continue
        if line[0] == "[":
            end = line.rfind("]")
            if end < 0:
                raise IniError(f"unclosed section: {line}")
            section = line[1:end].strip()
            continue
        end = _key_end(line)
        if end < 0:
            raise IniError(f"key-value delimiter not found: {line}")
        key, value = line[:end].strip(), line[end + 1 :].strip()
        for quote in ('"""', "`"):
            if value.startswith(quote):
                value = value[len(quote) :]
                while quote not in value:
                    if number >= len(lines):
                        raise IniError(f"missing closing key quote: {line}")
                    value += "\n" + lines[number]
                    number += 1
                value = value[: value.index(quote)]
                break
        else:
            while value.endswith("\\") and number < len(lines):
                value = value[:-1] + lines[number].strip()
                number += 1
            value = _plain(value)
        settings.append(Setting(section, key, value, start))
    return settings
