"""The behaviour of Grafana that tig-pi relies on, seen from outside. It is the same for the stand-in and for Grafana itself.

To test another package, set TIG_PI_GRAFANA_DEB to its path.
"""

from __future__ import annotations

import copy
import http.server
import json
import socket
import threading
import time
from typing import Any

import pytest
from chain import free_port, wait_until
from grafana_server import INI, Grafana, Influx, unpack
from project import run_module

pytestmark = pytest.mark.slow
TEST_RULE = "/api/v1/rule/test/grafana"
RULE_WAIT = 60  # seconds within which a rule with an interval of ten is evaluated
SERIES = (
    'SELECT mean("outsidetemp") FROM "mqtt_consumer" WHERE $timeFilter GROUP BY time($__interval), "device" fill(none)'
)


def source(**changes: Any) -> dict[str, Any]:
    """The data source of a site."""
    return {
        "name": "InfluxDB",
        "uid": "influx",
        "type": "influxdb",
        "access": "proxy",
        "url": "http://127.0.0.1:1",
        "user": "grafana",
        "isDefault": True,
        "jsonData": {"dbName": "iot", "httpMode": "POST", "version": "InfluxQL"},
        "secureJsonData": {"password": "$TIG_PI_TEST_PASSWORD"},
        "editable": False,
        **changes,
    }


