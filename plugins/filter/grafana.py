"""Grafana's provisioning files and secrets from the role's variables, and the validation of these."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping

from ansible_collections.tig_pi.stack.plugins.plugin_utils.grafana.documents import UID
from ansible_collections.tig_pi.stack.plugins.plugin_utils.grafana.notifications import (
    addresses,
    contact_point_problems,
    mail_server_problems,
)

SECRETS = "/etc/grafana/secrets"
SHORTEST_PASSWORD = 4  # Grafana's own policy


def grafana_problems(
    datasources: list[Mapping], contact_points: list[Mapping], smtp: Mapping, admin_password: str, secret_key: str
) -> list[str]:
    """What Grafana would refuse or ignore and argument_specs cannot express, one sentence each."""
    return [
        *_password_problems(admin_password, secret_key),
        *_datasource_problems(datasources),
        *_contact_point_problems(contact_points, smtp),
        *mail_server_problems("grafana_smtp", smtp),
    ]


def _password_problems(admin_password: str, secret_key: str) -> Iterator[str]:
    if len(admin_password) < SHORTEST_PASSWORD:
        yield f"grafana_admin_password must have at least {SHORTEST_PASSWORD} characters, Grafana's minimum."
    if not secret_key:
        yield "grafana_secret_key is not set; Grafana would encrypt secrets with a publicly known key."
    for name, value in (("grafana_admin_password", admin_password), ("grafana_secret_key", secret_key)):
        if value != value.strip() or "\n" in value:
            yield f"{name} begins or ends with a space, or has several lines; Grafana would read it differently."


def _datasource_problems(datasources: list[Mapping]) -> Iterator[str]:
    for source in datasources:
        where = f"grafana_datasources: {source['name'] or 'an entry'}"
        if not UID.fullmatch(source["uid"]):
            yield f"{where}: the uid {source['uid']!r} is not valid; use at most 40 letters, digits, '-' and '_'."
        if not source["url"].startswith(("http://", "https://")):
            yield f"{where}: its url must begin with http:// or https://."
    for key in ("name", "uid"):
        yield from _duplicates("grafana_datasources", key, datasources)
    if len([source for source in datasources if source.get("isDefault")]) > 1:
        yield "grafana_datasources: several entries are the default (isDefault); keep one."


def _contact_point_problems(contact_points: list[Mapping], smtp: Mapping) -> Iterator[str]:
    for point in contact_points:
        where = f"grafana_contact_points: {point['name'] or 'an entry'}"
        yield from contact_point_problems(where, point, smtp, "grafana_smtp")
    yield from _duplicates("grafana_contact_points", "name", contact_points)


def _duplicates(variable: str, key: str, entries: list[Mapping]) -> Iterator[str]:
    for value, count in Counter(entry.get(key) for entry in entries if entry.get(key)).items():
        if count > 1:
            yield f"{variable}: {count} entries have the {key} {value}."


def grafana_datasource_file(datasources: list[Mapping]) -> dict:
    """A provisioning file without secrets, which also removes data sources that are no longer declared."""
    return {"apiVersion": 1, "prune": True, "datasources": [_datasource(source) for source in datasources]}


def _datasource(source: Mapping) -> dict:
    plain = {key: _literal(value) for key, value in source.items() if key != "secureJsonData"}
    secret = {
        key: _reference(value, f"{source['uid']}.{key}") for key, value in source.get("secureJsonData", {}).items()
    }
    return {"orgId": 1, "access": "proxy", "editable": False, **plain, "secureJsonData": secret}


def grafana_contact_point_file(contact_points: list[Mapping]) -> dict:
    """A provisioning file of contact points. The URL of a webhook is a secret, too: with many services it is all one needs."""
    return {"apiVersion": 1, "contactPoints": [_contact_point(point) for point in contact_points]}


def grafana_contact_point_uid(point: Mapping) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "-", point["name"])[:40]


def _contact_point(point: Mapping) -> dict:
    uid = grafana_contact_point_uid(point)
    if point["type"] == "email":
        settings = {"addresses": _literal(";".join(addresses(point))), "singleEmail": True}
    else:
        settings = {"url": _reference(point["url"], f"{uid}.url"), "httpMethod": "POST"}
        if point.get("user"):
            settings["username"] = _literal(point["user"])
        if point.get("password"):
            settings["password"] = _reference(point["password"], f"{uid}.password")
    receiver = {"uid": uid, "type": point["type"], "settings": settings}
    return {"orgId": 1, "name": _literal(point["name"]), "receivers": [receiver]}


def grafana_secrets(
    datasources: list[Mapping], contact_points: list[Mapping], smtp: Mapping, admin_password: str, secret_key: str
) -> list[dict]:
    """The files below /etc/grafana/secrets, each with one secret: path and content."""
    secrets = {"admin_password": admin_password, "secret_key": secret_key}
    if smtp.get("password"):
        secrets["smtp_password"] = smtp["password"]
    for source in datasources:
        for key, value in source.get("secureJsonData", {}).items():
            secrets[f"provisioning/{source['uid']}.{key}"] = value
    for point in contact_points:
        for key in ("url", "password"):
            if point.get(key):
                secrets[f"provisioning/{grafana_contact_point_uid(point)}.{key}"] = point[key]
    return [{"dest": f"{SECRETS}/{path}", "content": f"{value}\n"} for path, value in secrets.items()]


def _reference(value: str, path: str) -> str:
    """The reference to a secret in a provisioning file: the name of the file that contains it.

    Grafana expands variables in the content of that file, too, and reads digits as a number. A secret that looks like that
    can only be in the provisioning file itself.
    """
    plain = re.fullmatch(r"[0-9.+-].*|t|f|true|false", str(value), re.IGNORECASE) is None
    return f"$__file{{{SECRETS}/provisioning/{path}}}" if plain and "$" not in str(value) else _literal(value)


def grafana_holds_secrets(document: dict) -> bool:
    """Whether a provisioning file contains a secret itself."""
    texts = [text for source in document.get("datasources", []) for text in source["secureJsonData"].values()]
    for point in document.get("contactPoints", []):
        settings = point["receivers"][0]["settings"]
        texts += [settings[key] for key in ("url", "password") if key in settings]
    return not all(text.startswith("$__file{") for text in texts)


def _literal(value):
    """The value, escaped for Grafana's expansion of variables."""
    if isinstance(value, str):
        return value.replace("$", "$$")
    if isinstance(value, Mapping):
        return {key: _literal(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_literal(inner) for inner in value]
    return value


class FilterModule:
    def filters(self) -> dict:
        return {
            "grafana_contact_point_file": grafana_contact_point_file,
            "grafana_contact_point_uid": grafana_contact_point_uid,
            "grafana_datasource_file": grafana_datasource_file,
            "grafana_holds_secrets": grafana_holds_secrets,
            "grafana_problems": grafana_problems,
            "grafana_secrets": grafana_secrets,
        }
