"""Print the steps of a playbook as they begin, and their durations at the end."""

from __future__ import annotations

DOCUMENTATION = r"""
name: steps
type: stdout
short_description: Print the steps of a playbook as they begin, and their durations at the end
description:
  - Prints what the callback P(ansible.builtin.default#callback) prints.
  - The message of a C(debug) task with the tag V(report) is a line of its own, as the title of a step is.
  - Nothing is printed while a task with the tag V(quiet) waits.
  - A step begins with the first play that has its title in the variable C(step).
  - After a failure, the title of the step in which it occurred is printed last.
extends_documentation_fragment:
  - default_callback
  - result_format_callback
requirements:
  - set as the stdout callback in the configuration, or by the variable E(ANSIBLE_STDOUT_CALLBACK)
"""

from ansible import constants as C
from ansible.plugins.callback.default import CallbackModule as Default
from ansible_collections.tig_pi.stack.plugins.plugin_utils.steps import Steps


class CallbackModule(Default):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "tig_pi.stack.steps"

    def __init__(self):
        super().__init__()
        self.steps = Steps()

    def v2_playbook_on_play_start(self, play):
        title = play.vars.get("step", self.steps.title)
        if title != self.steps.title:
            self._display.display(self.steps.begin(title))
        super().v2_playbook_on_play_start(play)

    def v2_runner_on_ok(self, result):
        if "report" in result.task.tags and result.task.action.endswith("debug"):
            self._display.display(f"\n==> {result.host.name}: {result.result['msg']}")
        else:
            super().v2_runner_on_ok(result)

    def v2_runner_retry(self, result):
        if "quiet" not in result.task.tags:
            super().v2_runner_retry(result)

    def v2_playbook_on_stats(self, stats):
        super().v2_playbook_on_stats(stats)
        title = self.steps.title
        self._display.display(self.steps.summary())
        if stats.failures or stats.dark:
            self._display.display(
                f"Stopped at: {title}. Correct what it reports, and run it again.", color=C.COLOR_ERROR
            )
