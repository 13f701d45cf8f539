"""The rule "Readings do not reach the database", asked of a real InfluxDB with Telegraf's own figures in it."""

from __future__ import annotations

import json
import re
import time
import urllib.parse

import pytest
from grafana_server import Influx
from test_grafana_dashboards import READINGS, provisioned, rules, site

RULE = rules(provisioned(site({"a": READINGS})))["pipeline-stalled"]


@pytest.fixture(scope="module")
def influx(tmp_path_factory):
    server = Influx(tmp_path_factory.mktemp("influx")).start()
    try:
        server.query("CREATE USER admin WITH PASSWORD 'admin' WITH ALL PRIVILEGES")
        yield server
    finally:
        server.stop()


def figures(influx, waiting: int, written: list[int]) -> None:
    """What Telegraf and the broker have said of themselves in the last two minutes."""
    influx.query("DROP DATABASE iot; CREATE DATABASE iot")
    now = int(time.time())
    for number, value in enumerate(reversed(written)):
        at = now - 15 * number
        influx.write(
            f"system,host=pi uptime={at} {at}",
            f"mosquitto,host=pi uptime={at} {at}",
            f"internal_write,alias=readings,output=influxdb buffer_size={waiting},metrics_written={value} {at}",
            f"internal_write,alias=host,output=influxdb buffer_size=0,metrics_written={at} {at}",
        )


def fires(influx) -> bool:
    """What comes of the rule's steps: queries, a reduction of each to one number, and a formula."""
    numbers, formula = {}, ""
    for step in RULE["data"]:
        model = step["model"]
        if model.get("type") == "reduce":
            query = next(one["model"]["query"] for one in RULE["data"] if one["refId"] == model["expression"])
            answer = json.loads(influx._post("/query?db=iot", urllib.parse.urlencode({"q": query}).encode()))
            (series,) = answer["results"][0]["series"]
            numbers[model["refId"]] = series["values"][0][1]
        elif model.get("type") == "math":
            formula = model["expression"].replace("||", " or ").replace("&&", " and ")
    return bool(eval(re.sub(r"\$([A-Z])", r"numbers['\1']", formula)))


@pytest.mark.parametrize(
    ("waiting", "written", "wrong"),
    [
        (0, [100, 110, 120, 130], False),
        (300, [100, 500, 900, 1300], False),  # a backlog that is being written
        (0, [100, 100, 100, 100], False),  # nothing comes in
        (300, [100, 100, 100, 100], True),  # received and not written, while all other figures come
    ],
)
def test_the_rule_watches_the_metrics_in_its_name(influx, waiting, written, wrong):
    figures(influx, waiting, written)
    assert fires(influx) is wrong
