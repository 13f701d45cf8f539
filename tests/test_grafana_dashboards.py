"""The dashboards and alert rules of templates/grafana: for every kind of site, and asked of a real database."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import paho.mqtt.publish
import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import lookup_loader
from ansible.template import Templar
from ansible_collections.tig_pi.stack.plugins.filter import site_description
from chain import running, wait_until
from project import PROBE, REPOSITORY

TEMPLATES = REPOSITORY / "templates/grafana"
READINGS = [
    {
        "field": "outsidetemp",
        "title": "Temperature",
        "unit": "celsius",
        "minimum": -10,
        "maximum": 50,
        "low": 2,
        "high": 38,
    },
    {"field": "airpressure", "title": 'Air "pressure"', "unit": "pressurehpa", "minimum": 950, "maximum": 1060},
    {"field": "soilhumidity", "title": "Jordfuktighet åäö: 100 %", "unit": "percentunit", "low": 0.2, "decimals": 1},
    {"field": "light", "title": "Light", "unit": "lux", "high": 1000.5},
]
DEFAULTS = yaml.safe_load((REPOSITORY / "playbooks/group_vars/all/10_site.yml").read_text())


def site_of(name: str) -> dict:
    """The variables of an inventory as far as the templates see them."""
    folder = REPOSITORY / "inventories" / name
    variables = dict(DEFAULTS)
    for path in (folder / "group_vars/site").glob("*.yml"):
        variables |= yaml.safe_load(path.read_text())
    hosts = yaml.safe_load((folder / "hosts.yml").read_text())["site"]["children"]["devices"]["hosts"]
    hostvars = {host: yaml.safe_load((folder / f"host_vars/{host}.yml").read_text()) for host in hosts}
    devices = site_description.site_devices(list(hosts), hostvars, variables["site_readings"], "tig")
    return {**variables, "site_devices": devices}


def site(devices: dict[str, list[dict]], readings: list[dict] = READINGS, **more) -> dict:
    own = [{"name": name, "topic": f"tig/{name}", "fields": fields} for name, fields in devices.items()]
    return {**DEFAULTS, "site_readings": readings, "site_devices": own, **more}


SITES = {
    "demo": lambda: site_of("demo"),
    "home": lambda: site_of("home"),
    "nothing": lambda: site({}, []),
    "no devices yet": lambda: site({}),
    "one reading": lambda: site({"a": READINGS[1:2]}),
    "three readings": lambda: site({"a": READINGS[:3], "b": READINGS}),
    "long names": lambda: site({"d" * 40: READINGS, "d" * 39 + "e": READINGS}),
    "somebody is told": lambda: site({"a": READINGS}, grafana_contact_points=[{"name": "My house", "type": "email"}]),
    "backups": lambda: site({"a": READINGS}, site_backup_targets=[{"name": "stick"}]),
    "own retention policy": lambda: site({"a": READINGS}, site_host_retention_policy="host"),
}


def provisioned(variables: dict) -> dict:
    """What the role's lookup makes of the templates."""
    variables = {"ansible_search_path": [str(REPOSITORY)], **variables}
    loader = DataLoader()
    templar = Templar(loader=loader, variables=variables)
    lookup = lookup_loader.get("tig_pi.stack.grafana_content", loader=loader, templar=templar)
    receivers = [point["name"] for point in variables.get("grafana_contact_points", [])]
    boards = [
        {"name": name, "folder": "tig-pi", "template": str(TEMPLATES / f"{name}.yml.j2")} for name in ("readings", "pi")
    ]
    rules = [str(TEMPLATES / "alerts.yml.j2")]
    return lookup.run([], variables, dashboards=boards, alerting=rules, datasources=["influx"], receivers=receivers)[0]


def dashboards(content: dict) -> dict[str, dict]:
    texts = [file["content"] for file in content["files"] if file["dest"].endswith(".json")]
    return {board["uid"]: board for board in map(json.loads, texts)}


def rules(content: dict) -> dict[str, dict]:
    texts = [file["content"] for file in content["files"] if file["dest"].endswith("alerts.yaml")]
    groups = [group for text in texts for group in yaml.safe_load(text)["groups"]]
    return {rule["uid"]: rule for group in groups for rule in group["rules"]}


def panels(board: dict) -> list[dict]:
    return [one for panel in board["panels"] for one in (panel, *panel.get("panels", []))]


def queries(content: dict) -> dict[str, str]:
    """Every InfluxQL query by where it stands."""
    found = {}
    for uid, board in dashboards(content).items():
        for variable in board["templating"]["list"]:
            found[f"{uid}/variable {variable['name']}"] = variable["query"]
        for panel in panels(board):
            for target in panel.get("targets", []):
                found[f"{uid}/{panel['id']} {panel['title'] or panel['type']}/{target['refId']}"] = target["query"]
    for uid, rule in rules(content).items():
        for step in rule["data"]:
            if step["datasourceUid"] != "__expr__":
                found[f"{uid}/{step['refId']}"] = step["model"]["query"]
    return found


@pytest.fixture(params=SITES, scope="module")
def content(request):
    return provisioned(SITES[request.param]())


