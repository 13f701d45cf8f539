"""One line for each probe, and nothing else unless something fails."""

from __future__ import annotations

DOCUMENTATION = r"""
name: lines
type: stdout
short_description: One line for each task that is tagged V(probe)
description:
  - For playbooks that look and report. A task that is tagged V(probe) is a line, unless it is tagged V(quiet), too; a
    C(debug) task that is tagged V(report) prints its message and nothing around it; whatever fails is named with what it
    said. One that says in a variable what is C(expected) is only named, since a task that is tagged V(explanation)
    tells more about it.
requirements:
  - set as stdout in the configuration, or by the variable E(ANSIBLE_STDOUT_CALLBACK)
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
            self._display.display(f"passed over  {result.task.get_name().strip()}", color=C.COLOR_SKIP)

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
        self._display.display("No host of the inventory takes part; see its hosts.yml.", color=C.COLOR_ERROR)