def sources(*entries: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": 1, "prune": True, "datasources": list(entries)}


def query(ref: str = "A", text: str = SERIES, uid: str = "influx") -> dict[str, Any]:
    model = {"refId": ref, "rawQuery": True, "resultFormat": "time_series", "query": text, "intervalMs": 60000}
    return {"refId": ref, "relativeTimeRange": {"from": 900, "to": 0}, "datasourceUid": uid, "model": model}


def reduce(ref: str, of: str, how: str = "last") -> dict[str, Any]:
    return {
        "refId": ref,
        "datasourceUid": "__expr__",
        "model": {"refId": ref, "type": "reduce", "expression": of, "reducer": how},
    }


def threshold(ref: str, of: str, kind: str, *params: float) -> dict[str, Any]:
    conditions = [{"evaluator": {"type": kind, "params": list(params)}}]
    return {
        "refId": ref,
        "datasourceUid": "__expr__",
        "model": {"refId": ref, "type": "threshold", "expression": of, "conditions": conditions},
    }


def math(ref: str, expression: str) -> dict[str, Any]:
    return {
        "refId": ref,
        "datasourceUid": "__expr__",
        "model": {"refId": ref, "type": "math", "expression": expression},
    }


def rule(uid: str, *data: dict[str, Any], condition: str = "C", **changes: Any) -> dict[str, Any]:
    return {
        "uid": uid,
        "title": f"Rule {uid}",
        "condition": condition,
        "data": list(data) or [query(), reduce("B", "A"), threshold("C", "B", "gt", 15)],
        "noDataState": "NoData",
        "execErrState": "Error",
        "for": "0s",
        **changes,
    }


def alerting(*rules: dict[str, Any], interval: str = "10s", **more: Any) -> dict[str, Any]:
    group = {"orgId": 1, "name": "readings", "folder": "tig-pi", "interval": interval, "rules": list(rules)}
    return {"apiVersion": 1, "groups": [group], **more}


def dashboard(uid: str, title: str, **more: Any) -> dict[str, Any]:
    return {"uid": uid, "title": title, "schemaVersion": 42, "panels": [], **more}


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    return unpack(tmp_path_factory.mktemp("grafana"))


@pytest.fixture(scope="module")
def influx(tmp_path_factory):
    server = Influx(tmp_path_factory.mktemp("influx")).start()
    try:
        server.fill()
        yield server
    finally:
        server.stop()


class Hook(http.server.ThreadingHTTPServer):
    """A server that keeps the notifications of a contact point of type webhook."""

    def __init__(self) -> None:
        self.received: list[dict[str, Any]] = []
        hook = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                hook.received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()


@pytest.fixture(scope="module")
def hook():
    server = Hook()
    yield server
    server.shutdown()
    server.server_close()


SUMMARY = (
    '{{ $labels.device }}: {{ with $values.B }}{{ printf "%.4g" .Value }}{{ end }} ({{ $values.B }}) {{ $labels.no }}'
)


@pytest.fixture(scope="module")
def grafana(home, influx, hook, tmp_path_factory):
    """A Grafana with data sources, dashboards, alert rules, a contact point and a policy."""
    server = Grafana(home, tmp_path_factory.mktemp("site"))
    server.provision(
        "datasources",
        sources(
            source(url=influx.url),
            source(name="By GET", uid="get", url=influx.url, isDefault=False, jsonData={"dbName": "iot"}),
            source(name="Down", uid="down", isDefault=False, editable=True, user="u$HOME-$$x"),
            source(name="Odd", uid="odd", type="nosuchtype", access="bogus", isDefault=False),
            source(name="Locked", uid="locked", url=influx.url, isDefault=False, secureJsonData={"password": "no"}),
        ),
    )
    server.dashboard("readings.json", dashboard("readings", "Readings", tags=["tig"], id=77))
    server.dashboard("pi.json", dashboard("pi", "Pi & pipeline"))
    nothing = SERIES.replace("outsidetemp", "nosuchfield")
    range_ = threshold("C", "B", "outside_range", 11, 30)
    hook_url = f"http://127.0.0.1:{hook.server_port}/hook"
    server.provision(
        "alerting",
        alerting(
            rule("high", labels={"severity": "warning"}, annotations={"summary": SUMMARY}),
            rule("range", query(), reduce("B", "A", "max"), range_),
            rule("pending", **{"for": "1h"}),
            rule("math", query(), reduce("B", "A", "mean"), math("C", "$B > 15 && $B < 30")),
            rule("count", query(), reduce("B", "A", "count"), threshold("C", "B", "lt", 1)),
            rule("nodata", query(text=nothing), reduce("B", "A"), threshold("C", "B", "gt", 1)),
            rule("nodata-ok", query(text=nothing), reduce("B", "A"), threshold("C", "B", "gt", 1), noDataState="OK"),
            rule(
                "nodata-alerting",
                query(text=nothing),
                reduce("B", "A"),
                threshold("C", "B", "gt", 1),
                noDataState="Alerting",
                annotations={"summary": SUMMARY},
            ),
            rule("error", query(text="SELEC 1"), reduce("B", "A"), threshold("C", "B", "gt", 1)),
            rule("error-ok", query(text="SELEC 1"), reduce("B", "A"), threshold("C", "B", "gt", 1), execErrState="OK"),
            rule("no-source", query(uid="gone"), reduce("B", "A"), threshold("C", "B", "gt", 1)),
            rule("no-condition", query(), reduce("B", "A"), condition="Z"),
            rule("paused", isPaused=True),
            contactPoints=[
                {"name": "hook", "receivers": [{"uid": "hook1", "type": "webhook", "settings": {"url": hook_url}}]}
            ],
            policies=[
                {
                    "receiver": "hook",
                    "group_by": ["alertname"],
                    "group_wait": "1s",
                    "group_interval": "5s",
                    "repeat_interval": "1h",
                }
            ],
        ),
    )
    server.start()
    yield server
    server.stop()


# --- login ------------------------------------------------------------------------------------------------


def test_health_needs_no_login(grafana):
    answer = grafana.call("GET", "/api/health", login=None)
    assert answer.status == 200
    assert answer.json["database"] == "ok"
    assert answer.json["version"].startswith("12.2.0")
    assert grafana.call("GET", "/login", login=None).headers["Content-Type"].lower() == "text/html; charset=utf-8"


@pytest.mark.parametrize("path", ["/api/search", "/api/datasources", "/api/nosuchthing", "/api/org"])
def test_everything_else_needs_a_login(grafana, path):
    answer = grafana.call("GET", path, login=None)
    assert answer.status == 401
    assert answer.json == {
        "extra": None,
        "message": "Unauthorized",
        "messageId": "auth.unauthorized",
        "statusCode": 401,
        "traceID": "",
    }


def test_a_page_redirects_to_the_login(grafana):
    answer = grafana.call("GET", "/d/readings/x", login=None)
    assert (answer.status, answer.headers["Location"]) == (302, "/login?redirectTo=%2Fd%2Freadings%2Fx")


def test_a_data_source_cannot_be_made_without_a_login(grafana):
    assert grafana.call("POST", "/api/datasources", {"name": "x", "type": "influxdb"}, login=None).status == 401


def test_wrong_password(grafana):
    answer = grafana.call("GET", "/api/search", login=("somebody", "wrong"))
    assert (answer.status, answer.json["messageId"]) == (401, "password-auth.failed")
    assert answer.json["message"] == "Invalid username or password"


def test_the_current_user(grafana):
    user = grafana.get("/api/user")
    assert (user["id"], user["login"], user["isGrafanaAdmin"], user["orgId"]) == (1, "admin", True, 1)


def test_an_unknown_path(grafana):
    answer = grafana.call("GET", "/api/nosuchthing")
    assert (answer.status, answer.json) == (404, {"message": "Not found"})


# --- users ------------------------------------------------------------------------------------------------

USER = {"login": "visitor", "name": "A visitor", "email": "Visitor@example.org", "password": "eight-or-more"}
VISITOR = (USER["login"], USER["password"])


@pytest.fixture(scope="module")
def visitor(grafana):
    answer = grafana.call("POST", "/api/admin/users", USER)
    assert (answer.status, answer.json["message"]) == (200, "User created")
    return answer.json["id"]


@pytest.mark.parametrize("name", ["visitor", "VISITOR", "visitor@example.org"])
def test_a_user_logs_in_by_name_or_address(grafana, visitor, name):
    user = grafana.call("GET", "/api/user", login=(name, USER["password"])).json
    assert (user["id"], user["login"], user["email"], user["name"]) == (
        visitor,
        "visitor",
        "visitor@example.org",
        "A visitor",
    )
    assert user["isGrafanaAdmin"] is False


def test_users_are_found_and_listed(grafana, visitor):
    for name in ("visitor", "Visitor@example.org"):
        found = grafana.get(f"/api/users/lookup?loginOrEmail={name}")
        assert (found["id"], found["login"], found["uid"], found["isGrafanaAdmin"]) == (visitor, "visitor", "", False)
    assert grafana.get("/api/users/lookup?loginOrEmail=admin")["isGrafanaAdmin"] is True
    for query in ("?loginOrEmail=nobody", "?loginOrEmail=", ""):
        answer = grafana.call("GET", f"/api/users/lookup{query}")
        assert (answer.status, answer.json) == (404, {"message": "user not found"})
    assert [(user["login"], user["isAdmin"]) for user in grafana.get("/api/users?perpage=x")] == [
        ("admin", True),
        ("visitor", False),
    ]
    assert [user["login"] for user in grafana.get("/api/users?perpage=1&page=2")] == ["visitor"]


@pytest.mark.parametrize(
    ("changes", "status", "message"),
    [
        ({}, 412, "User with email 'Visitor@example.org' or username 'visitor' already exists"),
        ({"login": "Visitor", "email": "a@b"}, 412, "User with email 'a@b' or username 'Visitor' already exists"),
        ({"login": "other"}, 412, "User with email 'Visitor@example.org' or username 'other' already exists"),
        ({"login": "a", "email": "a@b", "password": ""}, 400, "bad request data"),
        ({"login": "a", "email": "a@b", "password": "abc"}, 400, "New password is too short"),
        ({"login": 5}, 400, "bad request data"),
        ({"login": "a", "email": "a@b", "OrgId": "1"}, 400, "bad request data"),
        (
            {"login": "a", "email": "a@b", "OrgId": 9},
            400,
            "[org.notFound] failed to get organization with ID: 9",
        ),
        ({"login": "", "email": ""}, 400, "Need to specify either username or email"),
    ],
)
def test_a_user_who_cannot_be_created(grafana, visitor, changes, status, message):
    answer = grafana.call("POST", "/api/admin/users", {**USER, **changes})
    assert (answer.status, answer.json["message"]) == (status, message)


@pytest.mark.parametrize("body", [b"nonsense", b"[]", b"null", b""])
def test_a_request_for_a_user_that_is_no_object(grafana, body):
    answer = grafana.call("POST", "/api/admin/users", body)
    assert (answer.status, answer.json) == (400, {"message": "bad request data"})


@pytest.mark.parametrize(
    ("method", "path", "permissions"),
    [
        ("GET", "/api/users", "users:read"),
        ("GET", "/api/users/lookup?loginOrEmail=admin", "users:read"),
        ("POST", "/api/admin/users", "users:create"),
        ("DELETE", "/api/datasources/uid/influx", "datasources:delete"),
        ("POST", "/api/dashboards/db", "any of dashboards:create, dashboards:write"),
        ("DELETE", "/api/dashboards/uid/readings", "dashboards:delete"),
        ("POST", "/api/folders", "folders:create"),
        (
            "PUT",
            "/api/v1/provisioning/policies",
            "any of alert.provisioning:write, alert.notifications.provisioning:write, all of alert.notifications:write,"
            " alert.provisioning.provenance:write",
        ),
        ("POST", "/api/admin/provisioning/dashboards/reload", "provisioning:reload"),
    ],
)
def test_what_a_viewer_must_not_do(grafana, visitor, method, path, permissions):
    body = {"receiver": "grafana-default-email"} if method in ("POST", "PUT") else None
    answer = grafana.call(method, path, body, login=VISITOR)
    assert (answer.status, answer.json["title"]) == (403, "Access denied")
    assert answer.json["message"].endswith(f"Permissions needed: {permissions}")


def test_what_a_viewer_sees(grafana, visitor):
    assert "influx" in [one["uid"] for one in grafana.call("GET", "/api/datasources", login=VISITOR).json]
    assert grafana.call("GET", "/api/search?type=dash-db", login=VISITOR).json == grafana.get(
        "/api/search?type=dash-db"
    )
    meta = grafana.call("GET", "/api/dashboards/uid/readings", login=VISITOR).json["meta"]
    assert not any([meta["canSave"], meta["canEdit"], meta["canAdmin"], meta["canDelete"]])
    assert "sharedwithme" in [one["uid"] for one in grafana.call("GET", "/api/folders", login=VISITOR).json]
    assert grafana.call("POST", "/api/admin/users", USER, login=None).status == 401


# --- data sources ---------------------------------------------------------------------------------------------------


def test_data_sources_are_listed_without_secrets(grafana, influx):
    listed = {entry["uid"]: entry for entry in grafana.get("/api/datasources")}
    assert set(listed) == {"influx", "get", "down", "odd", "locked"}
    entry = listed["influx"]
    assert entry.pop("id") > 0
    assert entry == {
        "uid": "influx",
        "orgId": 1,
        "name": "InfluxDB",
        "type": "influxdb",
        "typeName": "InfluxDB",
        "typeLogoUrl": "public/plugins/influxdb/img/influxdb_logo.svg",
        "access": "proxy",
        "url": influx.url,
        "user": "grafana",
        "database": "",
        "basicAuth": False,
        "isDefault": True,
        "jsonData": {"dbName": "iot", "httpMode": "POST", "version": "InfluxQL"},
        "readOnly": True,
    }
    assert listed["down"]["readOnly"] is False
    assert listed["odd"]["access"] == "proxy"
    assert "reader's" not in json.dumps(listed)


def test_variables_in_values(grafana, monkeypatch):
    (user,) = [entry["user"] for entry in grafana.get("/api/datasources") if entry["uid"] == "down"]
    assert user.startswith("u/")
    assert user.endswith("-$x")


@pytest.mark.parametrize("uid", ["influx", "get"])
def test_health_of_a_data_source_queries_the_database(grafana, uid):
    answer = grafana.call("GET", f"/api/datasources/uid/{uid}/health")
    assert (answer.status, answer.json) == (
        200,
        {"message": "datasource is working. 2 measurements found", "status": "OK"},
    )


def test_health_of_data_sources_that_do_not_work(grafana):
    answer = grafana.call("GET", "/api/datasources/uid/down/health")
    assert (answer.status, answer.json["status"]) == (400, "ERROR")
    assert "connection refused error reading influxDB" in answer.json["message"]
    answer = grafana.call("GET", "/api/datasources/uid/locked/health")
    assert answer.status == 400
    assert "authorization failed" in answer.json["message"]
    answer = grafana.call("GET", "/api/datasources/uid/odd/health")
    assert (answer.status, answer.json["messageId"]) == (404, "plugin.notRegistered")


def test_a_provisioned_data_source_cannot_be_deleted(grafana):
    answer = grafana.call("DELETE", "/api/datasources/uid/influx")
    assert (answer.status, answer.json["message"]) == (403, "Cannot delete read-only data source")


# --- dashboards -----------------------------------------------------------------------------------------------------


def test_search(grafana):
    hits = {hit["uid"]: hit for hit in grafana.get("/api/search?type=dash-db")}
    assert set(hits) == {"readings", "pi"}
    hit = hits["pi"]
    assert (hit["title"], hit["url"], hit["type"]) == ("Pi & pipeline", "/d/pi/pi-and-pipeline", "dash-db")
    assert hit["folderTitle"] == "tig-pi"
    (folder,) = grafana.get("/api/search?type=dash-folder")
    assert (folder["title"], folder["uid"]) == ("tig-pi", hit["folderUid"])
    assert [entry["uid"] for entry in grafana.get("/api/search?query=pipeline")] == ["pi"]
    assert [entry["uid"] for entry in grafana.get("/api/search?tag=tig")] == ["readings"]


def test_a_provisioned_dashboard(grafana):
    answer = grafana.get("/api/dashboards/uid/readings")
    assert answer["meta"]["provisioned"] is True
    assert answer["meta"]["provisionedExternalId"] == "readings.json"
    assert answer["meta"]["folderTitle"] == "tig-pi"
    assert answer["dashboard"]["id"] != 77
    assert answer["dashboard"]["tags"] == ["tig"]


def test_a_provisioned_dashboard_can_be_neither_saved_nor_deleted(grafana):
    answer = grafana.call("POST", "/api/dashboards/db", {"dashboard": dashboard("readings", "x"), "overwrite": True})
    assert (answer.status, answer.json["message"]) == (400, "Cannot save provisioned dashboard")
    answer = grafana.call("DELETE", "/api/dashboards/uid/readings")
    assert (answer.status, answer.json["message"]) == (400, "provisioned dashboard cannot be deleted")


def test_an_unknown_dashboard(grafana):
    answer = grafana.call("GET", "/api/dashboards/uid/none")
    assert (answer.status, answer.json) == (404, {"message": "Dashboard not found"})


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (dashboard("x", ""), "Dashboard title cannot be empty"),
        (dashboard("x" * 41, "x"), "uid too long, max 40 characters"),
        (dashboard("ä", "x"), "uid contains illegal characters"),
    ],
)
def test_a_dashboard_that_cannot_be_saved(grafana, model, message):
    answer = grafana.call("POST", "/api/dashboards/db", {"dashboard": model})
    assert (answer.status, answer.json["message"]) == (400, message)


