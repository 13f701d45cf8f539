"""Pack the Grafana stand-in, for the case that Grafana's own package is out of reach."""

from __future__ import annotations

import sys
from pathlib import Path

from deb import Package
from tools import run

STAND_IN = Path(__file__).resolve().parents[1] / "virtual/grafana"


def inputs() -> list[Path]:
    return sorted(path for path in STAND_IN.rglob("*") if path.is_file() and "__pycache__" not in path.parts)


def make(arch: str, cache: Path, output: Path) -> Package:
    run([sys.executable, STAND_IN / "package.py", output], cache / "feed/logs/grafana.log")
    (package,) = output.glob("*.deb")
    return Package.read(package, "stand-in", "virtual/grafana")
