"""The states of a rule's alert instances: Normal, Pending, Alerting, NoData, Error."""

import math
from dataclasses import dataclass, field
from typing import Any

from . import expressions, templates
from .datasources import DataSources
from .errors import ApiError
from .influxql import TimeRange
from .log import Logger
from .queries import BadExpression, BadPipeline, Query, Result, SourceNotFound, run
from .settings import seconds

_log = Logger("ngalert.scheduler")
INTERNAL_LABELS = frozenset({"__alert_rule_uid__", "__alert_rule_namespace_uid__"})
_RESEND = 30.0  # seconds


@dataclass
class Evaluation:
    """One outcome of an evaluation: a state for one set of labels."""

    state: str
    labels: dict[str, str] = field(default_factory=dict)
    values: dict[str, templates.Number] = field(default_factory=dict)
    text: str = ""
    value: Any = ""
    error: str = ""
    culprit: dict[str, str] = field(default_factory=dict)


@dataclass
class Instance:
    """One alert of a rule; times are seconds since 1970."""

    labels: dict[str, str]
    annotations: dict[str, str]
    state: str = "Normal"
    reason: str = ""
    starts: float = 0.0
    ends: float = 0.0
    evaluated: float = 0.0
    values: dict[str, float] = field(default_factory=dict)
    text: str = ""
    error: str = ""
    resolved: float | None = None
    previous: str = "Normal"

    def set(self, state: str, reason: str, starts: float, ends: float) -> None:
        self.state, self.reason, self.starts, self.ends = state, reason, starts, ends
        self.error = ""

    @property
    def formatted(self) -> str:
        return f"{self.state} ({self.reason})" if self.reason else self.state


def _labels_text(labels: dict[str, str]) -> str:
    return ", ".join(f"{key}={labels[key]}" for key in sorted(labels))


def _plain(value: float | None) -> str:
    return "null" if value is None else templates.show(float(value))


def _agree(one: dict[str, str], other: dict[str, str]) -> bool:
    return one.items() <= other.items() or other.items() <= one.items()


def _captures(results: dict[str, Result], rule: dict[str, Any], labels: dict[str, str]) -> dict[str, tuple]:
    """The values for these labels by refId, in the form that templates use."""
    captured: dict[str, tuple] = {}
    for query in rule["data"]:
        numbers = [v for v in results[query["refId"]].values if isinstance(v, expressions.Number)]
        exact = [v for v in numbers if v.labels == labels]
        for number in exact or [v for v in numbers if _agree(v.labels, labels)]:
            captured[query["refId"]] = (number, query["datasourceUid"] in expressions.UIDS)
    return captured


def evaluate(rule: dict[str, Any], sources: DataSources, now: float) -> list[Evaluation]:
    """Run the rule's queries and expressions."""
    try:
        return evaluate_or_raise(rule, sources, now)
    except BadPipeline as error:
        return [Evaluation("Error", error=str(error))]


def evaluate_or_raise(rule: dict[str, Any], sources: DataSources, now: float) -> list[Evaluation]:
    """Run the rule's queries and expressions. Raises BadPipeline if Grafana would not run any."""
    queries = []
    for query in rule["data"]:
        relative = query["relativeTimeRange"]
        range_ = TimeRange(int((now - relative["from"]) * 1000), int((now - relative["to"]) * 1000))
        interval = query["model"].get("intervalMs") or 1000
        queries.append(Query(query["refId"], query["datasourceUid"], query["model"], range_, int(interval)))
    names = [query.ref_id for query in queries]
    if rule["condition"] not in names:
        raise BadPipeline(
            "[alerting.alert-rule.conditionNotExist] "
            f"Condition {rule['condition']} does not exist, must be one of [{' '.join(names)}]"
        )
    try:
        results = run(queries, sources, for_rule=True)
    except SourceNotFound as error:
        culprit = next(q.ref_id for q in queries if not q.is_expression and sources.find(q.source_uid) is None)
        raise BadPipeline(f"failed to build query '{culprit}': {error}") from error
    except BadExpression as error:
        raise BadPipeline(f"[sse.parseError] {error}") from error
    except ApiError as error:
        # The text for a rule is that of the log, in lower case.
        return [Evaluation("Error", error=f"[{error.body['messageId']}] {str(error).lower()}")]
    return _judge(rule, results)


def _failure(rule: dict[str, Any], results: dict[str, Result]) -> Evaluation:
    """The error that caused the condition's error."""
    error = results[rule["condition"]].error
    inherited = "[sse.dependencyError]" in error
    for query in rule["data"]:
        result = results[query["refId"]]
        if result.error and query["datasourceUid"] not in expressions.UIDS and (inherited or result.error == error):
            culprit = {"datasource_uid": query["datasourceUid"], "ref_id": query["refId"]}
            return Evaluation("Error", error=result.error, culprit=culprit)
    own = (r.error for r in results.values() if r.error and "[sse.dependencyError]" not in r.error)
    return Evaluation("Error", error=next(own, error))


