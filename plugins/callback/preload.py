"""Load the collection's plugins before the first task."""

from __future__ import annotations

DOCUMENTATION = r"""
name: preload
type: aggregate
short_description: Load the collection's filters and lookups before the first task
description:
  - Ansible runs each task in a process of its own. One that uses a filter of a collection loads and compiles all filters of that collection.
  - With this callback they are loaded once, and the processes of the tasks have them already. It prints nothing.
requirements:
  - enabled in the configuration (callbacks_enabled)
"""

from pathlib import Path

from ansible.plugins.callback import CallbackBase
from ansible.plugins.loader import filter_loader, lookup_loader

COLLECTION = "tig_pi.stack"
LOOKUPS = Path(__file__).parents[1] / "lookup"


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = f"{COLLECTION}.preload"
    CALLBACK_NEEDS_ENABLED = True

    def v2_playbook_on_start(self, playbook):
        filter_loader.get(f"{COLLECTION}.any")  # it loads all files to find one
        for path in LOOKUPS.glob("*.py"):
            lookup_loader.get(f"{COLLECTION}.{path.stem}")
