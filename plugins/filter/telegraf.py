"""Telegraf's files: the configuration of its plugins from templates, and secrets as systemd reads them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
FILE = re.compile(r"[A-Za-z0-9_.-]+\.conf\.j2\Z")
CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def telegraf_problems(templates: list[str], secrets: Mapping) -> list[str]:
    """What Telegraf could not use, one sentence each."""
    problems = []
    if not templates:
        problems.append("telegraf_config_templates is empty: Telegraf does not start without an output.")
    seen = {}
    for path in templates:
        name = os.path.basename(path)
        if not FILE.match(name):
            problems.append(f"telegraf_config_templates: {path}: the name of a template is <name>.conf.j2.")
        if name in seen:
            problems.append(f"telegraf_config_templates: {path} and {seen[name]} would be the same file.")
        seen[name] = path
    for name, value in secrets.items():
        where = f"telegraf_secrets: {name}"
        if not NAME.match(name):
            problems.append(f"{where}: use letters, digits and _ only.")
        if not isinstance(value, str) or not value:
            problems.append(f"{where} is empty, or not a string; quote a number.")
        elif CONTROL.search(value) or "@{" in value:
            problems.append(f"{where}: a secret must not contain line breaks, control characters or @{{.")
    return problems


def telegraf_plugin_files(templates: list[str], directory: str) -> list[dict]:
    """The templates as entries of the tree module."""
    names = {path: os.path.basename(path).removesuffix(".j2") for path in templates}
    return [{"dest": f"{directory}/{name}", "template": path} for path, name in sorted(names.items())]


def telegraf_environment(secrets: Mapping) -> str:
    """An environment file as systemd.exec(5) has it: each value in double quotes, with four characters escaped."""
    lines = ["#\n# Ansible managed\n#\n"]
    for name, value in sorted(secrets.items()):
        escaped = re.sub(r'(["\\$`])', r"\\\1", value)
        lines.append(f'{name}="{escaped}"\n')
    return "".join(lines)


class FilterModule:
    def filters(self) -> dict:
        return {
            "telegraf_environment": telegraf_environment,
            "telegraf_plugin_files": telegraf_plugin_files,
            "telegraf_problems": telegraf_problems,
        }
