"""Log to standard error in logfmt, the format of Grafana's console log."""

import datetime
import sys
import threading

_ORDER = {"debug": 0, "info": 1, "warn": 2, "error": 3}
_lock = threading.Lock()
_threshold = 1


def set_level(level: str) -> None:
    global _threshold
    _threshold = _ORDER.get(level.lower(), 1)


def _value(value: object) -> str:
    text = str(value)
    if text == "" or any(c in text for c in ' ="\n\t'):
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t") + '"'
    return text


class Logger:
    """Logger of one part of the program; keywords become key=value pairs."""

    def __init__(self, name: str) -> None:
        self.name = name

    def _write(self, level: str, message: str, fields: dict) -> None:
        if _ORDER[level] < _threshold:
            return
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        pairs = {"logger": self.name, "t": now, "level": level, "msg": message, **fields}
        line = " ".join(f"{key}={_value(value)}" for key, value in pairs.items())
        with _lock:
            print(line, file=sys.stderr, flush=True)

    def info(self, message: str, **fields: object) -> None:
        self._write("info", message, fields)

    def warn(self, message: str, **fields: object) -> None:
        self._write("warn", message, fields)

    def error(self, message: str, **fields: object) -> None:
        self._write("error", message, fields)
