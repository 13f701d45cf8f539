"""Render dashboards and alerting files on the controller, and prove them: Grafana is silent about most faults."""

from __future__ import annotations

DOCUMENTATION = r"""
name: grafana_content
short_description: Dashboards and alerting files, rendered and checked
description:
  - Renders every template, checks the results against each other and against what is provisioned beside them, and
    returns the files to write. What Grafana would ignore or drop in silence is an error here, with the file's name.
  - A dashboard is strict JSON (C(.json), C(.json.j2)) or YAML of the same shape (C(.yml.j2)), which is written as JSON.
    Panels without a place are put side by side in their order (C(gridPos) needs C(w) and C(h) only), and get an id.
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
    description: Where Grafana's configuration stands on the host.
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
from itertools import combinations
from pathlib import Path

import yaml
from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase
from ansible.template import trust_as_template

COLUMNS = 24
UID = re.compile(r"[A-Za-z0-9_-]{1,40}")
BUILT_IN = {"-- Grafana --", "-- Mixed --", "-- Dashboard --", "grafana", "__expr__", "-100"}
NO_DATA_STATES = {"Alerting", "KeepLast", "NoData", "OK"}
ERROR_STATES = {"Alerting", "Error", "KeepLast", "OK"}
DURATION = re.compile(r"(\d+)(ms|s|m|h|d|w|y)")
SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800, "y": 31536000}
FACTORY_RECEIVER = "grafana-default-email"
SCHEDULER = 10  # seconds; the interval of a group is a multiple of it


class Fault(Exception):
    """What is wrong, and what to do, without the file's name."""


def slug(text: str) -> str:
    """A folder's title as its uid and directory."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40] or "general"


def parsed(text: str, is_json: bool):
    """The document in a rendered template; strict JSON, or YAML without doubled keys."""
    if is_json:
        try:
            return json.loads(text, object_pairs_hook=_without_doubles, parse_constant=_no_constant)
        except json.JSONDecodeError as error:
            raise Fault(f"is no JSON: {error.msg} in line {error.lineno}, column {error.colno}.") from error
    try:
        return yaml.load(text, Loader=_Loader)  # a SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1} of the rendered file: {text.splitlines()[mark.line].strip()}" if mark else ""
        raise Fault(f"is no YAML: {getattr(error, 'problem', error)}{where}.") from error


class _Loader(yaml.SafeLoader):
    """JSON's types only, and no key twice."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict:
    return _without_doubles(
        [(str(loader.construct_object(key)), loader.construct_object(value, deep=True)) for key, value in node.value]
    )


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)
_Loader.add_constructor("tag:yaml.org,2002:timestamp", _Loader.construct_yaml_str)


def _without_doubles(pairs: list[tuple]) -> dict:
    for key, count in Counter(key for key, _ in pairs).items():
        if count > 1:
            raise Fault(f"has the key {key!r} twice in one object.")
    return dict(pairs)


def _no_constant(name: str):
    raise Fault(f"is no JSON: {name} is no value of JSON.")


def place(panels: list[dict]) -> None:
    """Give a place to the panels that have only a size: side by side, in lines, below what is already placed."""
    x = y = bottom = 0
    for panel in panels:
        grid = panel.get("gridPos")
        if not isinstance(grid, dict) or not {"w", "h"} <= set(grid):
            raise Fault(f"panel {name_of(panel)} has no gridPos with w and h.")
        is_row = panel.get("type") == "row"
        if not {"x", "y"} <= set(grid):
            if is_row or x + grid["w"] > COLUMNS:
                x, y = 0, bottom
            grid |= {"x": x, "y": y}
            x += grid["w"]
            if is_row:
                place_below(panel, y + 1)
        else:
            x = COLUMNS  # what has no place begins below
        bottom = max(bottom, grid["y"] + grid["h"])


def place_below(row: dict, y: int) -> None:
    """The panels of a collapsed row."""
    place(row.get("panels") or [])
    for panel in row.get("panels") or []:
        panel["gridPos"]["y"] += y


