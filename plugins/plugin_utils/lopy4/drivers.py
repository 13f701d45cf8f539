"""The sensor drivers of a program, as their files declare them."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ansible.errors import AnsibleFilterError
from ansible_collections.tig_pi.stack.plugins.plugin_utils.lopy4.text import byte_size

COMMON = {"driver", "fields", "name"}  # settings that every driver takes
SETTING_KEYS = {
    "kind",
    "about",
    "default",
    "optional",
    "example",
    "direction",
    "bus",
    "smallest",
    "largest",
    "choices",
    "pattern",
    "apart",
    "takes_ms",
    "with",
}


@dataclass(frozen=True)
class Driver:
    """What a driver's file declares (lib/tig/drivers/__init__.py describes it)."""

    quantities: tuple[str, ...]
    settings: Mapping[str, Mapping]
    takes_ms: int = 0  # that a reading may take, beside what its settings say
    address: int | None = None  # on its bus, where it is fixed

    def complete(self, sensor: Mapping) -> dict:
        """A sensor's entry with the driver's defaults."""
        defaults = {name: setting["default"] for name, setting in self.settings.items() if "default" in setting}
        return defaults | {key: value for key, value in sensor.items() if value is not None}

    def needs(self) -> set[str]:
        return {name for name, setting in self.settings.items() if not setting.keys() & {"default", "optional"}}

    def reading_ms(self, sensor: Mapping) -> int:
        """How long its settings make a reading; what is wrong in them counts for nothing."""
        entry = self.complete(sensor)
        return sum(
            setting["takes_ms"] * entry[name]
            for name, setting in self.settings.items()
            if "takes_ms" in setting
            and fits(entry.get(name), setting)
            and entry.get(setting.get("with", name)) is not None
        )


def drivers(program: str, own: str = "") -> dict[str, Driver]:
    """The sensor drivers by name: those of a program, and those in the site's own directory.

    Raises:
        AnsibleFilterError: a file can't be understood.
    """
    found = {}
    folders = [Path(program, "lib", "tig", "drivers"), *([Path(own)] if own else [])]
    for path in (path for folder in folders for path in sorted(folder.glob("*.py"))):
        try:
            driver = _driver(ast.parse(path.read_text(encoding="utf-8")))
        except (SyntaxError, TypeError, ValueError) as error:
            line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
            raise AnsibleFilterError(f"The driver {path}{line} can't be understood: {error}.") from error
        if driver:
            found[path.stem] = driver
    return found


def _driver(module: ast.Module) -> Driver | None:
    """What is declared in a driver's file; None if that is none."""
    found = {}
    for node in module.body:
        name = getattr(node.targets[0], "id", "") if isinstance(node, ast.Assign) else ""
        if name in ("QUANTITIES", "SETTINGS", "TAKES_MS", "ADDRESS"):
            found[name] = ast.literal_eval(node.value)
    settings, takes_ms = found.get("SETTINGS", {}), int(found.get("TAKES_MS", 0))
    if not found.get("QUANTITIES"):
        return None
    for name, setting in settings.items():
        if setting.get("kind") not in ("pin", "integer", "number", "text") or set(setting) - SETTING_KEYS:
            raise ValueError(f"SETTINGS[{name!r}] is not as lib/tig/drivers/__init__.py describes it")
    return Driver(tuple(found["QUANTITIES"]), settings, takes_ms, found.get("ADDRESS"))


def fits(value: object, setting: Mapping) -> bool:
    """Whether a value is of a setting's kind and within its limits."""
    if setting["kind"] == "pin":
        return True  # whether it exists, is free and has what it takes is checked with the wiring
    if setting["kind"] == "text":
        return bool(byte_size(value)) and re.fullmatch(setting.get("pattern", ".*"), value) is not None
    kinds = (int, float) if setting["kind"] == "number" else int
    if isinstance(value, bool) or not isinstance(value, kinds):
        return False
    if "choices" in setting:
        return value in setting["choices"]
    return setting.get("smallest", value) <= value <= setting.get("largest", value)
