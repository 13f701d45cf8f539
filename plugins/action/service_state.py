"""Start or restart services, unless they run already according to the host's facts."""

from __future__ import annotations

from ansible.plugins.action import ActionBase
from ansible_collections.tig_pi.stack.plugins.modules.service_state import OPTIONS
from ansible_collections.tig_pi.stack.plugins.plugin_utils.this_run import done, with_done


def is_up(facts: dict, service: dict) -> bool:
    """Whether a service is enabled, runs and listens; False without facts."""
    if service["unit"] in done(facts, "started_units"):
        return True
    found = facts.get("services", {}).get(service["unit"], {})
    listening = {(listener["protocol"], listener["port"]) for listener in facts.get("listeners", [])}
    ports = {(port["protocol"], port["port"]) for port in service["ports"]}
    return found.get("state") == "running" and found.get("status") == "enabled" and ports <= listening


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        del tmp
        _, args = self.validate_argument_spec(OPTIONS)
        facts = task_vars.get("ansible_facts", {})
        if args["state"] == "started" and all(is_up(facts, service) for service in args["services"]):
            return result | {"changed": False}
        result |= self._execute_module("tig_pi.stack.service_state", self._task.args, task_vars=task_vars)
        if args["state"] and not result.get("failed"):
            units = [service["unit"] for service in args["services"]]
            result["ansible_facts"] = with_done(facts, "started_units", units)
        return result