def number_panels(panels: list[dict]) -> None:
    everything = all_panels(panels)
    taken = {panel["id"] for panel in everything if panel.get("id")}
    free = (number for number in range(1, len(everything) + len(taken) + 1) if number not in taken)
    for panel in everything:
        if not panel.get("id"):
            panel["id"] = next(free)


def all_panels(panels: list[dict]) -> list[dict]:
    return [one for panel in panels for one in (panel, *(panel.get("panels") or []))]


def name_of(panel: dict) -> str:
    return repr(panel.get("title") or panel.get("type") or "without a title")


def dashboard(text: str, is_json: bool, datasources: set[str]) -> dict:
    """The dashboard in a rendered template: complete, placed and proven."""
    model = parsed(text, is_json)
    if not isinstance(model, dict):
        raise Fault("is no dashboard: an object with uid, title and panels is wanted.")
    if "dashboard" in model and "panels" not in model:
        raise Fault("is what Grafana's API answers; keep only what stands under 'dashboard'.")
    if "__inputs" in model:
        raise Fault("was exported for sharing; export it again without 'Export for sharing externally'.")
    if not isinstance(model.get("title"), str) or not model["title"].strip():
        raise Fault("has no title.")
    if not UID.fullmatch(str(model.get("uid") or "")):
        raise Fault(f"has the uid {model.get('uid')!r}; it needs one of at most 40 letters, digits, '-' and '_'.")
    model.pop("id", None)  # Grafana's own number
    model.setdefault("schemaVersion", 42)
    panels = model.setdefault("panels", [])
    place(panels)
    number_panels(panels)
    for number, count in Counter(panel["id"] for panel in all_panels(panels)).items():
        if count > 1:
            raise Fault(f"has {count} panels with the id {number}.")
    check_grid(panels)
    check_datasources(model, datasources)
    return model


def check_grid(panels: list[dict]) -> None:
    placed = []
    for panel in all_panels([panel for panel in panels if not panel.get("collapsed")]):
        grid = panel["gridPos"]
        if not 0 < grid["w"] <= COLUMNS - grid["x"] or grid["h"] <= 0 or grid["x"] < 0 or grid["y"] < 0:
            raise Fault(f"panel {name_of(panel)} does not fit into the {COLUMNS} columns: gridPos is {grid}.")
        placed.append((panel, grid))
    for (one, a), (other, b) in combinations(placed, 2):
        if (
            a["x"] < b["x"] + b["w"]
            and b["x"] < a["x"] + a["w"]
            and a["y"] < b["y"] + b["h"]
            and b["y"] < a["y"] + a["h"]
        ):
            raise Fault(f"panels {name_of(one)} and {name_of(other)} lie one upon the other.")


def check_datasources(node, datasources: set[str]) -> None:
    if isinstance(node, dict):
        source = node.get("datasource")
        uid = source.get("uid") if isinstance(source, dict) else source
        if isinstance(uid, str) and uid not in datasources | BUILT_IN and not uid.startswith("$"):
            raise Fault(f"asks the data source {uid!r}; provisioned are {listed(datasources)}.")
        for value in node.values():
            check_datasources(value, datasources)
    elif isinstance(node, list):
        for value in node:
            check_datasources(value, datasources)


def alerting(text: str, datasources: set[str], receivers: set[str]) -> dict:
    """The provisioning file in a rendered template, proven as far as Grafana would not."""
    model = parsed(text, is_json=False)
    if not isinstance(model, dict):
        raise Fault("is no alerting file: groups, contactPoints, policies, templates or muteTimes are wanted.")
    receivers = receivers | {point.get("name") for point in model.get("contactPoints") or []} | {FACTORY_RECEIVER}
    for policy in model.get("policies") or []:
        check_policy(policy, receivers)
    for group in model.get("groups") or []:
        name = group.get("name")
        if not name or not group.get("folder"):
            raise Fault(f"group {name!r} needs a name and a folder.")
        seconds = duration(group.get("interval"))
        if not seconds or seconds % SCHEDULER:
            raise Fault(
                f"group {name!r} has the interval {group.get('interval')!r}; a multiple of {SCHEDULER}s is wanted."
            )
        for rule in group.get("rules") or []:
            check_rule(rule, datasources, receivers)
    return model


