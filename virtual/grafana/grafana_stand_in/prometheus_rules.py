"""GET /api/prometheus/grafana/api/v1/rules: the rules with the results of their last evaluation."""

import json
from decimal import Decimal
from typing import Any

from . import clock
from .application import Application
from .expressions import UIDS
from .rule_states import INTERNAL_LABELS, Instance, RuleStates
from .settings import seconds

_NEVER = "0001-01-01T00:00:00Z"


def _time(at: float) -> str:
    if not at:
        return _NEVER
    return clock.written(at)


def _exponent(value: float) -> str:
    """A float with the fewest digits and an exponent: 21.5 is 2.15e+01."""
    if value != value or value in (float("inf"), float("-inf")):
        return {"nan": "NaN", "inf": "+Inf", "-inf": "-Inf"}[str(value)]
    sign, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    power = int(exponent) + len(digits) - 1
    text = "".join(map(str, digits))
    mantissa = text[0] + ("." + text[1:] if len(text) > 1 else "")
    return f"{'-' if sign else ''}{mantissa}e{power:+03d}"


def _value(instance: Instance, condition: str) -> str:
    if instance.state not in ("Alerting", "Pending", "Recovering"):
        return ""
    values = {name: value for name, value in instance.values.items() if condition in name}
    if not values:
        return instance.text
    if len(values) == 1:
        return _exponent(next(iter(values.values())))
    return ", ".join(sorted(f"{name}: {_exponent(value)}" for name, value in values.items()))


def _public(labels: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in sorted(labels.items()) if key not in INTERNAL_LABELS}


def _query(rule: dict[str, Any]) -> str:
    """The rule's queries as the JSON text that Grafana shows for data sources other than Prometheus."""
    data = [{**query, "model": json.loads(json.dumps(query["model"], sort_keys=True))} for query in rule["data"]]
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _alert(instance: Instance, condition: str) -> dict[str, Any]:
    return {
        "labels": _public(instance.labels),
        "annotations": dict(sorted(instance.annotations.items())),
        "state": instance.formatted,
        "activeAt": _time(instance.starts),
        "value": _value(instance, condition),
    }


def _rule(rule: dict[str, Any], states: RuleStates) -> dict[str, Any]:
    instances = list(states.instances.values())
    firing = [i for i in instances if i.state == "Alerting"]
    state = "firing" if firing else "inactive"
    for kind in ("Recovering", "Pending"):
        if state == "inactive" and any(i.state == kind for i in instances):
            state = kind.lower()
    totals: dict[str, int] = {}
    for instance in instances:
        totals[instance.state.lower()] = totals.get(instance.state.lower(), 0) + 1
        if instance.error and rule["execErrState"] != "Error":
            totals["error"] = totals.get("error", 0) + 1
    shown: dict[str, Any] = {
        "state": state,
        "name": rule["title"],
        "folderUid": rule["folderUID"],
        "uid": rule["uid"],
        "query": _query(rule),
        "queriedDatasourceUIDs": [q["datasourceUid"] for q in rule["data"] if q["datasourceUid"] not in UIDS],
        "duration": seconds(rule["for"]),
        "keepFiringFor": seconds(rule["keep_firing_for"]),
        "annotations": dict(sorted(rule["annotations"].items())),
        "activeAt": _time(min(i.starts for i in firing)) if firing else None,
        "alerts": [_alert(i, rule["condition"]) for i in sorted(instances, key=_importance)],
        "totals": totals,
        "totalsFiltered": totals,
        "labels": _public(rule["labels"]),
        "health": states.health,
        "lastError": states.error,
        "type": "alerting",
        "lastEvaluation": _time(states.evaluated),
        "evaluationTime": states.duration,
        "isPaused": rule["isPaused"],
        "notificationSettings": rule["notification_settings"],
        "provenance": rule["provenance"],
    }
    optional = ("queriedDatasourceUIDs", "duration", "keepFiringFor", "annotations", "activeAt", "alerts", "totals")
    for key in (*optional, "totalsFiltered", "labels", "lastError", "notificationSettings"):
        if not shown[key]:
            del shown[key]
    return shown


def _importance(instance: Instance) -> tuple[int, str]:
    order = ("Alerting", "Recovering", "Pending", "Error", "NoData", "Normal")
    return order.index(instance.state), str(sorted(instance.labels.items()))


def rules_response(application: Application) -> dict[str, Any]:
    """The whole answer, by folder and group."""
    groups: dict[tuple[str, str], dict[str, Any]] = {}
    totals: dict[str, int] = {}
    for rule in sorted(application.store.all("rule"), key=lambda r: (r["folderUID"], r["ruleGroup"], r["position"])):
        folder = application.library.folder(rule["folderUID"]) or {"title": ""}
        group = groups.setdefault(
            (rule["folderUID"], rule["ruleGroup"]),
            {
                "name": rule["ruleGroup"],
                "file": folder["title"],
                "folderUid": rule["folderUID"],
                "rules": [],
                "totals": {},
                "interval": rule["interval"],
                "lastEvaluation": _NEVER,
                "evaluationTime": 0,
            },
        )
        shown = _rule(rule, application.scheduler.states(rule["uid"]))
        group["rules"].append(shown)
        group["lastEvaluation"], group["evaluationTime"] = shown["lastEvaluation"], shown["evaluationTime"]
        for key in [shown["state"]] + ([] if shown["health"] == "ok" else [shown["health"]]):
            for counts in (totals, group["totals"]):
                counts[key] = counts.get(key, 0) + 1
    return {"status": "success", "data": {"groups": list(groups.values()), "totals": totals}}
