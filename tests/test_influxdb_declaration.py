"""What is said of databases and users that cannot work, before the server meets them."""

from __future__ import annotations

import pytest
from ansible_collections.tig_pi.stack.plugins.filter import influxdb
from project import argument_errors

ADMIN = {"name": "admin", "password": "secret"}
QUERY = "SELECT mean(*) INTO a.b FROM c GROUP BY time(10m), *"


def problems(databases=(), users=(), admin=ADMIN, address="127.0.0.1:8086") -> list[str]:
    """As the role reports them: first those of argument_specs, and the others if there are none."""
    variables = {"influxdb_databases": list(databases), "influxdb_users": list(users), "influxdb_admin": admin}
    return argument_errors("influxdb", **variables) or influxdb.influxdb_problems(*variables.values(), address)


def policy(**entry) -> list[dict]:
    return [{"name": "iot", "retention_policies": [{"name": "p", "duration": "30d", **entry}]}]


def query(**entry) -> list[dict]:
    return [{"name": "iot", "continuous_queries": [{"name": "q", "query": QUERY, **entry}]}]


def user(**entry) -> dict:
    return {"name": "grafana", "password": "p", "grants": [{"database": "iot", "privilege": "read"}], **entry}


def test_valid_variables_have_no_problems():
    databases = [{**policy(shard_duration="1d", default=True)[0], **query(state="absent", query=None)[0]}]
    assert problems(databases, [user(), {"name": "gone", "state": "absent"}], address="[::1]:8086") == []
    assert problems(policy(duration="0s")) == problems(policy(duration="INF")) == problems(query()) == []


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ({"address": "8086"}, "'8086' is not an address"),
        ({"address": "::1:8086"}, "'::1:8086' is not an address"),
        ({"admin": {"name": "admin", "password": ""}}, "influxdb_admin has no password"),
        ({"admin": {"name": "admin", "password": "x" * 73}}, "first 72 bytes"),
        ({"databases": [{"name": "iot"}, {"name": "iot"}]}, "database 'iot' is declared twice"),
        ({"databases": [{"name": "my iot"}]}, "'my iot': a name consists of letters"),
        ({"databases": [{}]}, "missing required arguments: name found in influxdb_databases"),
        ({"databases": [{"name": "iot", "retention_policies": [{}]}]}, "influxdb_databases -> retention_policies"),
        ({"users": [{"password": "p"}]}, "missing required arguments: name found in influxdb_users"),
        ({"admin": {"password": "p"}}, "missing required arguments: name found in influxdb_admin"),
        ({"databases": policy(duration="1 month")}, "retention policy 'p': '1 month' is not a duration"),
        ({"databases": policy(duration="30m")}, "retention policy 'p': a duration of 30m is too short"),
        ({"databases": policy(shard_duration="60d")}, "shard duration 60d is longer than"),
        ({"databases": query(query="SELECT 1")}, "continuous query 'q': a query must be SELECT … INTO"),
        ({"databases": query(state="gone")}, "value of state must be one of: present, absent, got: gone"),
        (
            {"users": [user(grants=[{"database": "toi", "privilege": "read"}])]},
            "influxdb_databases has no database 'toi'",
        ),
        ({"databases": [{"name": "iot"}], "users": [user(), user()]}, "user 'grafana' is declared twice"),
        ({"databases": [{"name": "iot"}], "users": [user(password=5)]}, "user 'grafana' has no password"),
        ({"users": [user(name="admin", grants=[])]}, "user 'admin' is the administrator"),
        (
            {"databases": [{"name": "iot"}], "users": [user(grants=[{"database": "iot", "privilege": "rw"}])]},
            "value of privilege must be one of: read, write, all, got: rw found in influxdb_users -> grants",
        ),
    ],
)
def test_invalid_variables_are_reported(declared, said):
    [problem] = problems(**declared)
    assert said in problem
