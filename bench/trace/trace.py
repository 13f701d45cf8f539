"""A callback that records when each task begins, and tells ssh and sftp in this folder which task they run for."""

from __future__ import annotations

import os
import time
from pathlib import Path

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = r"""
name: trace
type: aggregate
short_description: Record tasks and remote calls in a file
description:
  - The workers of Ansible inherit E(TIG_PI_BENCH_TASK) when they are forked, and pass it to the ssh that they start.
requirements:
  - E(TIG_PI_BENCH_TRACE) with the path of the file, and C(ssh) of this folder as the executable of the connection
"""


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "trace"
    CALLBACK_NEEDS_ENABLED = True

    def v2_playbook_on_task_start(self, task, is_conditional):
        self._began(task)

    def v2_playbook_on_handler_task_start(self, task):
        self._began(task)

    def v2_playbook_on_stats(self, stats):
        self._write("end", "", "", "")

    def _began(self, task):
        role = task._role.get_name() if task._role else "the playbook itself"
        os.environ["TIG_PI_BENCH_TASK"] = "\t".join((role, task.get_name().strip(), task.action))
        self._write("task", os.environ["TIG_PI_BENCH_TASK"])

    def _write(self, kind, *what):
        with Path(os.environ["TIG_PI_BENCH_TRACE"]).open("a", encoding="utf-8") as trace:
            trace.write("\t".join((kind, f"{time.time():.3f}", *what)) + "\n")
