"""Write apt sources and install packages, unless this is done already according to the host's facts."""

from __future__ import annotations

import time

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.tig_pi.stack.plugins.filter.packages import absent_packages, unmet_packages
from ansible_collections.tig_pi.stack.plugins.module_utils.interrupted_apt import CLEAN_UP, INCOMPLETE
from ansible_collections.tig_pi.stack.plugins.module_utils.packing import pack
from ansible_collections.tig_pi.stack.plugins.plugin_utils.this_run import done, with_done

OPTIONS = {
    "name": {"type": "list", "elements": "str", "required": True},
    "sources": {"type": "list", "elements": "dict", "default": []},
    "allow_downgrade": {"type": "bool", "default": False},
    "lock_timeout": {"type": "int", "default": 300},
}
# ansible.builtin.apt would build the index of all packages twice, which takes long on a Pi.
UPDATE = ["apt", "update", "--quiet", "--error-on=any", "--option=APT::Cmd::Show-Update-Stats=false"]
# Neither waits for the lock, although apt retries downloads: what apt and dpkg say then.
LOCKED = ("Could not get lock", "locked by another process")
RETRY_DELAY = 5  # seconds
# Options of ansible.builtin.apt for all roles.
INSTALL = {
    "install_recommends": False,
    "update_cache": False,  # just updated
    # A service starts later, once its configuration is in place.
    "policy_rc_d": 101,
}


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_diff = True

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        del tmp
        _, args = self.validate_argument_spec(OPTIONS)
        facts = task_vars.get("ansible_facts", {})
        if "packages" not in facts:
            raise AnsibleActionFail("apt_package: gather package facts first.")
        result |= {"changed": False, "upgraded": [], "diff": []}
        if facts.get("apt_interrupted"):
            self._clean_up(result, args, facts, task_vars)
        self._write_sources(result, args["sources"], facts, task_vars)
        if not result.get("failed"):
            self._install(result, args, facts, task_vars)
        return result

    def _clean_up(self, result: dict, args: dict, facts: dict, task_vars: dict) -> None:
        """Complete what a power cut has interrupted, as far as dpkg can; apt may do the rest if it installs packages."""
        result["changed"] = True
        if self._task.check_mode:
            return
        done = self._when_free(["sh", "-c", CLEAN_UP], args["lock_timeout"], task_vars)
        if not done.get("failed"):
            return
        said = f"dpkg cannot complete an installation that was interrupted: {reason(done)}"
        if done.get("rc") != INCOMPLETE or not unmet_packages(args["name"], facts):
            raise AnsibleActionFail(f"{said}\nRun `sudo apt --fix-broken install` on the host, which may complete it.")
        result["warnings"] = [f"{said}\nNow apt tries it."]

    def _write_sources(self, result: dict, sources: list[dict], facts: dict, task_vars: dict) -> None:
        written = done(facts, "apt_sources")
        missing = [source for source in sources if source not in written]
        if missing:
            tree = self._execute_module("tig_pi.stack.tree", {"packed": pack(missing)}, task_vars=task_vars)
            self._add(result, tree)
            if not tree.get("failed"):
                result["ansible_facts"] = with_done(facts, "apt_sources", missing)

    def _install(self, result: dict, args: dict, facts: dict, task_vars: dict) -> None:
        unmet = unmet_packages(args["name"], facts)
        if not unmet:
            return
        if not self._task.check_mode:
            self._update_lists(args["lock_timeout"], task_vars)
        options = INSTALL | {name: args[name] for name in ("name", "allow_downgrade", "lock_timeout")}
        if facts.get("apt_interrupted"):
            options["state"] = "fixed"  # packages that lack others that they need
        installed = self._execute_module("ansible.builtin.apt", options, task_vars=task_vars)
        absent = absent_packages(unmet, facts)
        # In check mode the apt source may not exist yet, so that apt does not know the package.
        if installed.get("failed") and self._task.check_mode and absent:
            installed = {"changed": True}
        self._add(result, installed)
        if installed.get("changed"):
            result["upgraded"] = [package for package in unmet if package not in absent]

    def _update_lists(self, lock_timeout: int, task_vars: dict) -> None:
        updated = self._when_free(UPDATE, lock_timeout, task_vars)
        if updated.get("failed"):
            raise AnsibleActionFail(f"apt cannot update the package lists: {reason(updated)}")

    def _when_free(self, argv: list[str], lock_timeout: int, task_vars: dict) -> dict:
        """The result of a command that is run as soon as no other program uses apt and dpkg."""
        deadline = time.monotonic() + lock_timeout
        while True:
            done = self._execute_module("ansible.builtin.command", {"argv": argv}, task_vars=task_vars)
            is_locked = done.get("failed") and any(locked in reason(done) for locked in LOCKED)
            if not is_locked or time.monotonic() > deadline:
                return done
            time.sleep(RETRY_DELAY)

    @staticmethod
    def _add(result: dict, part: dict) -> None:
        """Add the result of one module to the result of the action."""
        diffs = part.pop("diff", [])
        result["diff"] += diffs if isinstance(diffs, list) else [diffs]
        changed = result["changed"] or part.get("changed", False)
        warnings = result.get("warnings", []) + part.pop("warnings", [])
        result |= part | {"changed": changed} | ({"warnings": warnings} if warnings else {})


def reason(failed: dict) -> str:
    """Why a command failed, in its own words."""
    return failed.get("stderr", "").strip() or failed.get("msg", "")
