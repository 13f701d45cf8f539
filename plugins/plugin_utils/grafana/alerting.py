"""Check a provisioning file of Grafana's alerting."""

from __future__ import annotations

import re

from ansible_collections.tig_pi.stack.plugins.plugin_utils.grafana.documents import BUILT_IN, UID, Fault, listed, parsed

NO_DATA_STATES = {"Alerting", "KeepLast", "NoData", "OK"}
ERROR_STATES = {"Alerting", "Error", "KeepLast", "OK"}
DURATION = re.compile(r"(\d+)(ms|s|m|h|d|w|y)")
SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800, "y": 31536000}
FACTORY_RECEIVER = "grafana-default-email"
SCHEDULER = 10  # seconds; the interval of a group is a multiple of it


def alerting(text: str, datasources: set[str], receivers: set[str]) -> dict:
    """The provisioning file in a rendered template, with the checks that Grafana lacks."""
    model = parsed(text, is_json=False)
    if not isinstance(model, dict):
        raise Fault("is not an alerting file, which has groups, contactPoints, policies, templates or muteTimes.")
    receivers = receivers | {point.get("name") for point in model.get("contactPoints") or []} | {FACTORY_RECEIVER}
    for policy in model.get("policies") or []:
        check_policy(policy, receivers)
    for group in model.get("groups") or []:
        name = group.get("name")
        if not name or not group.get("folder"):
            raise Fault(f"group {name!r} must have a name and a folder.")
        seconds = duration(group.get("interval"))
        if not seconds or seconds % SCHEDULER:
            raise Fault(f"group {name!r} has the interval {group.get('interval')!r}; use a multiple of {SCHEDULER}s.")
        for rule in group.get("rules") or []:
            check_rule(rule, datasources, receivers)
    return model


def check_rule(rule: dict, datasources: set[str], receivers: set[str]) -> None:
    uid = rule.get("uid")
    if not UID.fullmatch(str(uid or "")):
        raise Fault(f"rule {rule.get('title')!r} has the uid {uid!r}; use at most 40 letters, digits, '-' and '_'.")
    where = f"rule {uid}"
    if not rule.get("title"):
        raise Fault(f"{where} has no title.")
    steps = {step.get("refId"): step for step in rule.get("data") or []}
    if rule.get("condition") not in steps:
        raise Fault(f"{where} has the condition {rule.get('condition')!r}; the queries are {listed(steps)}.")
    for ref, step in steps.items():
        source = step.get("datasourceUid")
        if source not in datasources | BUILT_IN:
            raise Fault(
                f"{where} uses the data source {source!r} (query {ref}); the provisioned ones are {listed(datasources)}."
            )
    for key, states in (("noDataState", NO_DATA_STATES), ("execErrState", ERROR_STATES)):
        if rule.get(key) is not None and rule[key] not in states:
            raise Fault(f"{where} has {key} {rule[key]!r}; use one of {listed(states)}.")
    if rule.get("for") is not None and duration(rule["for"]) is None:
        raise Fault(f"{where} has for: {rule['for']!r}; use a duration such as 5m.")
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
    """Seconds of a duration such as 1m30s; None if it is not a duration."""
    text = "0s" if text in (0, "0") else str(text)
    parts = DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    return sum(int(number) * SECONDS[unit] for number, unit in parts)
