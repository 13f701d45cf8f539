"""POST /api/v1/rule/test/grafana: evaluate a rule once, and keep nothing of it."""

import json
import time
from typing import Any

from . import clock
from .alerting_files import ERROR_STATES, NO_DATA_STATES
from .application import Application
from .errors import ApiError
from .notifications import datasource_labels, go_number
from .queries import BadPipeline
from .rule_states import Instance, RuleStates, evaluate_or_raise
from .settings import seconds

_KEYS = {"rule", "folderUid", "folderTitle"}
_RULE_KEYS = {"grafana_alert", "for", "labels", "annotations"}
_GRAFANA_KEYS = {"title", "condition", "data", "no_data_state", "exec_err_state"}


def _bad_request() -> ApiError:
    return ApiError(400, "bad request data")


def _invalid(reason: str) -> ApiError:
    return ApiError(400, f"invalid alert rule: {reason}")


def _not_built(reason: str) -> ApiError:
    return ApiError(400, f"Failed to build evaluator for queries and expressions: {reason}")


def _folder(body: dict[str, Any], application: Application) -> dict[str, Any]:
    folder = application.library.folder(str(body.get("folderUid") or ""))
    if folder is None:
        raise ApiError(403, "Access denied")
    return folder


def _parts(body: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The rule, and its part that only Grafana's own rules have."""
    if not isinstance(body, dict):
        raise _bad_request()
    rule = body.get("rule", {"grafana_alert": {}})
    own = rule.get("grafana_alert") if isinstance(rule, dict) else None
    if not isinstance(own, dict):
        raise _bad_request()
    data = own.get("data") or []
    if not isinstance(data, list) or not all(isinstance(query, dict) for query in data):
        raise _bad_request()
    if unknown := (body.keys() - _KEYS) | (rule.keys() - _RULE_KEYS) | (own.keys() - _GRAFANA_KEYS):
        raise ApiError(400, f"this stand-in does not support {', '.join(sorted(unknown))} in the test of a rule")
    return rule, own


def _state(own: dict[str, Any], key: str, kind: str, known: tuple[str, ...], default: str) -> str:
    state = own.get(key) or default
    if state not in known:
        raise ApiError(400, f"unknown {kind} state option {state}")
    return state


def _check_data(condition: str, data: list[dict[str, Any]]) -> None:
    if not data:
        raise _invalid("no queries or expressions are found")
    names: list[str] = []
    for position, query in enumerate(data):
        name = query.get("refId")
        if not name:
            raise _invalid(f"refID is not specified for data query/expression at index {position}")
        if name in names:
            raise _invalid(f"refID '{name}' is already used by query/expression at index {names.index(name)}")
        names.append(name)
    if not condition:
        raise _invalid("condition cannot be empty")
    if condition not in names:
        raise _invalid(f"condition {condition} does not exist, must be one of [{','.join(names)}]")


def _query(query: dict[str, Any]) -> dict[str, Any]:
    name, model, relative = query["refId"], query.get("model"), query.get("relativeTimeRange") or {}
    if not query.get("datasourceUid"):
        raise _not_built(f"failed to build query '{name}': can not get data source by uid, uid is empty")
    if not isinstance(model, dict):
        raise _not_built(f"failed to get query model from '{name}': failed to unmarshal query model: no JSON object")
    return {
        "refId": name,
        "datasourceUid": query["datasourceUid"],
        "relativeTimeRange": {"from": relative.get("from") or 0, "to": relative.get("to") or 0},
        "model": model,
    }


def _rule(rule: dict[str, Any], own: dict[str, Any], folder: dict[str, Any]) -> dict[str, Any]:
    """The rule in the form of the store."""
    if not own.get("title"):
        raise ApiError(400, "alert rule title cannot be empty")
    pause = rule.get("for") or "0s"
    try:
        seconds(pause)
    except ValueError as error:
        raise _bad_request() from error
    condition, data = own.get("condition") or "", own.get("data") or []
    states = {
        "noDataState": _state(own, "no_data_state", "NoData", NO_DATA_STATES, "NoData"),
        "execErrState": _state(own, "exec_err_state", "Error", ERROR_STATES, "Alerting"),
    }
    _check_data(condition, data)
    return {
        "uid": "",
        "folderUID": folder["uid"],
        "title": own["title"],
        "condition": condition,
        "data": [_query(query) for query in data],
        **states,
        "for": pause,
        "keep_firing_for": "0s",
        "interval": 0,
        "missing": 2,
        "labels": rule.get("labels") or {},
        "annotations": rule.get("annotations") or {},
        "notification_settings": None,
    }


def _alert(instance: Instance, root_url: str) -> dict[str, Any]:
    annotations = {**instance.annotations, "__orgId__": "1"}
    if instance.reason:
        annotations["grafana_state_reason"] = instance.reason
    if instance.text:
        annotations["__value_string__"] = instance.text
    if instance.values:
        values = {name: go_number(value) for name, value in sorted(instance.values.items())}
        annotations["__values__"] = json.dumps(values, separators=(",", ":"))
    return {
        "annotations": dict(sorted(annotations.items())),
        "endsAt": clock.written(instance.ends, "milliseconds"),
        "startsAt": clock.written(instance.starts, "milliseconds"),
        "generatorURL": root_url,
        "labels": dict(sorted(datasource_labels(instance.labels, instance.state).items())),
    }


def alerts(application: Application, body: Any) -> list[dict[str, Any]]:
    """The alerts of the rule at this moment. Raises ApiError."""
    parts = _parts(body)
    folder = _folder(body, application)
    rule = _rule(*parts, folder)
    now = time.time()
    try:
        outcomes = evaluate_or_raise(rule, application.sources, now)
    except BadPipeline as error:
        raise _not_built(str(error)) from error
    states = RuleStates()
    states.process(rule, folder["title"], outcomes, now)
    return [_alert(instance, application.settings.root_url) for instance in states.instances.values()]