def test_a_dashboard_that_was_created_by_hand(grafana):
    folder = grafana.get("/api/search?type=dash-folder")[0]["uid"]
    body = {"dashboard": dashboard("hand", "By hand"), "folderUid": folder}
    saved = grafana.call("POST", "/api/dashboards/db", body)
    assert saved.status == 200
    assert (saved.json["status"], saved.json["uid"], saved.json["url"]) == ("success", "hand", "/d/hand/by-hand")
    version = saved.json["version"]
    body["dashboard"]["version"] = version + 5
    clash = grafana.call("POST", "/api/dashboards/db", body)
    assert (clash.status, clash.json["status"]) == (412, "version-mismatch")
    body["dashboard"] |= {"version": version, "description": "changed"}
    assert grafana.call("POST", "/api/dashboards/db", body).json["version"] == version + 1
    shown = grafana.get("/api/dashboards/uid/hand")
    assert shown["meta"]["provisioned"] is False
    assert grafana.call("DELETE", "/api/dashboards/uid/hand").status == 200
    assert grafana.call("GET", "/api/dashboards/uid/hand").status == 404


# --- queries --------------------------------------------------------------------------------------------------------


def ask(grafana, *queries: dict[str, Any], **more: Any):
    now = int(time.time() * 1000)
    body = {"from": str(now - 900_000), "to": str(now), "queries": list(queries), **more}
    return grafana.call("POST", "/api/ds/query", body)


def panel(text: str = SERIES, **changes: Any) -> dict[str, Any]:
    return {
        "refId": "A",
        "datasource": {"uid": "influx"},
        "rawQuery": True,
        "resultFormat": "time_series",
        "query": text,
        "intervalMs": 60000,
        "maxDataPoints": 100,
        **changes,
    }