def _judge(rule: dict[str, Any], results: dict[str, Result]) -> list[Evaluation]:
    condition = results[rule["condition"]]
    if condition.error:
        return [_failure(rule, results)]
    empty: dict[str, list[str]] = {}
    for query in rule["data"]:
        result = results[query["refId"]]
        if query["datasourceUid"] not in expressions.UIDS and not result.frames:
            empty.setdefault(query["datasourceUid"], []).append(query["refId"])
    if empty:
        return [
            Evaluation("NoData", {"datasource_uid": uid, "ref_id": ",".join(sorted(names))})
            for uid, names in empty.items()
        ]
    if not condition.values:
        return [Evaluation("NoData")]
    outcomes = [_outcome(rule, value, results) for value in condition.values]
    seen = set()
    for outcome in outcomes:
        key = tuple(sorted(outcome.labels.items()))
        if key in seen:
            text = _labels_text(outcome.labels)
            return [
                Evaluation(
                    "Error",
                    outcome.labels,
                    error="invalid format of evaluation results for the alert definition : frame cannot uniquely be"
                    f" identified by its labels: has duplicate results with labels {{{text}}}",
                )
            ]
        seen.add(key)
    return outcomes


def _outcome(rule: dict[str, Any], value: expressions.Value, results: dict[str, Result]) -> Evaluation:
    condition = rule["condition"]
    if isinstance(value, expressions.NoData):
        return Evaluation("NoData")
    if isinstance(value, expressions.Series):
        return Evaluation(
            "Error",
            error=f"invalid format of evaluation results for the alert definition {condition}:"
            " looks like time series data, only reduced data can be alerted on.",
        )
    state = "NoData" if value.value is None else ("Normal" if value.value == 0 else "Alerting")
    captured = _captures(results, rule, value.labels)
    values = {name: templates.Number.of(number.value, number.labels) for name, (number, _) in captured.items()}
    parts = [
        f"[ var='{name}' labels={{{_labels_text(captured[name][0].labels)}}} value={_plain(captured[name][0].value)} ]"
        for name in sorted(captured)
    ]
    text = ", ".join(parts)
    from_source = [number.value for number, is_expression in captured.values() if not is_expression]
    bare = (math.nan if from_source[0] is None else from_source[0]) if len(from_source) == 1 else text
    return Evaluation(state, dict(value.labels), values, text, bare)


class RuleStates:
    """The instances of a rule, kept from one evaluation to the next."""

    def __init__(self) -> None:
        self.instances: dict[tuple, Instance] = {}
        self.evaluated = 0.0
        self.duration = 0.0

    @property
    def health(self) -> str:
        health = "ok"
        for instance in self.instances.values():
            if instance.state in ("Error", "NoData"):
                health = instance.state.lower()
            if instance.error:
                health = "error"
        return health

    @property
    def error(self) -> str:
        return next((i.error for i in self.instances.values() if i.error), "")

    def process(self, rule: dict[str, Any], folder: str, outcomes: list[Evaluation], now: float) -> list[Instance]:
        """Update every instance; return those that changed or that must be sent to the contact points."""
        touched = self._spread(rule, outcomes, now)
        if touched is None:
            touched = []
            for outcome in outcomes:
                instance = self._instance(rule, folder, outcome)
                _transition(instance, rule, outcome, now)
                touched.append(instance)
        gone = []
        for key, instance in list(self.instances.items()):
            if instance.evaluated == now:
                continue
            misses = 1 if instance.state in ("Error", "NoData") else rule["missing"]
            if now - instance.evaluated >= misses * rule["interval"]:
                instance.previous = instance.state
                instance.state, instance.reason, instance.ends = "Normal", "MissingSeries", now
                if instance.previous in ("Alerting", "Error", "NoData", "Recovering"):
                    instance.resolved = now
                gone.append(instance)
                del self.instances[key]
            elif instance.state == "Alerting":
                instance.ends = _next_end(rule, now)
        self.evaluated = now
        return touched + gone

    def _spread(self, rule: dict[str, Any], outcomes: list[Evaluation], now: float) -> list[Instance] | None:
        """If no data or an error is mapped to a state, it changes all existing instances of the rule."""
        states = {outcome.state for outcome in outcomes}
        mapped = (states == {"NoData"} and rule["noDataState"] != "NoData") or (
            states == {"Error"} and rule["execErrState"] != "Error"
        )
        if not mapped or not self.instances:
            return None
        for instance in self.instances.values():
            if outcomes[0].state == "NoData":
                instance.annotations.update(outcomes[0].labels)
            _transition(instance, rule, outcomes[0], now)
        return list(self.instances.values())

    def _instance(self, rule: dict[str, Any], folder: str, outcome: Evaluation) -> Instance:
        extra = {
            "alertname": rule["title"],
            "grafana_folder": folder,
            "__alert_rule_uid__": rule["uid"],
            "__alert_rule_namespace_uid__": rule["folderUID"],
        }
        if settings := rule["notification_settings"]:
            extra |= {"__grafana_autogenerated__": "true", "__grafana_receiver__": settings["receiver"]}
        own = {**outcome.labels, **(outcome.culprit if rule["execErrState"] == "Error" else {})}
        labels = {**own, **self._expand(rule, rule["labels"], {**own, **extra}, outcome), **extra}
        annotations = self._expand(rule, rule["annotations"], labels, outcome)
        key = tuple(sorted(labels.items()))
        instance = self.instances.get(key)
        if instance is None:
            instance = self.instances[key] = Instance(labels, annotations)
        instance.annotations = annotations
        return instance

    @staticmethod
    def _expand(rule: dict, texts: dict[str, str], labels: dict[str, str], outcome: Evaluation) -> dict[str, str]:
        expanded = {}
        for key, text in texts.items():
            try:
                expanded[key] = templates.expand(text, labels, outcome.values, outcome.value)
            except templates.TemplateError as error:
                _log.error("Error in expanding template", rule_uid=rule["uid"], name=key, error=error)
                expanded[key] = text
        return expanded


