"""One line for each probe, and nothing else unless something fails."""

from __future__ import annotations

DOCUMENTATION = r"""
name: lines
type: stdout
short_description: One line for each task that is tagged V(probe)
description:
  - For playbooks that look and report. A task that is tagged V(probe) is a line; a C(debug) task that is tagged
    V(report) prints its message and nothing around it; whatever fails is named with what it said.
requirements:
  - set as stdout in the configuration, or by the variable E(ANSIBLE_STDOUT_CALLBACK)
"""

from ansible import constants as C
from ansible.plugins.callback import CallbackBase


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "lines"

    def v2_runner_on_ok(self, result):
        tags = result.task.tags
        if "report" in tags and result.task.action.endswith("debug"):
            self._display.display(str(result.result["msg"]).rstrip("\n"))
        elif "probe" in tags:
            self._display.display(f"ok      {result.task.get_name().strip()}", color=C.COLOR_OK)

    def v2_runner_on_skipped(self, result):
        if "probe" in result.task.tags:
            self._display.display(f"passed over  {result.task.get_name().strip()}", color=C.COLOR_SKIP)

    def v2_runner_on_failed(self, result, ignore_errors=False):
        if not ignore_errors:
            self._failure(result)

    def v2_runner_on_unreachable(self, result):
        self._failure(result)

    def _failure(self, result):
        said = result.result.get("msg") or result.result.get("stderr") or "it does not say why"
        self._display.display(
            f"FAILED  {result.task.get_name().strip()}\n        on {result.host.get_name()}: {said}",
            color=C.COLOR_ERROR,
        )

    def v2_playbook_on_no_hosts_matched(self):
        self._display.display("No host of the inventory takes part; see its hosts.yml.", color=C.COLOR_ERROR)