@pytest.mark.parametrize("uid", ["influx", "get"])
def test_time_series(grafana, uid):
    answer = ask(grafana, panel(alias="$tag_device", datasource={"uid": uid}))
    assert answer.status == 200
    result = answer.json["results"]["A"]
    assert result["status"] == 200
    frames = {frame["schema"]["name"]: frame for frame in result["frames"]}
    assert set(frames) == {"d0", "d1"}
    schema = result["frames"][0]["schema"]
    executed = schema["meta"]["executedQueryString"]
    assert executed.startswith('SELECT mean("outsidetemp") FROM "mqtt_consumer" WHERE time >= ')
    assert 'GROUP BY time(1m), "device" fill(none)' in executed
    assert schema["refId"] == "A"
    assert schema["fields"] == [
        {"name": "Time", "type": "time", "typeInfo": {"frame": "time.Time"}},
        {
            "name": "Value",
            "type": "number",
            "typeInfo": {"frame": "float64", "nullable": True},
            "labels": {"device": "d0"},
            "config": {"displayNameFromDS": "d0"},
        },
    ]
    times, values = frames["d0"]["data"]["values"]
    assert len(times) == len(values) >= 9
    assert set(values) == {20.5}
    assert all(at % 60000 == 0 for at in times)


def test_the_alias_names_the_series(grafana):
    names = {
        "": "mqtt_consumer.mean { device: d0 }",
        "[[tag_device]] $m $col $__interval $nosuch": "d0 mqtt_consumer mean 1m $nosuch",
    }
    for alias, name in names.items():
        frame = ask(grafana, panel(alias=alias)).json["results"]["A"]["frames"][0]
        assert frame["schema"]["fields"][1]["config"]["displayNameFromDS"] == name


def test_table(grafana):
    text = 'SELECT last("waiting_for") AS "waits", last("online") AS "online" FROM "device_status" GROUP BY "device"'
    (frame,) = ask(grafana, panel(text, resultFormat="table")).json["results"]["A"]["frames"]
    assert [field["name"] for field in frame["schema"]["fields"]] == ["Time", "device", "waits", "online"]
    assert [field["type"] for field in frame["schema"]["fields"]] == ["time", "string", "string", "number"]
    assert [column[0] for column in frame["data"]["values"][1:]] == ["d0", "none", 1]


def test_several_queries_one_without_a_result(grafana):
    answer = ask(grafana, panel(), panel(SERIES.replace("outsidetemp", "nosuchfield"), refId="B"))
    assert answer.status == 200
    assert len(answer.json["results"]["A"]["frames"]) == 2
    assert answer.json["results"]["B"] == {"status": 200, "frames": []}


def test_relative_times(grafana):
    answer = grafana.call("POST", "/api/ds/query", {"from": "now-15m", "to": "now", "queries": [panel()]})
    assert len(answer.json["results"]["A"]["frames"]) == 2


def test_invalid_influxql(grafana):
    answer = ask(grafana, panel("SELEC 1"))
    result = answer.json["results"]["A"]
    assert (answer.status, result["status"], result["errorSource"]) == (400, 500, "downstream")
    assert result["error"].startswith("InfluxDB returned error: error parsing query: found SELEC, expected SELECT,")


def test_database_down(grafana):
    answer = ask(grafana, panel(datasource={"uid": "down"}))
    result = answer.json["results"]["A"]
    assert (answer.status, result["status"], result["errorSource"]) == (400, 502, "downstream")
    assert result["error"].endswith("connection refused")


def test_wrong_credentials_of_the_data_source(grafana):
    result = ask(grafana, panel(datasource={"uid": "locked"})).json["results"]["A"]
    assert result["error"] == "InfluxDB returned error: authorization failed"


def test_refused_requests(grafana):
    answer = ask(grafana, panel(datasource={"uid": "gone"}))
    assert (answer.status, answer.json) == (404, {"message": "Data source not found"})
    answer = ask(grafana)
    assert (answer.status, answer.json["messageId"]) == (400, "query.noQueries")
    answer = grafana.call("POST", "/api/ds/query", {"queries": [panel()]}, login=None)
    assert (answer.status, answer.json["messageId"]) == (401, "auth.unauthorized")
    answer = grafana.call("POST", "/api/ds/query", {"queries": [panel()]}, login=("x", "y"))
    assert (answer.status, answer.json["messageId"]) == (401, "password-auth.failed")


def test_expressions_in_a_panel(grafana):
    expression = {"type": "__expr__", "uid": "__expr__"}
    answer = ask(
        grafana,
        panel(),
        {"refId": "B", "datasource": expression, "type": "reduce", "expression": "A", "reducer": "max"},
        {"refId": "C", "datasource": expression, "type": "math", "expression": "$B * 2"},
    )
    frames = answer.json["results"]["C"]["frames"]
    values = {frame["schema"]["fields"][0]["labels"]["device"]: frame["data"]["values"] for frame in frames}
    assert values == {"d0": [[41]], "d1": [[20]]}


# --- alerting -------------------------------------------------------------------------------------------------------


def rules(grafana) -> dict[str, dict[str, Any]]:
    groups = grafana.get("/api/prometheus/grafana/api/v1/rules")["data"]["groups"]
    return {entry["uid"]: entry for group in groups for entry in group["rules"]}


@pytest.fixture(scope="module")
def evaluated(grafana):
    """The rules, after each has been evaluated."""

    def all_were():
        found = rules(grafana)
        waiting = [uid for uid, entry in found.items() if entry["lastEvaluation"].startswith("0001")]
        return found if waiting == ["paused"] else None

    return wait_until(all_were, "every rule evaluated", RULE_WAIT)


def instances(entry: dict[str, Any]) -> dict[str, str]:
    """{device: state} of a rule's alerts."""
    return {alert["labels"].get("device", ""): alert["state"] for alert in entry.get("alerts", [])}


def test_provisioned_rules(grafana):
    listed = {entry["uid"]: entry for entry in grafana.get("/api/v1/provisioning/alert-rules")}
    entry = listed["high"]
    assert (entry["ruleGroup"], entry["condition"], entry["provenance"]) == ("readings", "C", "file")
    assert (entry["noDataState"], entry["execErrState"], entry["for"]) == ("NoData", "Error", "0s")
    assert entry["annotations"] == {"summary": SUMMARY}
    assert entry["labels"] == {"severity": "warning"}
    assert [part["refId"] for part in entry["data"]] == ["A", "B", "C"]
    assert entry["isPaused"] is False


def test_a_threshold_makes_one_alert_per_device(evaluated):
    entry = evaluated["high"]
    assert (entry["state"], entry["health"], entry["type"]) == ("firing", "ok", "alerting")
    assert instances(entry) == {"d0": "Alerting", "d1": "Normal"}
    firing = next(alert for alert in entry["alerts"] if alert["state"] == "Alerting")
    assert firing["labels"] == {
        "alertname": "Rule high",
        "device": "d0",
        "grafana_folder": "tig-pi",
        "severity": "warning",
    }
    assert firing["annotations"]["summary"] == "d0: 20.5 (20.5) [no value]"
    assert firing["value"] == "1e+00"


