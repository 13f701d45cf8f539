"""What dashboards and alerting files share: parsing, identifiers, and built-in data sources."""

from __future__ import annotations

import io
import json
import re
from collections import Counter

import yaml
from ansible.module_utils.common.yaml import SafeLoader

UID = re.compile(r"[A-Za-z0-9_-]{1,40}")
BUILT_IN = {"-- Grafana --", "-- Mixed --", "-- Dashboard --", "grafana", "__expr__", "-100"}


class Fault(Exception):
    """The problem and its solution, without the name of the file."""


def parsed(text: str, is_json: bool):
    """The document in a rendered template; strict JSON, or YAML without duplicate keys."""
    if is_json:
        try:
            return json.loads(text, object_pairs_hook=_without_duplicates, parse_constant=_no_constant)
        except json.JSONDecodeError as error:
            raise Fault(f"is not JSON: {error.msg} in line {error.lineno}, column {error.colno}.") from error
    try:
        # Not the text itself: libyaml refuses a string with the tags of Ansible.
        return yaml.load(io.StringIO(text), Loader=_Loader)  # a SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1} of the rendered file: {text.splitlines()[mark.line].strip()}" if mark else ""
        raise Fault(f"is not YAML: {getattr(error, 'problem', error)}{where}.") from error


class _Loader(SafeLoader):
    """Only the types of JSON, and no duplicate keys."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict:
    return _without_duplicates(
        [(str(loader.construct_object(key)), loader.construct_object(value, deep=True)) for key, value in node.value]
    )


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)
_Loader.add_constructor("tag:yaml.org,2002:timestamp", _Loader.construct_yaml_str)


def _without_duplicates(pairs: list[tuple]) -> dict:
    for key, count in Counter(key for key, _ in pairs).items():
        if count > 1:
            raise Fault(f"has the key {key!r} twice in one object.")
    return dict(pairs)


def _no_constant(name: str):
    raise Fault(f"is not JSON: {name} is not allowed.")


def listed(words) -> str:
    return ", ".join(sorted(str(word) for word in words)) or "none"
