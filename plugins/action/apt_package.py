"""Install packages with ansible.builtin.apt, unless the host's facts say that they are installed."""

from __future__ import annotations

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.tig_pi.stack.plugins.filter.host_facts import absent_packages, unmet_packages

# What all roles want of apt.
APT = {
    "install_recommends": False,
    "update_cache": True,
    "cache_valid_time": 0,
    "lock_timeout": 300,
    # A service starts later, once its configuration is in place.
    "policy_rc_d": 101,
}


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _VALID_ARGS = frozenset(("name", "allow_downgrade", "cache_valid_time", "lock_timeout"))
    _supports_check_mode = True
    _supports_diff = True

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        del tmp
        args, facts = self._task.args, task_vars.get("ansible_facts", {})
        if "packages" not in facts:
            raise AnsibleActionFail("apt_package: gather package facts first.")
        if not unmet_packages(args["name"], facts):
            return {**result, "changed": False}
        result.update(self._execute_module("ansible.builtin.apt", module_args=APT | args, task_vars=task_vars))
        # In check mode the apt source may not exist yet, so that apt does not know the package.
        if result.get("failed") and self._task.check_mode and absent_packages(args["name"], facts):
            return {"changed": True}
        return result
