"""Render the declared files on the controller, and write all of them with the module in one remote call."""

from __future__ import annotations

from pathlib import Path

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase
from ansible.template import trust_as_template
from ansible_collections.tig_pi.stack.plugins.module_utils.packing import pack

SOURCES = ("content", "template", "src", "directory", "absent")
# The options of ansible.builtin.template, and the indentation of blocks is removed.
OVERRIDES = {"trim_blocks": True, "lstrip_blocks": True}
KEYS = {*SOURCES, "dest", "copy_to", "owner", "group", "mode", "validate", "secret", "vars"}


def with_copy(spec: dict) -> list[dict]:
    """The file, and its copy if it has one."""
    copy = spec.pop("copy_to", None)
    if copy is None:
        return [spec]
    return [spec, {key: value for key, value in spec.items() if key in ("content", "mode", "secret")} | {"dest": copy}]


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_diff = True

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        del tmp
        args = self._task.args.copy()
        files = args.get("files")
        if not isinstance(files, list):
            raise AnsibleActionFail("tree: 'files' must be a list of files.")
        del args["files"]
        resolved = [self._resolved(dict(spec), task_vars) for spec in files]
        args["packed"] = pack([entry for spec in resolved for entry in with_copy(spec)])
        result.update(self._execute_module(module_name="tig_pi.stack.tree", module_args=args, task_vars=task_vars))
        return result

    def _resolved(self, spec: dict, task_vars: dict) -> dict:
        """The entry, with content instead of a template or a source file."""
        dest = spec.get("dest")
        if not dest:
            raise AnsibleActionFail(f"tree: an entry has no 'dest': {sorted(spec)}")
        unknown = sorted(set(spec) - KEYS)
        if unknown:
            raise AnsibleActionFail(
                f"tree: {dest}: unknown key {unknown[0]!r}; the keys are {', '.join(sorted(KEYS))}."
            )
        if len([key for key in SOURCES if spec.get(key) is not None]) != 1:
            raise AnsibleActionFail(f"tree: {dest}: give exactly one of {', '.join(SOURCES)}.")
        variables = spec.pop("vars", {})
        if "template" in spec:
            spec["content"] = self._rendered(spec.pop("template"), variables, task_vars)
        elif "src" in spec:
            spec["content"] = Path(self._find_needle("files", spec.pop("src"))).read_text(encoding="utf-8")
        return spec

    def _rendered(self, template: str, variables: dict, task_vars: dict) -> str:
        try:
            path = Path(self._find_needle("templates", template))
            text = path.read_text(encoding="utf-8")
        except (AnsibleError, OSError) as error:
            raise AnsibleActionFail(f"tree: {error}") from error
        searchpath = [str(path.parent), *task_vars.get("ansible_search_path", [])]
        templar = self._templar.copy_with_new_env(
            searchpath=searchpath,
            available_variables={"ansible_managed": "Ansible managed", **task_vars, **variables},
        )
        try:
            text = templar.template(trust_as_template(text), escape_backslashes=False, overrides=OVERRIDES)
        except AnsibleError as error:
            raise AnsibleActionFail(f"tree: {path.name}: {error.message}") from error
        if not isinstance(text, str):
            raise AnsibleActionFail(
                f"tree: {path.name} is rendered to a {type(text).__name__}, not to text; use to_nice_json."
            )
        return text
