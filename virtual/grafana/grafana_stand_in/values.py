"""Single values of provisioning files, with variables expanded."""

from typing import Any

from .expand import interpolate


def text(value: Any) -> str:
    if value is None or isinstance(value, dict | list):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return interpolate(str(value))


def flag(value: Any) -> bool:
    return value is True or text(value).lower() in ("1", "t", "true")


def number(value: Any) -> int:
    try:
        return int(text(value))
    except ValueError:
        return 0