@pytest.mark.parametrize(
    ("uid", "state", "states"),
    [
        ("range", "firing", {"d0": "Normal", "d1": "Alerting"}),
        ("pending", "pending", {"d0": "Pending", "d1": "Normal"}),
        ("math", "firing", {"d0": "Alerting", "d1": "Normal"}),
        ("count", "inactive", {"d0": "Normal", "d1": "Normal"}),
        ("nodata", "inactive", {"": "NoData"}),
        ("nodata-ok", "inactive", {"": "Normal (NoData)"}),
        ("nodata-alerting", "firing", {"": "Alerting (NoData)"}),
        ("error", "inactive", {"": "Error"}),
        ("error-ok", "inactive", {"": "Normal (Error)"}),
        ("no-source", "inactive", {"": "Error"}),
        ("no-condition", "inactive", {"": "Error"}),
        ("paused", "inactive", {}),
    ],
)
def test_states_of_rules(evaluated, uid, state, states):
    assert (evaluated[uid]["state"], instances(evaluated[uid])) == (state, states)


def test_health_of_rules(evaluated):
    bad = {uid: entry["health"] for uid, entry in evaluated.items() if entry["health"] != "ok"}
    assert bad == {"nodata": "nodata", "error": "error", "no-source": "error", "no-condition": "error"}
    assert "found SELEC, expected SELECT" in evaluated["error"]["lastError"]
    assert "data source not found" in evaluated["no-source"]["lastError"]
    assert "Condition Z does not exist, must be one of [A B]" in evaluated["no-condition"]["lastError"]


def test_without_data_there_is_no_label_to_name_the_device(evaluated):
    (alert,) = evaluated["nodata-alerting"]["alerts"]
    assert alert["annotations"]["summary"] == "[no value]:  ([no value]) [no value]"


def test_the_contact_point_is_notified(grafana, evaluated, hook):
    def notification():
        return next((body for body in hook.received if body["groupLabels"].get("alertname") == "Rule high"), None)

    # Grafana evaluates its notification policies once a minute.
    body = wait_until(notification, "the webhook called", 120)
    assert (body["receiver"], body["status"], body["version"], body["orgId"]) == ("hook", "firing", "1", 1)
    (alert,) = body["alerts"]
    assert alert["status"] == "firing"
    assert alert["labels"]["device"] == "d0"
    assert alert["annotations"] == {"summary": "d0: 20.5 (20.5) [no value]"}
    assert alert["values"] == {"B": 20.5, "C": 1}
    assert alert["endsAt"] == "0001-01-01T00:00:00Z"
    assert alert["valueString"] == "[ var='B' labels={device=d0} value=20.5 ], [ var='C' labels={device=d0} value=1 ]"
    assert body["title"].startswith("[FIRING:1] Rule high")
    assert body["commonLabels"]["severity"] == "warning"


def test_contact_points_and_policies(grafana):
    points = {entry["name"]: entry for entry in grafana.get("/api/v1/provisioning/contact-points")}
    assert points["email receiver"]["settings"] == {"addresses": "<example@email.com>"}
    assert (points["hook"]["uid"], points["hook"]["provenance"]) == ("hook1", "file")
    tree = grafana.get("/api/v1/provisioning/policies")
    assert (tree["receiver"], tree["provenance"], tree["group_wait"]) == ("hook", "file", "1s")
    refused = grafana.call("PUT", "/api/v1/provisioning/policies", {"receiver": "nobody"})
    assert (refused.status, refused.json["messageId"]) == (400, "alerting.notifications.routes.invalidFormat")
    assert "receiver 'nobody' does not exist" in refused.json["message"]
    changed = {key: value for key, value in tree.items() if key != "provenance"} | {"group_wait": "2s"}
    assert grafana.call("PUT", "/api/v1/provisioning/policies", changed).status == 202
    assert grafana.get("/api/v1/provisioning/policies")["group_wait"] == "2s"


# --- the test of a rule ---------------------------------------------------------------------------------------------


def evaluate(grafana, rule_json: dict[str, Any], login: tuple[str, str] | None = ("admin", "")):
    """Have Grafana evaluate a rule in the folder of a provisioned one, without keeping the result."""
    folder = next(one["folderUID"] for one in provisioned(grafana) if one["uid"] == "high")
    return grafana.call("POST", TEST_RULE, {"rule": rule_json, "folderUid": folder}, login)


def provisioned(grafana) -> list[dict[str, Any]]:
    return grafana.get("/api/v1/provisioning/alert-rules")