def check_rule(rule: dict, datasources: set[str], receivers: set[str]) -> None:
    uid = rule.get("uid")
    if not UID.fullmatch(str(uid or "")):
        raise Fault(
            f"rule {rule.get('title')!r} has the uid {uid!r}; it needs one of at most 40 letters, digits, '-' and '_'."
        )
    where = f"rule {uid}"
    if not rule.get("title"):
        raise Fault(f"{where} has no title.")
    steps = {step.get("refId"): step for step in rule.get("data") or []}
    if rule.get("condition") not in steps:
        raise Fault(f"{where} has the condition {rule.get('condition')!r}; there are {listed(steps)}.")
    for ref, step in steps.items():
        source = step.get("datasourceUid")
        if source not in datasources | BUILT_IN:
            raise Fault(
                f"{where} asks the data source {source!r} (query {ref}); provisioned are {listed(datasources)}."
            )
    for key, states in (("noDataState", NO_DATA_STATES), ("execErrState", ERROR_STATES)):
        if rule.get(key) is not None and rule[key] not in states:
            raise Fault(f"{where} has {key} {rule[key]!r}; one of {listed(states)} is wanted.")
    if rule.get("for") is not None and duration(rule["for"]) is None:
        raise Fault(f"{where} has for: {rule['for']!r}; a duration such as 5m is wanted.")
    receiver = (rule.get("notification_settings") or {}).get("receiver")
    if receiver is not None and receiver not in receivers:
        raise Fault(f"{where} notifies {receiver!r}; the contact points are {listed(receivers)}.")


def check_policy(policy: dict, receivers: set[str]) -> None:
    receiver = policy.get("receiver")
    if receiver is not None and receiver not in receivers:
        raise Fault(f"has a policy for {receiver!r}; the contact points are {listed(receivers)}.")
    for route in policy.get("routes") or []:
        check_policy(route, receivers)


def duration(text) -> float | None:
    """Seconds of a duration such as 1m30s; None if it is none."""
    text = "0s" if text in (0, "0") else str(text)
    parts = DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    return sum(int(number) * SECONDS[unit] for number, unit in parts)


def listed(words) -> str:
    return ", ".join(sorted(str(word) for word in words)) or "none"


def check_doubles(what: str, found: list[tuple[str, str]]) -> None:
    """found: what shall be there once only, and the file in which it stands."""
    for value, count in Counter(value for value, _ in found).items():
        if count > 1:
            files = ", ".join(sorted({file for other, file in found if other == value}))
            raise AnsibleError(f"{files}: {what} {value!r} stands there {count} times; Grafana would update neither.")


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
                raise AnsibleError(f"grafana_dashboards: an entry needs a name, and a template or a path: {entry}")
            is_json = source.removesuffix(".j2").endswith(".json")
            model = self._proven(
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
        check_doubles("the dashboard uid", uids)
        check_doubles("the dashboard", titles)
        check_doubles("the name", names)
        result["dashboards"] = [uid for uid, _ in uids]

    def _alerting(self, result: dict) -> None:
        receivers = set(self.get_option("receivers"))
        uids, titles, names = [], [], []
        for source in self.get_option("alerting"):
            model = self._proven(source, True, partial(alerting, datasources=self._datasources, receivers=receivers))
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
        check_doubles("the rule uid", uids)
        check_doubles("the rule", titles)
        check_doubles("the name", names)
        result["rules"] = [uid for uid, _ in uids]

    def _proven(self, source: str, is_template: bool, proof) -> dict:
        try:
            return proof(self._text(source, is_template))
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
