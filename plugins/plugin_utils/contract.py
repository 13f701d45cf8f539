"""What several programs agree on (contract.yml)."""

from __future__ import annotations

from pathlib import Path

import yaml

CONTRACT = yaml.safe_load(Path(__file__).parents[2].joinpath("contract.yml").read_text(encoding="utf-8"))