def test_panels_do_not_overlap_and_have_their_own_ids(content):
    for board in dashboards(content).values():
        ids = [panel["id"] for panel in panels(board)]
        assert len(ids) == len(set(ids))
        taken = set()
        for panel in board["panels"]:
            grid = panel["gridPos"]
            cells = {
                (x, y) for x in range(grid["x"], grid["x"] + grid["w"]) for y in range(grid["y"], grid["y"] + grid["h"])
            }
            assert not taken & cells, panel["title"]
            assert max(x for x, _ in cells) < 24, panel["title"]
            taken |= cells


def test_rows_of_panels_are_full(content):
    """No hole at the right edge: what stands side by side fills the width."""
    for board in dashboards(content).values():
        for y in {panel["gridPos"]["y"] for panel in board["panels"]}:
            width = sum(
                panel["gridPos"]["w"]
                for panel in board["panels"]
                if panel["gridPos"]["y"] <= y < panel["gridPos"]["y"] + panel["gridPos"]["h"]
            )
            assert width == 24, (board["uid"], y)


def test_every_data_source_is_the_provisioned_one(content):
    for board in dashboards(content).values():
        for thing in [*panels(board), *(target for panel in panels(board) for target in panel.get("targets", []))]:
            if thing.get("type") != "row":
                assert thing["datasource"] == {"type": "influxdb", "uid": "influx"}
    for rule in rules(content).values():
        assert {step["datasourceUid"] for step in rule["data"]} == {"influx", "__expr__"}


def test_no_dashboard_shows_the_probe(content):
    for where, query in queries(content).items():
        if (
            re.search(r'FROM "(mqtt_consumer|device_status)"', query)
            and '"device" = ' not in query
            and "FIELD KEYS" not in query
        ):
            assert f"\"device\" != '{PROBE}'" in query, where


def test_dashboards_have_the_tested_schema_version(content):
    for board in dashboards(content).values():
        assert board["schemaVersion"] == 42
        assert board["uid"] in ("readings", "pi")


def test_every_device_and_every_threshold_has_a_rule():
    content = provisioned(site({"a": READINGS, "b": READINGS[1:2]}))
    assert set(rules(content)) == {
        "silent-a",
        "silent-b",
        "range-a-outsidetemp",
        "range-a-soilhumidity",
        "range-a-light",
        "disk",
        "pipeline-stalled",
    }


def test_a_uid_is_shortened_to_grafana_s_limit_and_stays_unique():
    found = set(rules(provisioned(SITES["long names"]())))
    assert all(len(uid) <= 40 for uid in found)
    assert len(found) == 2 * (1 + 3) + 2


def test_the_messages_of_rules_describe_the_problem_and_the_fix():
    for uid, rule in rules(provisioned(SITES["somebody is told"]())).items():
        assert len(rule["annotations"]["summary"]) > 20, uid
        assert len(rule["annotations"]["description"]) > 80, uid
        assert rule["notification_settings"] == {"receiver": "My house"}
        assert rule["noDataState"] == ("Alerting" if uid.startswith(("silent-", "pipeline-")) else "OK")
    for rule in rules(provisioned(site({"a": READINGS}))).values():
        assert "notification_settings" not in rule


def test_limits_of_readings_become_thresholds():
    found = rules(provisioned(site({"a": READINGS})))

    def evaluator(uid):
        return found[uid]["data"][-1]["model"]["conditions"][0]["evaluator"]

    assert evaluator("range-a-outsidetemp") == {"type": "outside_range", "params": [2, 38]}
    assert evaluator("range-a-soilhumidity") == {"type": "lt", "params": [0.2]}
    assert evaluator("range-a-light") == {"type": "gt", "params": [1000.5]}
    dial = next(
        panel
        for panel in dashboards(provisioned(site({"a": READINGS})))["readings"]["panels"]
        if panel["type"] == "gauge"
    )
    defaults = dial["fieldConfig"]["defaults"]
    assert (defaults["min"], defaults["max"], defaults["unit"]) == (-10, 50, "celsius")
    assert [step["value"] for step in defaults["thresholds"]["steps"]] == [None, 2, 38]


# Asked of the real chain: the broker, Telegraf with the templates of this repository, and the database.

