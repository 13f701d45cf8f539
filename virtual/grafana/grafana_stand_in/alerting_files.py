"""Files in provisioning/alerting: contact points, notification policies and rules."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import yaml_files
from .clock import now
from .dashboards import Library
from .errors import StartError
from .expand import ExpandError, interpolate_all
from .log import Logger
from .policies import PolicyError, check_tree, receivers, reset_tree, tree, used
from .settings import seconds
from .store import Store
from .values import flag, number, text

_log = Logger("provisioning.alerting")
BASE_INTERVAL = 10  # seconds; intervals of rules are multiples of it

# Types of contact points, with their required settings. The stand-in delivers only to webhooks.
_REQUIRED = {
    "email": ("addresses", "could not find addresses in settings"),
    "webhook": ("url", "required field 'url' is not specified"),
    "slack": ("", ""),
    "discord": ("url", "could not find webhook url property in settings"),
    "telegram": ("bottoken", "could not find Bot Token in settings"),
    "pushover": ("userKey", "user key not found"),
    "pagerduty": ("integrationKey", "could not find integration key property in settings"),
    "teams": ("url", "could not find url property in settings"),
    "googlechat": ("url", "could not find url property in settings"),
    "opsgenie": ("apiKey", "could not find api key property in settings"),
    "victorops": ("url", "could not find victorops url property in settings"),
    "kafka": ("kafkaRestProxy", "could not find kafka rest proxy property in settings"),
    "line": ("token", "could not find token in settings"),
    "threema": ("gateway_id", "could not find Threema Gateway ID in settings"),
    "sensugo": ("url", "could not find URL property in settings"),
    "webex": ("room_id", "missing required field 'room_id'"),
    "wecom": ("url", "either url or secret is required"),
    "dingding": ("url", "could not find url property in settings"),
    "prometheus-alertmanager": ("url", "could not find url property in settings"),
    "mqtt": ("brokerUrl", "MQTT broker URL must be specified"),
    "oncall": ("url", "required field 'url' is not specified"),
    "sns": ("sigv4", "sigv4 is required"),
    "jira": ("api_url", "could not find api_url property in settings"),
}
NO_DATA_STATES = ("Alerting", "NoData", "OK", "KeepLast")
ERROR_STATES = ("Alerting", "Error", "OK", "KeepLast")


def _list(document: dict, key: str) -> list[dict]:
    entries = document.get(key) or []
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise StartError(f"yaml: unmarshal errors: cannot unmarshal {key}: a list of mappings is needed")
    return entries


def _contact_point(entry: dict) -> list[dict[str, Any]]:
    name = text(entry.get("name")).strip()
    if not name:
        raise StartError("no name is set")
    return [_receiver(receiver, name) for receiver in _list(entry, "receivers")]


def _receiver(entry: dict, name: str) -> dict[str, Any]:
    uid, kind = text(entry.get("uid")).strip(), text(entry.get("type")).strip()
    settings = interpolate_all(entry.get("settings") or {})
    for value, complaint in (
        (uid, "no uid is set"),
        (kind, "no type is set"),
        (settings, "no settings are set"),
    ):
        if not value:
            raise StartError(f"{name}: {complaint}")
    key, complaint = _REQUIRED.get(kind, ("type", f"notifier {kind} is not supported"))
    if kind not in _REQUIRED or (key and not settings.get(key)):
        raise StartError(f'{name}: failed to validate integration "{name}" (UID {uid}) of type "{kind}": {complaint}')
    return {
        "uid": uid,
        "name": name,
        "type": kind,
        "settings": settings,
        "disableResolveMessage": flag(entry.get("disableResolveMessage")),
        "provenance": "file",
    }


def _duration(value: Any, title: str, field: str) -> str:
    shown = text(value)
    try:
        seconds(shown or "0")
    except ValueError as error:
        raise StartError(f"rule '{title}' failed to parse '{field}' field: {error}") from error
    return shown or "0s"


def _strings(value: Any) -> dict[str, str]:
    return {str(key): "" if item is None else str(item) for key, item in (value or {}).items()}


def _rule(entry: dict) -> dict[str, Any]:
    title = text(entry.get("title"))
    if not title:
        raise StartError("rule has no title set")
    uid = text(entry.get("uid"))
    if not uid:
        raise StartError(f"rule '{title}' failed to parse: no UID set")
    states = {}
    for field, allowed, default, what in (
        ("execErrState", ERROR_STATES, "Alerting", "Error"),
        ("noDataState", NO_DATA_STATES, "NoData", "NoData"),
    ):
        state = text(entry.get(field)).strip() or default
        if state not in allowed:
            raise StartError(f"rule '{title}' failed to parse: unknown {what} state option {state}")
        states[field] = state
    condition = text(entry.get("condition"))
    if not condition:
        raise StartError(f"rule '{title}' failed to parse: no condition set")
    data = [_query(query) for query in _list(entry, "data")]
    if not data:
        raise StartError(f"rule '{title}' failed to parse: no data set")
    rule = {
        "uid": uid,
        "title": title,
        "condition": condition,
        "data": data,
        **states,
        "for": _duration(entry.get("for"), title, "for"),
        "keep_firing_for": _duration(entry.get("keepFiringFor"), title, "keepFiringFor"),
        # Annotations are not expanded, because `$labels` has a meaning in them.
        "annotations": _strings(entry.get("annotations")),
        "labels": {key: text(value) for key, value in _strings(entry.get("labels")).items()},
        "isPaused": flag(entry.get("isPaused")),
        "notification_settings": interpolate_all(entry.get("notification_settings")),
        "missing": number(entry.get("missing_series_evals_to_resolve")) or 2,
    }
    for key, source in (("__dashboardUid__", "dashboardUid"), ("__panelId__", "panelId")):
        if value := text(entry.get(source)):
            rule["annotations"].setdefault(key, value)
    return rule


def _query(entry: dict) -> dict[str, Any]:
    relative = entry.get("relativeTimeRange") or {}
    return {
        "refId": text(entry.get("refId")),
        "queryType": text(entry.get("queryType")),
        "relativeTimeRange": {"from": int(relative.get("from") or 0), "to": int(relative.get("to") or 0)},
        "datasourceUid": text(entry.get("datasourceUid")),
        "model": {"intervalMs": 1000, "maxDataPoints": 43200, **(entry.get("model") or {})},
    }


def _group(entry: dict) -> dict[str, Any]:
    name = text(entry.get("name"))
    if not name.strip():
        raise StartError("rule group has no name set")
    try:
        interval = seconds(text(entry.get("interval")))
    except ValueError as error:
        raise StartError(str(error)) from error
    folder = text(entry.get("folder"))
    if not folder.strip():
        raise StartError("rule group has no folder set")
    return {
        "name": name,
        "folder": folder,
        "interval": int(interval),
        "rules": [_rule(r) for r in _list(entry, "rules")],
    }


class AlertingFile:
    """The content of a file, parsed but not yet applied."""

    def __init__(self, path: Path, document: dict[str, Any]) -> None:
        self.name = path.name
        self.contact_points = [
            receiver for point in _all(document, "contactPoints", _contact_point) for receiver in point
        ]
        self.policies = _all(document, "policies", _policy)
        self.groups = _all(document, "groups", _group)
        self.delete_rules = [text(entry.get("uid")) for entry in _list(document, "deleteRules")]
        self.delete_contact_points = [text(entry.get("uid")) for entry in _list(document, "deleteContactPoints")]
        self.reset_policies = bool(document.get("resetPolicies"))


_NAMES = {"contactPoints": "contact points", "groups": "rules", "policies": "notification policies"}


def _all(document: dict, key: str, function: Callable[[dict], Any]) -> list[Any]:
    try:
        return [function(entry) for entry in _list(document, key)]
    except StartError as error:
        raise StartError(f"failure parsing {_NAMES[key]}: {error}") from error


def _policy(entry: dict) -> dict[str, Any]:
    return interpolate_all({key: value for key, value in entry.items() if key != "orgId"})


def _read(directory: Path) -> list[AlertingFile]:
    try:
        paths = yaml_files.files(directory, ("",))
    except OSError as error:
        _log.error("can't read alerting provisioning files from directory", path=directory, error=error)
        return []
    files = []
    for path in paths:
        if path.suffix not in (".yaml", ".yml", ".json"):
            _log.warn(f"file has invalid suffix '{path.name}' (.yaml,.yml,.json accepted), skipping")
            continue
        try:
            document = yaml_files.load(path)
        except (yaml_files.YamlError, OSError) as error:
            raise StartError(f"failure to parse file {path.name}: {error}") from error
        if document is None:
            continue
        try:
            files.append(AlertingFile(path, document))
        except (StartError, ExpandError, AttributeError, TypeError, ValueError) as error:
            raise StartError(f"failure to map file {path.name}: {error}") from error
    return files


def provision(directory: Path, store: Store, library: Library) -> None:
    """Apply the files. Objects that are no longer in a file stay until a file deletes them. Raises StartError."""
    files = _read(directory)
    _log.info("starting to provision alerting")
    for file in files:
        for receiver in file.contact_points:
            store.put("contact_point", receiver["uid"], receiver)
    for file in files:
        for wanted in file.policies:
            try:
                check_tree(wanted, store)
            except PolicyError as error:
                raise StartError(
                    f"notification policies: {file.name}: [alerting.notifications.routes.invalidFormat] "
                    "Invalid format of the submitted route."
                ) from error
            store.put("policies", "tree", {"tree": wanted, "provenance": "file"})
        if file.reset_policies:
            reset_tree(store)
    for file in files:
        for group in file.groups:
            _apply(group, store, library)
        for uid in file.delete_rules:
            store.delete("rule", uid)
    for file in files:
        for uid in file.delete_contact_points:
            _delete_contact_point(uid, store)
    _log.info("finished to provision alerting")


def _delete_contact_point(uid: str, store: Store) -> None:
    point = store.get("contact_point", uid)
    if point is None:
        return
    name = point["name"]
    last = sum(other["name"] == name for other in store.all("contact_point")) == 1
    rules = [r["uid"] for r in store.all("rule") if (r["notification_settings"] or {}).get("receiver") == name]
    if last and rules:
        _log.error(
            "Cannot delete contact point because it is used in rule's notification settings",
            receiverName=name,
            rulesUid=",".join(rules),
        )
        raise StartError("contact points: [alerting.notifications.contact-points.used-by-rule]")
    if last and name in used(tree(store)):
        raise StartError("contact points: [alerting.notifications.contact-points.referenced]")
    store.delete("contact_point", uid)


def _apply(group: dict[str, Any], store: Store, library: Library) -> None:
    folder = library.folder_by_title(group["folder"])["uid"]
    interval = group["interval"]
    if interval <= 0 or interval % BASE_INTERVAL:
        raise StartError(
            "alert rules: invalid alert rule: "
            f"interval ({interval}s) should be non-zero and divided exactly by scheduler interval: {BASE_INTERVAL}"
        )
    for position, rule in enumerate(group["rules"]):
        if len(rule["uid"]) > 40:
            raise StartError(f"alert rules: cannot create rule with UID '{rule['uid']}': UID is longer than 40 symbols")
        receiver = (rule["notification_settings"] or {}).get("receiver", "")
        if receiver and receiver not in receivers(store):
            raise StartError(f"alert rules: invalid alert rule\nreceiver {receiver} does not exist")
        old = store.get("rule", rule["uid"]) or {}
        store.put(
            "rule",
            rule["uid"],
            {
                **rule,
                "orgID": 1,
                "folderUID": folder,
                "ruleGroup": group["name"],
                "interval": interval,
                "position": position + 1,
                "provenance": "file",
                "updated": old.get("updated") if _same(old, rule) else now(),
            },
        )
    for rule in store.all("rule"):
        if rule["folderUID"] == folder and rule["ruleGroup"] == group["name"] and rule["interval"] != interval:
            store.put("rule", rule["uid"], {**rule, "interval": interval})


def _same(old: dict[str, Any], rule: dict[str, Any]) -> bool:
    return bool(old) and all(old.get(key) == value for key, value in rule.items())
