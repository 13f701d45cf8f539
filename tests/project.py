"""The path of the project, its contract, and how a test imports one of its programs or runs one of its modules."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

REPOSITORY = Path(__file__).resolve().parents[1]
# The values that several programs share.
CONTRACT = yaml.safe_load((REPOSITORY / "contract.yml").read_text(encoding="utf-8"))
PROBE = CONTRACT["probe"]


def load(path: str) -> ModuleType:
    """Import a Python file of the project by its path: a plugin, or a program without `.py`."""
    name = re.sub(r"\W", "_", path.removesuffix(".py"))
    loader = importlib.machinery.SourceFileLoader(name, str(REPOSITORY / path))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(name, loader))
    sys.modules[name] = module  # dataclasses look for it
    loader.exec_module(module)
    return module


def run_module(name: str, **arguments) -> dict:
    """The result of a module of the collection, which is run as Ansible does."""
    result = subprocess.run(
        [REPOSITORY / ".venv/bin/python", "-m", f"ansible_collections.tig_pi.stack.plugins.modules.{name}"],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}),
        env={**os.environ, "PYTHONPATH": str(REPOSITORY / ".venv")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout, result.stderr
    return json.loads(result.stdout)


def argument_errors(role: str, **variables) -> list[str]:
    """What Ansible reports of these variables when the role starts, from its argument_specs."""
    path = REPOSITORY / "roles" / role / "meta/argument_specs.yml"
    options = yaml.safe_load(path.read_text(encoding="utf-8"))["argument_specs"]["main"]["options"]
    return ArgumentSpecValidator({name: options[name] for name in variables}).validate(variables).error_messages