def managed(*data: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A rule in the format of this request."""
    one = rule("x", *data)
    states = {"no_data_state": "NoData", "exec_err_state": "Error"}
    return {"grafana_alert": {**{key: one[key] for key in ("title", "condition", "data")}, **states, **changes}}


def test_a_rule_is_evaluated_at_once(grafana):
    before = rules(grafana)["paused"]
    (listed,) = [one for one in provisioned(grafana) if one["uid"] == "paused"]
    answer = evaluate(grafana, managed(**{key: listed[key] for key in ("title", "condition", "data")}))
    assert answer.status == 200
    high, low = sorted(answer.json, key=lambda alert: alert["labels"]["device"])
    assert high["labels"] == {
        "__alert_rule_namespace_uid__": listed["folderUID"],
        "__alert_rule_uid__": "",
        "alertname": "Rule paused",
        "device": "d0",
        "grafana_folder": "tig-pi",
    }
    assert high["annotations"] == {
        "__orgId__": "1",
        "__value_string__": "[ var='B' labels={device=d0} value=20.5 ], [ var='C' labels={device=d0} value=1 ]",
        "__values__": '{"B":20.5,"C":1}',
    }
    assert high["endsAt"] > high["startsAt"]
    assert low["annotations"]["__values__"] == '{"B":10,"C":0}'
    assert low["endsAt"] == low["startsAt"]
    # Nothing of it is kept.
    assert rules(grafana)["paused"] == before


def test_a_tested_rule_has_its_labels_and_annotations(grafana):
    whole = {**managed(), "for": "1h", "labels": {"at": "{{ $labels.device }}"}, "annotations": {"summary": SUMMARY}}
    high, _ = sorted(evaluate(grafana, whole).json, key=lambda alert: alert["labels"]["device"])
    assert high["labels"]["at"] == "d0"
    assert high["annotations"]["summary"] == "d0: 20.5 (20.5) [no value]"


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (
            query(text="SELEC 1"),
            "[sse.dataQueryError] failed to execute query [A]: InfluxDB returned error: error parsing",
        ),
        (
            query(uid="locked"),
            "[sse.dataQueryError] failed to execute query [A]: InfluxDB returned error: authorization",
        ),
        (query(uid="down"), '[sse.dataQueryError] failed to execute query [A]: Post "http://127.0.0.1:1/query?'),
        (query(uid="odd"), "[plugin.notRegistered] plugin not registered"),
    ],
)
def test_a_tested_rule_whose_query_fails(grafana, data, error):
    (alert,) = evaluate(grafana, managed(data, reduce("B", "A"), threshold("C", "B", "gt", 1))).json
    assert alert["annotations"]["Error"].startswith(error)
    assert (alert["labels"]["alertname"], alert["labels"]["rulename"]) == ("DatasourceError", "Rule x")


@pytest.mark.parametrize("state", ["OK", "Alerting", "KeepLast", None])
def test_a_tested_rule_has_its_error_in_every_state(grafana, state):
    broken = managed(query(text="SELEC 1"), reduce("B", "A"), threshold("C", "B", "gt", 1), exec_err_state=state)
    if state is None:
        del broken["grafana_alert"]["exec_err_state"]
    (alert,) = evaluate(grafana, broken).json
    assert "found SELEC" in alert["annotations"]["Error"]
    assert alert["annotations"]["grafana_state_reason"] == ("Error, KeepLast" if state == "KeepLast" else "Error")
    assert alert["labels"]["alertname"] == "Rule x"


def test_a_tested_rule_without_data(grafana):
    nothing = SERIES.replace("outsidetemp", "nosuchfield")
    data = [query(text=nothing), reduce("B", "A"), threshold("C", "B", "gt", 1)]
    (alert,) = evaluate(grafana, managed(*data)).json
    assert alert["annotations"] == {"__orgId__": "1"}
    assert (alert["labels"]["alertname"], alert["labels"]["ref_id"]) == ("DatasourceNoData", "A")


BUILD = "Failed to build evaluator for queries and expressions: "


def without(entry: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if name != key}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": [query(uid="gone"), reduce("B", "A"), threshold("C", "B", "gt", 1)]}, f"{BUILD}failed to build query 'A': data source not found"),
        ({"data": [query(), math("C", "$X > 1")]}, f"{BUILD}unable to find dependent node 'X'"),
        ({"data": [query(), math("C", "$A > ")]}, f"{BUILD}[sse.parseError] failed to parse expression [C]: invalid math command: "),
        ({"data": [without(query(), "datasourceUid")], "condition": "A"}, f"{BUILD}failed to build query 'A': can not get data source by uid, uid is empty"),
        ({"data": [without(query(), "model")], "condition": "A"}, f"{BUILD}failed to get query model from 'A': failed to unmarshal query model: "),
        ({"condition": "Z"}, "invalid alert rule: condition Z does not exist, must be one of [A,B,C]"),
        ({"condition": ""}, "invalid alert rule: condition cannot be empty"),
        ({"data": []}, "invalid alert rule: no queries or expressions are found"),
        ({"data": [without(query(), "refId")]}, "invalid alert rule: refID is not specified for data query/expression at index 0"),
        ({"data": [query(), query()]}, "invalid alert rule: refID 'A' is already used by query/expression at index 0"),
        ({"title": ""}, "alert rule title cannot be empty"),
        ({"no_data_state": "Bogus"}, "unknown NoData state option Bogus"),
        ({"exec_err_state": "Bogus"}, "unknown Error state option Bogus"),
        ({"data": 5}, "bad request data"),
    ],
)  # fmt: skip
def test_a_rule_that_cannot_be_tested(grafana, changes, message):
    answer = evaluate(grafana, managed(**changes))
    assert answer.status == 400
    assert answer.json["message"].startswith(message)


def test_a_tested_rule_is_in_a_folder(grafana):
    for body in ({"rule": managed(), "folderUid": "gone"}, {"rule": managed()}, {}):
        answer = grafana.call("POST", TEST_RULE, body)
        assert (answer.status, answer.json) == (403, {"message": "Access denied"})
    for content in (b"nonsense", b"[]", b'{"rule":5}', b'{"rule":{}}', b'{"rule":{"grafana_alert":5}}'):
        answer = grafana.call("POST", TEST_RULE, content)
        assert (answer.status, answer.json) == (400, {"message": "bad request data"})


def test_who_may_test_a_rule(grafana, visitor):
    assert evaluate(grafana, managed(), login=VISITOR).status == 200
    assert evaluate(grafana, managed(), login=None).status == 401
    assert grafana.call("GET", TEST_RULE).status == 404


def check_rules(grafana, *titles: str, **changes: Any) -> dict[str, Any]:
    arguments = {"url": f"http://127.0.0.1:{grafana.port}", "username": "admin", "password": grafana.password}
    return run_module("grafana_alert_rules", rules=titles, **{**arguments, **changes})


def test_make_verify_reports_rules_that_fail_or_are_missing(grafana):
    good = ("high", "pending", "nodata", "nodata-alerting", "paused")
    bad = ("error", "error-ok", "no-source", "no-condition")  # the health of error-ok is always ok
    result = check_rules(grafana, *(f"Rule {uid}" for uid in (*good, *bad)), "Another")
    assert result["failed"]
    problems = result["problems"]
    assert set(problems) == {"Another", *(f"Rule {uid}" for uid in bad)}
    assert problems["Another"] == "Grafana does not have this rule"
    for uid in ("error", "error-ok"):
        assert "InfluxDB returned error: error parsing query: found SELEC" in problems[f"Rule {uid}"]
    assert "data source not found" in problems["Rule no-source"]
    assert "condition Z does not exist" in problems["Rule no-condition"]
    assert result["msg"].endswith("; Another: Grafana does not have this rule")


def test_make_verify_finds_nothing_wrong_with_good_rules(grafana):
    result = check_rules(grafana, "Rule high", "Rule nodata")
    assert (result.get("failed"), result["changed"], result["problems"]) == (None, False, {})


def test_make_verify_reports_why_it_cannot_ask_for_the_rules(grafana):
    refused = check_rules(grafana, "Rule high", username="nobody")
    assert refused["failed"]
    assert refused["msg"] == "Grafana does not list its alert rules: HTTP 401: Invalid username or password"
    gone = check_rules(grafana, "Rule high", url=f"http://127.0.0.1:{free_port()}")
    assert "Connection refused" in gone["msg"]


# --- reload and restart ---------------------------------------------------------------------------------------------


def test_reload(grafana):
    for topic in ("datasources", "dashboards", "alerting"):
        answer = grafana.call("POST", f"/api/admin/provisioning/{topic}/reload")
        assert (answer.status, answer.json) == (200, {"message": f"{topic.capitalize()} config reloaded"})
        assert grafana.call("POST", f"/api/admin/provisioning/{topic}/reload", login=None).status == 401


@pytest.fixture
def server(home, tmp_path):
    """A Grafana for this test only, not started yet."""
    own = Grafana(home, tmp_path)
    own.provision("datasources", sources(source()))
    yield own
    own.stop()


def wait_for(condition, what: str):
    return wait_until(condition, what, 30)


def uids(server: Grafana, kind: str = "dash-db") -> set[str]:
    return {hit["uid"] for hit in server.get(f"/api/search?type={kind}")}


def test_changed_files_are_read_again(server):
    path = server.dashboard("a.json", dashboard("a", "A"))
    server.provision("alerting", alerting(rule("one"), rule("two")))
    server.start()
    wait_for(lambda: uids(server) == {"a"}, "dashboard found")
    server.dashboard("a.json", dashboard("a", "A changed"))
    server.dashboard("b.json", dashboard("b", "B"))
    wait_for(lambda: uids(server) == {"a", "b"}, "new dashboard found")
    wait_for(lambda: server.get("/api/dashboards/uid/a")["dashboard"]["title"] == "A changed", "changed title shown")
    path.unlink()
    wait_for(lambda: uids(server) == {"b"}, "dashboard gone")
    # Rules and contact points stay until a file deletes them; data sources go when their file says prune.
    server.provision("alerting", alerting(rule("two", title="Second")))
    server.provision("datasources", sources(source(name="Other", uid="other")))
    for topic in ("alerting", "datasources"):
        assert server.call("POST", f"/api/admin/provisioning/{topic}/reload").status == 200
    listed = {entry["uid"]: entry["title"] for entry in server.get("/api/v1/provisioning/alert-rules")}
    assert listed == {"one": "Rule one", "two": "Second"}
    assert [entry["uid"] for entry in server.get("/api/datasources")] == ["other"]
    server.provision("alerting", {"apiVersion": 1, "deleteRules": [{"orgId": 1, "uid": "one"}]}, "delete.yaml")
    assert server.call("POST", "/api/admin/provisioning/alerting/reload").status == 200
    assert [entry["uid"] for entry in server.get("/api/v1/provisioning/alert-rules")] == ["two"]


def test_a_reload_with_an_invalid_file_fails_and_the_server_keeps_running(server):
    server.start()
    server.provision("datasources", sources(source(), source(name="Again")))
    assert server.call("POST", "/api/admin/provisioning/datasources/reload").status == 500
    server.provision("alerting", alerting(rule("x" * 41)))
    assert server.call("POST", "/api/admin/provisioning/alerting/reload").status == 500
    assert server.call("GET", "/api/health").status == 200


def test_dashboards_users_policies_and_password_survive_a_restart(server):
    server.dashboard("a.json", dashboard("a", "A"))
    server.start()
    assert server.call("POST", "/api/dashboards/db", {"dashboard": dashboard("hand", "By hand")}).status == 200
    tree = {"receiver": "grafana-default-email", "group_by": ["alertname"], "group_wait": "7s"}
    assert server.call("PUT", "/api/v1/provisioning/policies", tree).status == 202
    assert server.call("POST", "/api/admin/users", USER).status == 200
    server.stop()
    (server.directory / "admin_password").write_text("another one\n")
    server.start()
    # The password in the file is only used when the database is created.
    assert server.get("/api/dashboards/uid/hand")["dashboard"]["title"] == "By hand"
    assert server.get("/api/v1/provisioning/policies")["group_wait"] == "7s"
    assert server.call("GET", "/api/user", login=VISITOR).json["name"] == USER["name"]
    assert server.call("GET", "/api/user", login=("admin", "another one")).status == 401


def test_the_command_line_sets_a_new_password(server):
    server.start()
    refused = server.cli("admin", "reset-admin-password", "--password-from-stdin", text="x\n")
    assert "the new password doesn't meet the password policy criteria" in refused.stdout + refused.stderr
    assert refused.returncode != 0
    assert server.get("/api/user")["login"] == "admin"
    # On a running server, and on a stopped one.
    accepted = server.cli("admin", "reset-admin-password", "--password-from-stdin", text="second secret\n")
    assert accepted.returncode == 0, accepted.stdout + accepted.stderr
    assert "Admin password changed successfully" in accepted.stdout + accepted.stderr
    assert server.call("GET", "/api/user").status == 401
    server.password = "second secret"
    assert server.get("/api/user")["login"] == "admin"
    server.stop()
    assert server.cli("admin", "reset-admin-password", "--password-from-stdin", text="third secret").returncode == 0
    server.password = "third secret"
    server.start()
    assert server.get("/api/user")["login"] == "admin"


def test_too_many_wrong_passwords_lock_the_account(server):
    server.start()
    for number in range(5):
        assert server.call("GET", "/api/user", login=("admin", f"wrong {number}")).status == 401
    assert server.call("GET", "/api/user").status == 401


# --- invalid files that end the server --------------------------------------------------------------------------

UID_TWICE = sources(source(), source(name="Second", isDefault=False))
TWO_DEFAULTS = sources(source(), source(name="Second", uid="second"))
NO_NAME = sources({key: value for key, value in source().items() if key != "name"})
BAD_YAML = "apiVersion: 1\ndatasources:\n  - name: x\n   uid: y\n"
DUPLICATE_KEY = "apiVersion: 1\ndatasources:\n  - name: x\n    name: y\n"
HOOK = {"uid": "hook1", "type": "webhook", "settings": {"url": "http://127.0.0.1:1/"}}


def contact(**changes: Any) -> dict[str, Any]:
    receiver = {key: value for key, value in {**HOOK, **changes}.items() if value is not None}
    return {"apiVersion": 1, "contactPoints": [{"orgId": 1, "name": "house", "receivers": [receiver]}]}


FAULTS = {
    "bad YAML": ("datasources", BAD_YAML, "Datasource provisioning error: yaml: line 2: did not find expected"),
    "key twice": ("datasources", DUPLICATE_KEY, 'line 4: mapping key "name" already defined at line 3'),
    "no name": (
        "datasources",
        NO_NAME,
        "unique identifier and org id are needed to be able to get or delete a datasource",
    ),
    "uid twice": ("datasources", UID_TWICE, "data source with the same uid already exists"),
    "two defaults": (
        "datasources",
        TWO_DEFAULTS,
        "datasource.yaml config is invalid. Only one datasource per organization can be marked as default",
    ),
    "missing file in a value": (
        "datasources",
        sources(source(secureJsonData={"password": "$__file{/no/such/file}"})),
        "stat /no/such/file: no such file or directory",
    ),
    "rule's uid too long": (
        "alerting",
        alerting(rule("x" * 41)),
        f"cannot create rule with UID '{'x' * 41}': UID is longer than 40 symbols",
    ),
    "odd interval": (
        "alerting",
        alerting(rule("x"), interval="7s"),
        "interval (7s) should be non-zero and divided exactly by scheduler interval: 10",
    ),
    "interval without unit": ("alerting", alerting(rule("x"), interval="60"), 'not a valid duration string: \\"60\\"'),
    "unknown state for no data": (
        "alerting",
        alerting(rule("x", noDataState="Bogus", title="Device silent")),
        "rule 'Device silent' failed to parse: unknown NoData state option Bogus",
    ),
    "unknown state for errors": (
        "alerting",
        alerting(rule("x", execErrState="Bogus")),
        "rule 'Rule x' failed to parse: unknown Error state option Bogus",
    ),
    "no title": ("alerting", alerting(rule("x", title="")), "failure parsing rules: rule has no title set"),
    "no uid": ("alerting", alerting(rule("")), "rule 'Rule ' failed to parse: no UID set"),
    "no data": (
        "alerting",
        alerting({**rule("x"), "data": []}),
        "rule 'Rule x' failed to parse: no data set",
    ),
    "no condition": (
        "alerting",
        alerting(rule("x", condition="")),
        "rule 'Rule x' failed to parse: no condition set",
    ),
    "bad pause": ("alerting", alerting(rule("x", **{"for": "soon"})), "rule 'Rule x' failed to parse 'for' field: "),
    "no folder": (
        "alerting",
        {"apiVersion": 1, "groups": [{"name": "g", "interval": "10s", "rules": []}]},
        "rule group has no folder set",
    ),
    "unknown contact point": ("alerting", contact(type="wobhook"), "notifier wobhook is not supported"),
    "no settings": ("alerting", contact(settings=None), "failure parsing contact points: house: no settings are set"),
    "no address": ("alerting", contact(type="email", settings={"x": 1}), "could not find addresses in settings"),
    "no url": ("alerting", contact(settings={"x": 1}), "required field 'url' is not specified"),
    "policy for nobody": (
        "alerting",
        {"apiVersion": 1, "policies": [{"orgId": 1, "receiver": "nobody"}]},
        "[alerting.notifications.routes.invalidFormat] Invalid format of the submitted route.",
    ),
    "rule for nobody": (
        "alerting",
        alerting(rule("x", notification_settings={"receiver": "nobody"})),
        "receiver nobody does not exist",
    ),
    "bad alerting YAML": ("alerting", BAD_YAML, "failure to parse file test.yaml: yaml: line 2: did not find expected"),
    "bad provider": ("dashboards", BAD_YAML, "could not parse provisioning config file: test.yaml error: yaml: line 2"),
    "provider without a path": (
        "dashboards",
        {"apiVersion": 1, "providers": [{"name": "x", "type": "file"}]},
        "failed to load dashboards, path param is not a string",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_an_invalid_file_ends_the_server(server, name):
    topic, content, complaint = FAULTS[name]
    server.provision(topic, content)
    server.launch()
    assert server.wait_for_end() == 1
    assert complaint in server.log, server.log[-3000:]


def test_a_missing_file_in_the_configuration_ends_it(server):
    (server.directory / "admin_password").unlink()
    server.launch()
    assert server.wait_for_end() == 1
    path = f"{server.directory}/admin_password"
    expected = f"got error while expanding security.admin_password with expander 'file': stat {path}: no such file"
    assert expected in server.log


# --- invalid files that do not end the server --------------------------------------------------------------------


def test_invalid_keys_of_a_data_source_are_ignored(server):
    odd = source(name="Odd", uid="odd", isDefault=False, nosuchkey=1, access="bogus")
    untyped = {"name": "Untyped", "uid": "untyped"}
    server.provision("datasources", sources(source(), odd, untyped))
    server.start()
    assert {entry["uid"] for entry in server.get("/api/datasources")} == {"influx", "odd", "untyped"}
    assert "invalid access value, will use 'proxy' instead" in server.log


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{nonsense", "failed to load dashboard from"),
        (dashboard("bad", ""), "Dashboard title cannot be empty"),
        (dashboard("x" * 41, "Too long"), "uid too long, max 40 characters"),
        (dashboard("ä", "Illegal"), "uid contains illegal characters"),
    ],
    ids=["no JSON", "no title", "uid too long", "uid illegal"],
)
def test_an_invalid_dashboard_is_skipped_and_the_others_are_read(server, content, complaint):
    server.dashboard("bad.json", content)
    server.dashboard("good.json", dashboard("good", "Good"))
    server.start()
    wait_for(lambda: uids(server) == {"good"}, "the good one found")
    assert complaint in server.log


def test_text_after_the_end_of_a_dashboard_is_ignored(server):
    server.dashboard("a.json", json.dumps(dashboard("a", "A")) + "\nrubbish")
    server.start()
    wait_for(lambda: uids(server) == {"a"}, "dashboard found")


@pytest.mark.parametrize(
    ("second", "complaint"),
    [
        (dashboard("a", "Other"), "the same UID is used more than once"),
        (dashboard("b", "A"), "dashboard title is not unique in folder"),
    ],
    ids=["uid", "title"],
)
def test_duplicates_stop_all_updates(server, second, complaint):
    server.dashboard("a.json", dashboard("a", "A"))
    server.dashboard("b.json", second)
    server.start()
    wait_for(lambda: complaint in server.log, "the complaint")
    assert "provider has no database write permissions because of duplicates" in server.log
    server.dashboard("c.json", dashboard("c", "C"))
    time.sleep(4)
    assert "c" not in uids(server)


def test_a_missing_directory_of_dashboards_does_not_end_the_server(server):
    provider = {"name": "x", "type": "file", "options": {"path": "/no/such/directory"}}
    server.provision("dashboards", {"apiVersion": 1, "providers": [provider]})
    server.start()
    assert "Cannot read directory" in server.log
    assert "Failed to provision config" in server.log
    assert server.call("GET", "/api/health").status == 200


def test_a_contact_point_in_use_is_not_deleted(server):
    settings = {"notification_settings": {"receiver": "house"}}
    server.provision("alerting", {**alerting(rule("one", **settings)), **contact()})
    server.start()
    (listed,) = server.get("/api/v1/provisioning/alert-rules")
    assert listed["notification_settings"] == {"receiver": "house"}
    deletion = {"apiVersion": 1, "deleteContactPoints": [{"orgId": 1, "uid": "hook1"}]}
    server.provision("alerting", deletion)
    assert server.call("POST", "/api/admin/provisioning/alerting/reload").status == 500
    deletion["deleteRules"] = [{"orgId": 1, "uid": "one"}]
    server.provision("alerting", deletion)
    assert server.call("POST", "/api/admin/provisioning/alerting/reload").status == 200
    assert [entry["uid"] for entry in server.get("/api/v1/provisioning/contact-points")] == [""]


def test_the_last_of_two_rules_with_the_same_uid_wins(server):
    twice = copy.deepcopy(alerting(rule("one"), rule("two", title="Rule one")))
    twice["groups"].append({**twice["groups"][0], "name": "second", "rules": [rule("one", title="Rule two")]})
    server.provision("alerting", twice)
    server.start()
    listed = {entry["uid"]: entry["ruleGroup"] for entry in server.get("/api/v1/provisioning/alert-rules")}
    assert listed["one"] == "second"


def test_a_folder_with_a_uid_is_not_the_folder_with_the_same_title(server):
    """Alert rules create their folder by title; a provider with a uid creates a second one."""
    server.provision("alerting", alerting(rule("one")))
    provider = {
        "name": "x",
        "folder": "tig-pi",
        "folderUid": "own",
        "type": "file",
        "options": {"path": str(server.directory / "dashboards")},
    }
    server.provision("dashboards", {"apiVersion": 1, "providers": [provider]})
    server.dashboard("a.json", dashboard("a", "A"))
    server.start()
    wait_for(lambda: uids(server) == {"a"}, "dashboard found")
    assert [folder["title"] for folder in server.get("/api/folders")] == ["tig-pi", "tig-pi"]


def test_without_http_addr_the_server_listens_on_all_addresses(home, tmp_path):
    own = Grafana(home, tmp_path, INI.replace("http_addr = 127.0.0.1", "http_addr ="))
    try:
        own.start()
        for host in ("127.0.0.1", "::1"):
            with socket.create_connection((host, own.port), timeout=5):
                pass
    finally:
        own.stop()
