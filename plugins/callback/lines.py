"""Print one line for each check, and everything about a failure."""

from __future__ import annotations

DOCUMENTATION = r"""
name: lines
type: stdout
short_description: Print one line for each task with the tag V(probe)
description:
  - For playbooks that check and report.
  - A task with the tag V(probe) is printed as one line, unless it has the tag V(quiet), too.
  - A C(debug) task with the tag V(report) prints its message only.
  - A task that fails is printed with its message. If it has the variable C(expected), only its name is printed, since a task
    with the tag V(explanation) reports the failure.
requirements:
  - set as the stdout callback in the configuration, or by the variable E(ANSIBLE_STDOUT_CALLBACK)
"""

import json

from ansible import constants as C
from ansible.plugins.callback import CallbackBase


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "tig_pi.stack.lines"

    def v2_runner_on_ok(self, result):
        tags = result.task.tags
        if "report" in tags and result.task.action.endswith("debug"):
            self._display.display(str(result.result["msg"]).rstrip("\n"))
        elif self._is_line(tags):
            self._display.display(f"ok      {result.task.get_name().strip()}", color=C.COLOR_OK)

    def v2_runner_on_skipped(self, result):
        if self._is_line(result.task.tags):
            self._display.display(f"skipped {result.task.get_name().strip()}", color=C.COLOR_SKIP)

    def v2_runner_on_failed(self, result, ignore_errors=False):
        if not ignore_errors:
            self._failure(result)

    def v2_runner_on_unreachable(self, result):
        if not result.task.ignore_unreachable:
            self._failure(result)

    @staticmethod
    def _is_line(tags):
        return "probe" in tags and not {"quiet", "explanation"} & set(tags)

    def _failure(self, result):
        lines = []
        if "explanation" not in result.task.tags:
            lines.append(f"FAILED  {result.task.get_name().strip()}")
        if "expected" not in result.task.vars or result.is_unreachable():
            if lines:
                lines.append(f"        on {result.host.get_name()}:")
            said = result.result.get("msg") or result.result.get("stderr") or json.dumps(result.result)
            lines += [f"        {line}" for line in str(said).splitlines()]
        self._display.display("\n".join(lines), color=C.COLOR_ERROR)

    def v2_playbook_on_no_hosts_matched(self):
        self._display.display("No host of the inventory matches; check its hosts.yml.", color=C.COLOR_ERROR)
