"""Reads the program on the controller, hands it to the module in one piece, and shows how far that is."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.tig_pi.stack.plugins.module_utils.packing import pack
from ansible_collections.tig_pi.stack.plugins.plugin_utils.lopy4.program import tree, version
from ansible_collections.tig_pi.stack.plugins.plugin_utils.lopy4.progress import Progress

PAIR = re.compile(r"(?<!\\)(\\\\)*\\u[dD][89abAB]")  # the first escape of a surrogate pair


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_diff = True

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        del tmp
        args = self._task.args.copy()
        for wanted in ("name", "program", "settings"):
            if not args.get(wanted):
                raise AnsibleActionFail(f"lopy4_program: {wanted} is missing.")
        own_drivers = args.pop("drivers", "")
        files = tree(Path(args.pop("program")), Path(own_drivers) if own_drivers else None)
        settings = args.pop("settings")
        text = settings if isinstance(settings, str) else json.dumps(settings, ensure_ascii=False)
        if PAIR.search(text):
            raise AnsibleActionFail(
                "lopy4_program: settings.json has a character beyond U+FFFF, such as an emoji, as two escapes, which MicroPython "
                "takes for two characters: write to_json(ensure_ascii=false) in lopy4_settings_template."
            )
        files["settings.json"] = text.encode()
        payload = {
            "version": version(files),
            "files": {path: base64.b64encode(data).decode() for path, data in files.items()},
        }
        args["packed"] = pack(payload)
        with Progress(self, args["name"], task_vars) as path:
            args["progress"] = path
            result.update(
                self._execute_module(module_name="tig_pi.stack.lopy4_program", module_args=args, task_vars=task_vars)
            )
        return result
