"""Validate the declaration of databases and users."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from ansible_collections.tig_pi.stack.plugins.module_utils.influxdb.influxql import nanoseconds
from ansible_collections.tig_pi.stack.plugins.plugin_utils.contract import CONTRACT

NAME = re.compile(r"[A-Za-z0-9_.-]+\Z")
CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def influxdb_problems(databases: list, users: list, admin: Mapping, address: str) -> list[str]:
    """What the server would refuse or misunderstand and argument_specs cannot express, one sentence each."""
    names = [database["name"] for database in databases]
    return [
        *_address_problems(address),
        *_admin_problems(admin),
        *_duplicates("influxdb_databases: database", names),
        *(problem for database in databases for problem in _database_problems(database)),
        *_duplicates("influxdb_users: user", [user["name"] for user in users]),
        *(problem for user in users for problem in _user_problems(user, names, admin)),
    ]


def _address_problems(address: str) -> Iterator[str]:
    host, colon, port = str(address).rpartition(":")
    if not colon or not port.isdigit() or not 0 < int(port) < 65536 or (":" in host and not host.startswith("[")):
        usual = CONTRACT["ports"]["influxdb"]
        yield (
            f"influxdb_http_bind_address: {address!r} is not an address with a port; write 127.0.0.1:{usual}, "
            f":{usual} (all interfaces) or [::1]:{usual}."
        )


def _admin_problems(admin: Mapping) -> Iterator[str]:
    yield from _name_problems("influxdb_admin", admin["name"])
    yield from _password_problems("influxdb_admin", admin.get("password"))


def _name_problems(where: str, name: object) -> Iterator[str]:
    if not isinstance(name, str) or not NAME.match(name):
        yield f"{where}: {name!r}: a name consists of letters, digits and _ . - (quote a number)."


def _password_problems(where: str, password: object) -> Iterator[str]:
    if not isinstance(password, str) or not password:
        yield f"{where} has no password (a string; quote a number)."
    elif CONTROL.search(password):
        yield f"{where}: a password must not contain line breaks or control characters."
    elif len(password.encode()) > 72:
        yield f"{where}: the database uses only the first 72 bytes of a password; choose a shorter one."


def _duplicates(where: str, names: list) -> Iterator[str]:
    for name in sorted({str(name) for name in names if names.count(name) > 1}):
        yield f"{where} {name!r} is declared twice; keep one entry."


def _seconds(duration: object) -> float | None:
    """A duration of InfluxQL in seconds. 0 is forever; None means that it is not a duration."""
    try:
        return nanoseconds(duration) / 1e9
    except ValueError:
        return None


def _database_problems(database: Mapping) -> Iterator[str]:
    name = database["name"]
    yield from _name_problems("influxdb_databases", name)
    policies = database.get("retention_policies") or []
    where = f"influxdb_databases: database {name!r}, retention policy"
    yield from _duplicates(where, [policy["name"] for policy in policies])
    if len([policy for policy in policies if policy.get("default")]) > 1:
        yield f"influxdb_databases: database {name!r} has more than one default retention policy."
    for policy in policies:
        yield from _policy_problems(f"{where} {policy['name']!r}", policy)
    queries = database.get("continuous_queries") or []
    where = f"influxdb_databases: database {name!r}, continuous query"
    yield from _duplicates(where, [query["name"] for query in queries])
    for query in queries:
        yield from _query_problems(f"{where} {query['name']!r}", query)


def _policy_problems(where: str, policy: Mapping) -> Iterator[str]:
    yield from _name_problems(where, policy["name"])
    duration = _seconds(policy.get("duration"))
    if duration is None:
        yield f"{where}: {policy.get('duration')!r} is not a duration; write 30d, 26w, 12h or 0s (forever)."
    elif 0 < duration < 3600:
        yield f"{where}: a duration of {policy['duration']} is too short; the shortest is 1h."
    if policy.get("shard_duration") is not None:
        shard = _seconds(policy["shard_duration"])
        if not shard:
            yield f"{where}: the shard duration {policy['shard_duration']!r} is not a duration; write 1d or 4w."
        elif duration and shard > duration:
            yield f"{where}: the shard duration {policy['shard_duration']} is longer than the duration itself."


def _query_problems(where: str, query: Mapping) -> Iterator[str]:
    yield from _name_problems(where, query["name"])
    if query.get("state") == "absent":
        return
    text = " ".join(str(query.get("query") or "").split()).lower()
    if not text.startswith("select ") or " into " not in text or not re.search(r"group by .*time\s*\(", text):
        yield f"{where}: a query must be SELECT … INTO … FROM … GROUP BY time(…)."


def _user_problems(user: Mapping, databases: list, admin: Mapping) -> Iterator[str]:
    name = user["name"]
    yield from _name_problems("influxdb_users", name)
    where = f"influxdb_users: user {name!r}"
    if name == admin["name"]:
        yield f"{where} is the administrator; remove it here, or give the administrator another name."
    if user.get("state") != "absent":
        yield from _password_problems(where, user.get("password"))
    grants = user.get("grants") or []
    yield from _duplicates(f"{where}: a grant on", [grant["database"] for grant in grants])
    for grant in grants:
        if grant["database"] not in databases:
            yield f"{where}: influxdb_databases has no database {grant['database']!r} for this grant."


class FilterModule:
    def filters(self) -> dict:
        return {"influxdb_problems": influxdb_problems}