def _next_end(rule: dict[str, Any], now: float) -> float:
    return now + 4 * max(_RESEND, rule["interval"])


def _normal(instance: Instance, rule: dict[str, Any], now: float, reason: str) -> None:
    keep = seconds(rule["keep_firing_for"])
    if instance.state == "Normal":
        instance.error = ""
    elif instance.state == "Recovering" and now - instance.starts < keep:
        instance.ends = _next_end(rule, now)
    elif instance.state == "Alerting" and keep > 0:
        instance.set("Recovering", reason, now, _next_end(rule, now))
    else:
        instance.set("Normal", reason, now, now)
    if not instance.starts:
        instance.starts = instance.ends = now


def _alerting(instance: Instance, rule: dict[str, Any], now: float, reason: str) -> None:
    pause = seconds(rule["for"])
    if instance.state == "Alerting":
        instance.ends, instance.error = _next_end(rule, now), ""
    elif instance.state == "Pending":
        if now - instance.starts >= pause:
            instance.set("Alerting", reason, now, _next_end(rule, now))
    elif instance.state != "Recovering" and pause > 0:
        instance.set("Pending", reason, now, _next_end(rule, now))
    else:
        instance.set("Alerting", reason, now, _next_end(rule, now))


def _keep_last(instance: Instance, rule: dict[str, Any], now: float, reason: str) -> None:
    if instance.state == "Alerting" or (instance.state == "Pending" and now - instance.starts >= seconds(rule["for"])):
        _alerting(instance, rule, now, reason)
    elif instance.state != "Pending":
        _normal(instance, rule, now, reason)


def _stay(instance: Instance, rule: dict[str, Any], state: str, now: float) -> None:
    if instance.state == state:
        instance.ends = _next_end(rule, now)
    else:
        instance.set(state, "", now, _next_end(rule, now))


def _transition(instance: Instance, rule: dict[str, Any], outcome: Evaluation, now: float) -> None:
    instance.previous = instance.state
    instance.evaluated = now
    instance.values = {name: float(number) for name, number in outcome.values.items()}
    instance.text = outcome.text
    mapped = {"NoData": rule["noDataState"], "Error": rule["execErrState"]}.get(outcome.state, outcome.state)
    reason = "" if outcome.state == mapped else outcome.state
    if mapped in ("Normal", "OK"):
        _normal(instance, rule, now, reason)
    elif mapped == "Alerting":
        _alerting(instance, rule, now, reason)
    elif mapped == "KeepLast":
        reason = f"{outcome.state}, KeepLast"
        _keep_last(instance, rule, now, reason)
    else:
        _stay(instance, rule, mapped, now)
    instance.reason = reason if outcome.state in ("NoData", "Error") and instance.state != outcome.state else ""
    if outcome.error:
        if outcome.state == "Error" and mapped != "OK" and mapped != "KeepLast":
            instance.error = outcome.error
        instance.annotations |= {"Error": outcome.error, **(outcome.culprit if mapped != "Error" else {})}
    if instance.previous in ("Alerting", "Recovering") and instance.state == "Normal":
        instance.resolved = now
    elif instance.state not in ("Normal", "Pending"):
        instance.resolved = None
