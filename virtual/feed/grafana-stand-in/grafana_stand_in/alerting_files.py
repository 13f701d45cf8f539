"""Alerting from files in provisioning/alerting: contact points, notification policies and rules."""

from pathlib import Path
from typing import Any

from . import yaml_files
from .clock import now
from .dashboards import Library
from .errors import StartError
from .expand import ExpandError, interpolate_all
from .log import Logger
from .policies import PolicyError, check_tree, reset_tree
from .settings import seconds
from .store import Store
from .values import flag, number, text

_log = Logger("provisioning.alerting")
BASE_INTERVAL = 10  # seconds between two looks of the scheduler

# Types of contact points with the settings that Grafana insists on. Only email and webhook really deliver here.
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
_NO_DATA_STATES = ("Alerting", "NoData", "OK", "KeepLast")
_ERROR_STATES = ("Alerting", "Error", "OK", "KeepLast")


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
    if kind not in _REQUIRED:
        raise StartError(f"{name}: notifier {kind} is not supported")
    key, complaint = _REQUIRED[kind]
    if key and not settings.get(key):
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
        ("execErrState", _ERROR_STATES, "Alerting", "Error"),
        ("noDataState", _NO_DATA_STATES, "NoData", "NoData"),
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
        # The texts of annotations are not expanded: `$labels` means something in them.
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
    """One file, understood but not yet applied."""

    def __init__(self, path: Path, document: dict[str, Any]) -> None:
        self.name = path.name
        self.contact_points = [
            r for entry in _list(document, "contactPoints") for r in _map("contactPoints", _contact_point, entry)
        ]
        self.policies = [
            interpolate_all({k: v for k, v in p.items() if k != "orgId"}) for p in _list(document, "policies")
        ]
        self.groups = [_map("groups", _group, entry) for entry in _list(document, "groups")]
        self.delete_rules = [text(entry.get("uid")) for entry in _list(document, "deleteRules")]
        self.delete_contact_points = [text(entry.get("uid")) for entry in _list(document, "deleteContactPoints")]
        self.reset_policies = bool(document.get("resetPolicies"))


def _map(what: str, function: Any, entry: dict) -> Any:
    try:
        return function(entry)
    except StartError as error:
        prefix = "contact point: " if what == "contactPoints" else "rule group: "
        raise StartError(f"{prefix if what == 'contactPoints' else ''}{error}") from error


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
    """Applies the files. What a file no longer names stays until a file deletes it. Raises StartError."""
    files = _read(directory)
    _log.info("starting to provision alerting")
    for file in files:
        for receiver in file.contact_points:
            store.put("contact_point", receiver["uid"], receiver)
    for file in files:
        for tree in file.policies:
            try:
                check_tree(tree, store)
            except PolicyError as error:
                raise StartError(
                    f"notification policies: {file.name}: [alerting.notifications.routes.invalidFormat] "
                    f"Invalid format of the submitted route: {error}"
                ) from error
            store.put("policies", "tree", {"tree": tree, "provenance": "file"})
        if file.reset_policies:
            reset_tree(store)
    for file in files:
        for group in file.groups:
            _apply(group, store, library)
        for uid in file.delete_rules:
            store.delete("rule", uid)
    for file in files:
        for uid in file.delete_contact_points:
            store.delete("contact_point", uid)
    _log.info("finished to provision alerting")


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
