"""Groups alerts by the notification policies and delivers them to contact points of type webhook."""

import hashlib
import json
import math
import threading
import time
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from typing import Any

from . import clock, policies
from .log import Logger
from .rule_states import Instance
from .settings import Settings
from .store import Store

_log = Logger("ngalert.notifier")
_ZERO = "0001-01-01T00:00:00Z"
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass
class Alert:
    """An alert to be sent; times are seconds since 1970."""

    labels: dict[str, str]
    annotations: dict[str, str]
    values: dict[str, float]
    text: str
    starts: float
    ends: float
    resolved: bool

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(json.dumps(self.labels, sort_keys=True).encode()).hexdigest()[:16]


@dataclass
class Group:
    """Alerts that are sent in one notification."""

    route: policies.Route
    labels: dict[str, str]
    due: float
    alerts: dict[str, Alert] = field(default_factory=dict)
    notified: dict[str, bool] = field(default_factory=dict)
    notified_at: float = 0.0

    @property
    def key(self) -> str:
        shown = ", ".join(f'{name}="{value}"' for name, value in sorted(self.labels.items()))
        return f"{{}}:{{{shown}}}"


def datasource_labels(labels: dict[str, str], state: str) -> dict[str, str]:
    """The labels of an alert; one about the data source in place of the rule's condition has another name."""
    if state not in ("NoData", "Error"):
        return dict(labels)
    return {**labels, "rulename": labels["alertname"], "alertname": f"Datasource{state}"}


def to_alert(instance: Instance) -> Alert | None:
    """The alert that the contact points are sent for an instance, or None."""
    resolved = instance.resolved is not None
    kind = instance.previous if resolved else instance.state
    if not resolved and instance.state not in ("Alerting", "NoData", "Error", "Recovering"):
        return None
    labels = datasource_labels(instance.labels, kind)
    annotations = dict(instance.annotations)
    if instance.reason:
        annotations["grafana_state_reason"] = instance.reason
    return Alert(labels, annotations, instance.values, instance.text, instance.starts, instance.ends, resolved)


def _common(maps: list[dict[str, str]]) -> dict[str, str]:
    return {k: v for k, v in maps[0].items() if all(other.get(k) == v for other in maps[1:])} if maps else {}


def go_number(value: float) -> float | int | None:
    """A number as Go writes it in JSON; -1 stands for one that JSON cannot hold."""
    if not math.isfinite(value):
        return -1
    return int(value) if value.is_integer() and abs(value) < 1e15 else value


