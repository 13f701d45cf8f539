"""The settings in force: defaults.ini, then grafana.ini, then GF_* variables, then the command line."""

import os
import re
from pathlib import Path

from . import ini, known_settings
from .errors import StartError
from .expand import ExpandError, expand

_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True", "YES", "yes", "Yes", "y", "ON", "on", "On"})
_UNIT_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800, "y": 31536000}
_DURATION = re.compile(r"(\d+)(ms|s|m|h|d|w|y)")


def seconds(text: str) -> float:
    """Parse a duration in the format of Grafana and Prometheus ("1h30m", "15s", "0") into seconds. Raises ValueError."""
    if text == "0":
        return 0.0
    if not text or _DURATION.sub("", text):
        raise ValueError(f'not a valid duration string: "{text}"' if text else "empty duration string")
    return sum(int(number) * _UNIT_SECONDS[unit] for number, unit in _DURATION.findall(text))


class Settings:
    """Section and key to text, with typed readers."""

    def __init__(self, home: Path, config: Path, overrides: list[str] | None = None) -> None:
        self.home = home
        self._values: dict[tuple[str, str], str] = {}
        defaults = home / "conf" / "defaults.ini"
        for setting in self._read(defaults):
            self._values[setting.section, setting.key] = setting.value
        plain, defaulted = self._command_line(overrides or [])
        self._values.update(defaulted)
        complaints = []
        for setting in self._read(config):
            if complaint := known_settings.complaint(setting.section, setting.key):
                complaints.append(f"{config} line {setting.line}: {complaint}")
            self._values[setting.section, setting.key] = setting.value
        if complaints:
            raise StartError(
                "; ".join(complaints) + " (Grafana ignores a setting that it does not know; this stand-in refuses it)"
            )
        for section, key in self._known():
            name = "GF_" + re.sub(r"[.-]", "_", f"{section}_{key}" if section != "DEFAULT" else f"DEFAULT_{key}")
            if value := os.environ.get(name.upper()):
                self._values[section, key] = value
        self._values.update(plain)
        self._expand()

    @staticmethod
    def _read(path: Path) -> list[ini.Setting]:
        try:
            return ini.parse(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise StartError(f"failed to parse {path}: open {path}: {(error.strerror or '').lower()}") from error
        except (ini.IniError, UnicodeDecodeError) as error:
            raise StartError(f"failed to parse {path}: {error}") from error

    @staticmethod
    def _command_line(overrides: list[str]) -> tuple[dict, dict]:
        plain, defaulted = {}, {}
        for argument in overrides:
            name, _, value = argument.removeprefix("cfg:").partition("=")
            target = defaulted if name.startswith("default.") else plain
            section, _, key = name.removeprefix("default.").rpartition(".")
            target[section, key] = value
        return plain, defaulted

    def _known(self) -> set[tuple[str, str]]:
        free = {(s, k) for s, keys in known_settings.SETTINGS.items() for k in keys if k != known_settings.ANY}
        return free | set(self._values)

    def _expand(self) -> None:
        for (section, key), value in self._values.items():
            try:
                self._values[section, key] = expand(value)
            except ExpandError as error:
                raise StartError(
                    f"got error while expanding {section}.{key} with expander '{error.expander}': {error}"
                ) from error

    def text(self, section: str, key: str, default: str = "") -> str:
        return self._values.get((section, key), "") or default

    def flag(self, section: str, key: str, default: bool = False) -> bool:
        value = self._values.get((section, key), "")
        return value in _TRUE if value else default

    def number(self, section: str, key: str, default: int) -> int:
        try:
            return int(self._values.get((section, key), ""))
        except ValueError:
            return default

    def duration(self, section: str, key: str, default: float) -> float:
        try:
            return seconds(self._values.get((section, key), ""))
        except ValueError:
            return default

    def path(self, key: str, default: str) -> Path:
        """A path of section [paths]; a relative one is below the home path."""
        return self.home / self.text("paths", key, default)

    @property
    def data_path(self) -> Path:
        return self.path("data", "data")

    @property
    def provisioning_path(self) -> Path:
        return self.path("provisioning", "conf/provisioning")

    @property
    def root_url(self) -> str:
        """The URL that users open, ending in a slash."""
        port = self.text("server", "http_port", "3000")
        url = self.text("server", "root_url", "%(protocol)s://%(domain)s:%(http_port)s/")
        url = url.replace("%(protocol)s", self.text("server", "protocol", "http"))
        url = url.replace("%(domain)s", self.text("server", "domain", "localhost")).replace("%(http_port)s", port)
        return url if url.endswith("/") else url + "/"
