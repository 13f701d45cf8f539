"""Render dashboards and alerting files on the controller, and check them: Grafana does not report most errors."""

from __future__ import annotations

DOCUMENTATION = r"""
name: grafana_content
short_description: Render and check dashboards and alerting files
description:
  - Renders every template, checks the results against each other and against the other provisioned objects, and returns the
    files to write. What Grafana would silently ignore or drop is an error here, with the name of the file.
  - A dashboard is strict JSON (C(.json), C(.json.j2)) or YAML of the same shape (C(.yml.j2)), which is written as JSON.
    Panels without a place are placed side by side in their order (C(gridPos) needs C(w) and C(h) only), and get an id.
options:
  _terms:
    description: Nothing.
  dashboards:
    description: Entries with C(name), C(template) or C(path), and optionally C(folder).
    type: list
    elements: dict
    default: []
  alerting:
    description: Paths of templates of alerting provisioning files.
    type: list
    elements: str
    default: []
  datasources:
    description: The uids of the provisioned data sources.
    type: list
    elements: str
    default: []
  directory:
    description: Directory of Grafana's configuration on the host.
    type: path
    default: /etc/grafana
  receivers:
    description: The names of the provisioned contact points.
    type: list
    elements: str
    default: []
"""

RETURN = r"""
_raw:
  description:
    - One dictionary with C(files) (C(dest), C(content)),
      C(folders) (title and uid), C(dashboards), C(rules) (uids) and C(contact_points) (uids).
  type: list
  elements: dict
"""

import json
import re
from collections import Counter
from functools import partial
from pathlib import Path

import yaml
from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase
from ansible.template import trust_as_template
from ansible_collections.tig_pi.stack.plugins.plugin_utils.grafana.alerting import alerting
from ansible_collections.tig_pi.stack.plugins.plugin_utils.grafana.dashboards import dashboard
from ansible_collections.tig_pi.stack.plugins.plugin_utils.grafana.documents import Fault


def slug(text: str) -> str:
    """A folder's title as its uid and directory."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40] or "general"


def check_duplicates(what: str, found: list[tuple[str, str]]) -> None:
    """Refuse values that occur twice; `found` has each value with its file."""
    for value, count in Counter(value for value, _ in found).items():
        if count > 1:
            files = ", ".join(sorted({file for other, file in found if other == value}))
            raise AnsibleError(f"{files}: {what} {value!r} occurs {count} times; Grafana would update none of them.")


class LookupModule(LookupBase):
    def run(self, terms, variables=None, **kwargs):
        self.set_options(var_options=variables, direct=kwargs)
        self._variables = variables or {}
        self._directory = self.get_option("directory")
        self._datasources = set(self.get_option("datasources"))
        result = {"files": [], "folders": [], "dashboards": [], "rules": [], "contact_points": []}
        self._dashboards(result)
        self._alerting(result)
        return [result]

    def _dashboards(self, result: dict) -> None:
        uids, titles, names = [], [], []
        for entry in self.get_option("dashboards"):
            folder, source = entry.get("folder") or "", entry.get("template") or entry.get("path")
            if not source or not entry.get("name"):
                raise AnsibleError(f"grafana_dashboards: an entry must have a name, and a template or a path: {entry}")
            is_json = source.removesuffix(".j2").endswith(".json")
            model = self._checked(
                source, "template" in entry, partial(dashboard, is_json=is_json, datasources=self._datasources)
            )
            uids.append((model["uid"], source))
            titles.append((f"{folder}/{model['title']}", source))
            names.append((f"{folder}/{entry['name']}", source))
            directory = slug(folder)
            if {"title": folder, "uid": directory} not in result["folders"]:
                result["folders"].append({"title": folder, "uid": directory})
            content = json.dumps(model, indent=2, ensure_ascii=False) + "\n"
            result["files"].append(
                {"dest": f"{self._directory}/dashboards/{directory}/{entry['name']}.json", "content": content}
            )
        check_duplicates("the dashboard uid", uids)
        check_duplicates("the dashboard", titles)
        check_duplicates("the name", names)
        result["dashboards"] = [uid for uid, _ in uids]

    def _alerting(self, result: dict) -> None:
        receivers = set(self.get_option("receivers"))
        uids, titles, names = [], [], []
        for source in self.get_option("alerting"):
            model = self._checked(source, True, partial(alerting, datasources=self._datasources, receivers=receivers))
            for group in model.get("groups") or []:
                for rule in group.get("rules") or []:
                    uids.append((rule["uid"], source))
                    titles.append((f"{group['folder']}/{rule['title']}", source))
            for point in model.get("contactPoints") or []:
                result["contact_points"] += [receiver["uid"] for receiver in point.get("receivers") or []]
            name = Path(source).name.removesuffix(".j2").rsplit(".", 1)[0] + ".yaml"
            names.append((name, source))
            content = yaml.safe_dump(model, allow_unicode=True, sort_keys=False, width=120)
            result["files"].append({"dest": f"{self._directory}/provisioning/alerting/{name}", "content": content})
        check_duplicates("the rule uid", uids)
        check_duplicates("the rule", titles)
        check_duplicates("the name", names)
        result["rules"] = [uid for uid, _ in uids]

    def _checked(self, source: str, is_template: bool, check) -> dict:
        try:
            return check(self._text(source, is_template))
        except Fault as fault:
            raise AnsibleError(f"{source} {fault}") from fault

    def _text(self, source: str, is_template: bool) -> str:
        path = Path(self.find_file_in_search_path(self._variables, "templates" if is_template else "files", source))
        text = path.read_text(encoding="utf-8")
        if not is_template:
            return text
        templar = self._templar.copy_with_new_env(
            searchpath=[str(path.parent), *self._variables.get("ansible_search_path", [])],
            available_variables=self._variables,
        )
        try:
            rendered = templar.template(
                trust_as_template(text),
                escape_backslashes=False,
                overrides={"trim_blocks": True, "lstrip_blocks": True, "keep_trailing_newline": True},
            )
        except AnsibleError as error:
            raise AnsibleError(f"{source}: {error.message}") from error
        return str(rendered)
