"""What several programs agree on (contract.yml)."""

from __future__ import annotations

from pathlib import Path

from ansible.module_utils.common.yaml import yaml_load

# With libyaml, which is ten times as fast: each of Ansible's workers reads it.
CONTRACT = yaml_load(Path(__file__).parents[2].joinpath("contract.yml").read_text(encoding="utf-8"))