AGENT = """
[agent]
  interval = "1s"
  flush_interval = "1s"
  hostname = "raspberrypi"
  skip_processors_after_aggregators = true
"""
# What a container or a desktop may not have.
OPTIONAL = ("Temperature", "temp")


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """A database that the repository's own Telegraf has filled, and what is provisioned for its site."""
    directory: Path = tmp_path_factory.mktemp("chain")
    with running(directory, agent=AGENT) as chain:
        now = int(time.time())
        status = {"state": "online", "version": "1.0.0", "reset": "power_on", "uptime": 5, "free": 60000}
        status |= {"waiting_for": "none", "failed": [], "held": 0, "dropped": 0}
        messages = [{"topic": "tig/a/reading", "payload": "no JSON", "qos": 1}]
        for device in ("a", "b", PROBE):
            messages.append({"topic": f"tig/{device}/status", "payload": json.dumps(status), "qos": 1})
            for back in range(3):
                reading = {"outsidetemp": 20, "airpressure": 1000, "soilhumidity": 0.5, "light": 5, "time": now - back}
                messages.append({"topic": f"tig/{device}/reading", "payload": json.dumps(reading), "qos": 1})
        paho.mqtt.publish.multiple(messages, hostname="127.0.0.1", port=chain.mqtt_port)
        for measurement in (
            "device_status",
            "mqtt_consumer",
            "pipeline",
            "mosquitto",
            "internal_write",
            "system",
            "disk",
        ):
            wait_until(lambda m=measurement: chain.query(f'SELECT * FROM "{m}" LIMIT 1'), f"{measurement} is there", 60)
        wait_until(
            lambda: chain.query("SELECT * FROM mosquitto WHERE publish_messages_received > 0"), "the broker counts", 60
        )
        time.sleep(3)  # differences need points of several seconds
        yield chain


def asked(query: str) -> str:
    """The query as Grafana sends it."""
    for variable, value in {
        "$timeFilter": "time >= now() - 1h",
        "$__interval": "1s",
        "$host": "raspberrypi",
        "$device": "(a|b)",
        "$field": "outsidetemp",
    }.items():
        query = query.replace(variable, value)
    assert "$" not in query.replace("$/", ""), query
    return query


def values(series: list[dict]) -> list:
    return [value for one in series for row in one["values"] for value in row[1:] if value is not None]


def test_every_query_returns_data(database):
    ages = ",".join(f"{field}=1" for field in (*BACKUPS, "age", "proven_age"))
    database.write(f"backup,host=raspberrypi,target=stick {ages} {int(time.time() - 300) * 10**9}")
    content = provisioned(site({"a": READINGS, "b": READINGS[:3]}, site_backup_targets=[{"name": "stick"}]))
    found = queries(content)
    assert len(found) > 40
    empty = [where for where, query in found.items() if not values(database.query(asked(query)))]
    assert [where for where in empty if not any(word in where for word in OPTIONAL)] == []


BACKUPS = ("failed", "late", "drill_failed", "drill_aborted", "drill_late")


def test_alerts_about_backups_end_with_their_cause(database):
    """Each target is reported for itself, but a drill that could not be carried out only once."""
    found = queries(provisioned(site({"a": READINGS}, site_backup_targets=[{"name": "stick"}])))
    found = {where: query for where, query in found.items() if where.startswith(("backup-", "drill-"))}
    assert len(found) == len(BACKUPS)
    for ago, stick, laptop, expected in ((120, 1, 1, {1}), (60, 0, 1, {0, 1}), (1, 0, 0, {0})):
        for target, value in (("stick", stick), ("laptop", laptop)):
            fields = ",".join(f"{field}={value}" for field in BACKUPS)
            database.write(f"backup,host=raspberrypi,target={target} {fields} {int(time.time() - ago) * 10**9}")
        for where, query in found.items():
            wanted = {max(expected)} if where.startswith("drill-aborted/") else expected
            assert set(values(database.query(asked(query)))) == wanted, where


def test_the_last_reading_of_a_device_is_a_time(database):
    found = queries(provisioned(site({"a": READINGS})))
    query = next(query for where, query in found.items() if "Last reading" in where)
    [series] = database.query(asked(query))
    assert abs(series["values"][0][0] / 1e9 - time.time()) < 300


def test_the_table_of_devices_has_a_line_for_each(database):
    found = queries(provisioned(site({"a": READINGS, "b": READINGS})))
    for query in [query for where, query in found.items() if "/table/" in where or "pi/2 " in where]:
        assert {series["tags"]["device"] for series in database.query(asked(query))} == {"a", "b"}


def test_a_point_from_the_future_does_not_hide_others(database):
    """Neither the real values nor a device's silence, from people or from alerts."""
    tomorrow = (int(time.time()) + 80000) * 10**9
    later = {
        "mqtt_consumer,device=a outsidetemp=77,airpressure=77,soilhumidity=77,light=77",
        'device_status,device=a online=77,held=77,uptime=77,free=77,dropped=77,waiting_for="77"',
        "disk,host=raspberrypi,path=/ used_percent=77",
    }
    database.write(*(f"{line} {tomorrow}" for line in sorted(later)))
    found = queries(provisioned(site({"a": READINGS, "b": READINGS})))
    told = {
        where: database.query(asked(query))
        for where, query in found.items()
        if "$timeFilter" not in query and "FIELD KEYS" not in query  # Grafana's own filter ends now
    }
    assert len(told) > 10
    for where, series in told.items():
        assert not {77, "77", tomorrow} & {cell for one in series for row in one["values"] for cell in row}, where


def test_a_reading_from_the_future_does_not_count_as_recent(database):
    tomorrow = (int(time.time()) + 80000) * 10**9
    database.write(f"mqtt_consumer,device=silent outsidetemp=20 {tomorrow}")
    query = queries(provisioned(site({"silent": READINGS})))["silent-silent/A"]
    assert values(database.query(query)) == []