class Notifier:
    """Keeps the groups; `tick` sends the notifications that are due."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._settings = settings
        self._groups: dict[tuple, Group] = {}
        self._lock = threading.Lock()

    def take(self, instances: list[Instance], now: float, own: dict[str, Any] | None = None) -> None:
        """Take the alerts of a rule's evaluation. `own`: the rule's notification settings, which precede the policies."""
        own = {key: value for key, value in (own or {}).items() if value}
        route = policies.route({**policies.tree(self._store), **own})
        with self._lock:
            for instance in instances:
                alert = to_alert(instance)
                if alert is None:
                    continue
                visible = {k: v for k, v in alert.labels.items() if not k.startswith("__")}
                self._put(route, visible, alert, now)

    def _put(self, route: policies.Route, labels: dict[str, str], alert: Alert, now: float) -> None:
        names = sorted(labels) if "..." in route.group_by else route.group_by
        group_labels = {name: labels[name] for name in names if name in labels}
        key = (route.receiver, tuple(sorted(group_labels.items())))
        group = self._groups.get(key)
        if group is None:
            if alert.resolved:
                return
            group = self._groups[key] = Group(route, group_labels, now + route.group_wait)
        if alert.resolved and alert.fingerprint not in group.alerts:
            return
        group.alerts[alert.fingerprint] = alert

    def tick(self, now: float) -> None:
        """Send the notifications that are due."""
        with self._lock:
            due = [(key, group) for key, group in self._groups.items() if group.due <= now]
        for key, group in due:
            self._flush(group, now)
            with self._lock:
                group.due = now + group.route.group_interval
                for name in [
                    name for name, alert in group.alerts.items() if alert.resolved and group.notified.get(name, True)
                ]:
                    del group.alerts[name]
                    group.notified.pop(name, None)
                if not group.alerts:
                    self._groups.pop(key, None)

    def _flush(self, group: Group, now: float) -> None:
        with self._lock:
            for alert in group.alerts.values():
                if not alert.resolved and alert.ends < now:  # its rule was deleted
                    alert.resolved, alert.ends = True, now
            alerts = list(group.alerts.values())
        state = {alert.fingerprint: alert.resolved for alert in alerts}
        firing = {name for name, resolved in state.items() if not resolved}
        known_firing = {name for name, resolved in group.notified.items() if not resolved}
        resolved_news = {name for name, resolved in state.items() if resolved and name in known_firing}
        again = now - group.notified_at >= group.route.repeat_interval
        if not (firing - known_firing or resolved_news or (firing and again)):
            group.notified |= {name: True for name, resolved in state.items() if resolved}
            return
        sent = [alert for alert in alerts if not alert.resolved or alert.fingerprint in resolved_news]
        points = [p for p in self._store.all("contact_point") if p["name"] == group.route.receiver]
        if group.route.receiver == policies.DEFAULT_RECEIVER:
            points = [policies.default_contact_point()]
        for point in points:
            chosen = [a for a in sent if not (point["disableResolveMessage"] and a.resolved)]
            if chosen:
                self._deliver(point, group, chosen)
        group.notified, group.notified_at = state, now

    def _deliver(self, point: dict[str, Any], group: Group, alerts: list[Alert]) -> None:
        if point["type"] != "webhook":
            _log.warn("this stand-in delivers to webhooks only", receiver=point["name"], integration=point["type"])
            return
        for attempt in range(3):
            try:
                self._webhook(point, self.payload(point, group, alerts))
                return
            except (OSError, ValueError) as error:
                _log.error("Notify for alerts failed", receiver=point["name"], attempts=attempt + 1, error=error)
                time.sleep(attempt)

    def payload(self, point: dict[str, Any], group: Group, alerts: list[Alert]) -> dict[str, Any]:
        """The JSON body of a webhook, in Grafana's format."""
        shown = [self._shown(alert) for alert in alerts]
        firing = [alert for alert in shown if alert["status"] == "firing"]
        status = "firing" if firing else "resolved"
        common = _common([alert["labels"] for alert in shown])
        title = f"[{status.upper()}"
        if firing:
            resolved = len(shown) - len(firing)
            title += f":{len(firing)}" + (f", RESOLVED:{resolved}" if resolved else "")
        title += f"] {' '.join(value for _, value in sorted(group.labels.items()))} "
        rest = [value for name, value in sorted(common.items()) if name not in group.labels]
        title += f"({' '.join(rest)})" if rest else ""
        return {
            "receiver": point["name"],
            "status": status,
            "alerts": shown,
            "groupLabels": group.labels,
            "commonLabels": common,
            "commonAnnotations": _common([alert["annotations"] for alert in shown]),
            "externalURL": self._settings.root_url,
            "version": "1",
            "groupKey": group.key,
            "truncatedAlerts": 0,
            "orgId": 1,
            "title": title,
            "state": "alerting" if firing else "ok",
            "message": _message(shown),
        }

    def _shown(self, alert: Alert) -> dict[str, Any]:
        root = self._settings.root_url
        labels = {key: value for key, value in sorted(alert.labels.items()) if not key.startswith("__")}
        annotations = {k: v for k, v in sorted(alert.annotations.items()) if not k.startswith("__")}
        matchers = {"__alert_rule_uid__": alert.labels["__alert_rule_uid__"]}
        matchers |= {key: value for key, value in labels.items() if key not in ("alertname", "grafana_folder")}
        query = "&".join("matcher=" + urllib.parse.quote_plus(f"{key}={value}") for key, value in matchers.items())
        dashboard = alert.annotations.get("__dashboardUid__", "")
        panel = alert.annotations.get("__panelId__", "")
        return {
            "status": "resolved" if alert.resolved else "firing",
            "labels": labels,
            "annotations": annotations,
            "startsAt": clock.written(alert.starts),
            "endsAt": clock.written(alert.ends) if alert.resolved else _ZERO,
            "generatorURL": f"{root}alerting/grafana/{alert.labels['__alert_rule_uid__']}/view?orgId=1",
            "fingerprint": alert.fingerprint,
            "silenceURL": f"{root}alerting/silence/new?alertmanager=grafana&{query}&orgId=1",
            "dashboardURL": f"{root}d/{dashboard}?orgId=1" if dashboard else "",
            "panelURL": f"{root}d/{dashboard}?orgId=1&viewPanel={panel}" if dashboard and panel else "",
            "values": {name: go_number(value) for name, value in alert.values.items()} or None,
            "valueString": alert.text,
            "orgId": 1,
        }

    def _webhook(self, point: dict[str, Any], payload: dict[str, Any]) -> None:
        settings = point["settings"]
        headers = {"Content-Type": "application/json", "User-Agent": "Grafana"}
        if unknown := settings.keys() - {"url", "httpMethod"}:
            raise ValueError(f"this stand-in does not support the setting {', '.join(sorted(unknown))} of a webhook")
        request = urllib.request.Request(
            settings["url"],
            data=json.dumps(payload).encode(),
            headers=headers,
            method=settings.get("httpMethod") or "POST",
        )
        with _opener.open(request, timeout=30) as response:
            response.read(1)


def _message(alerts: list[dict[str, Any]]) -> str:
    """The text of a notification."""
    parts = []
    for status, heading in (("firing", "**Firing**"), ("resolved", "**Resolved**")):
        chosen = [alert for alert in alerts if alert["status"] == status]
        if not chosen:
            continue
        lines = [heading, ""]
        for alert in chosen:
            values = ", ".join(f"{name}={value}" for name, value in sorted((alert["values"] or {}).items()))
            lines += [f"Value: {values or '[no value]'}", "Labels:"]
            lines += [f" - {name} = {value}" for name, value in alert["labels"].items()]
            lines += ["Annotations:"]
            lines += [f" - {name} = {value}" for name, value in alert["annotations"].items()]
            for name, key in (
                ("Source", "generatorURL"),
                ("Silence", "silenceURL"),
                ("Dashboard", "dashboardURL"),
                ("Panel", "panelURL"),
            ):
                lines += [f"{name}: {alert[key]}"] if alert[key] else []
            lines += [""]
        parts.append("\n".join(lines))
    return "\n".join(parts)
