"""No program takes more than its share of a Pi with 1 GB, however many names and points the database has."""

from __future__ import annotations

import json
import re
import time
import urllib.parse

import pytest
import yaml
from ansible_collections.tig_pi.stack.plugins.filter import status
from chain import Chain, free_port, render, wait_until
from project import REPOSITORY

SERVICES = {
    "mosquitto": "mosquitto.service.conf.j2",
    "influxdb": "influxdb.service.conf.j2",
    "telegraf": "telegraf.service.conf.j2",
    "grafana": "grafana-server.service.conf.j2",
    "node_red": "node-red.service.j2",
}


def rendered(role: str, template: str, **more) -> str:
    """A template of a role with its defaults and its own variables."""
    variables = {"ansible_managed": "Ansible managed"}
    for part in ("defaults", "vars"):
        variables |= yaml.safe_load((REPOSITORY / f"roles/{role}/{part}/main.yml").read_text())
    return render(REPOSITORY / f"roles/{role}/templates/{template}", variables | more)


# What the kernel counts, and takes back whenever it needs it: pages of a program file. Grafana's as seen of 12.2 with 12
# devices, Telegraf's estimated by the size of the vendor's program.
FILE_PAGES = {"grafana": 192, "telegraf": 128}


def test_the_shares_are_those_of_a_pi_with_one_gigabyte():
    shares = {}
    for role, template in SERVICES.items():
        unit = rendered(role, template)
        shares[role] = int(re.search(r"^MemoryMax=(\d+)M$", unit, re.MULTILINE)[1]) - FILE_PAGES.get(role, 0)
        if go := re.search(r"GOMEMLIMIT=(\d+)MiB", unit):
            assert 0.85 * shares[role] < int(go[1]) < shares[role]
    assert sum(shares.values()) <= 1.05 * 1024, shares


@pytest.fixture(scope="module")
def flooded(tmp_path_factory) -> Chain:
    """The role's own configuration, and a database that a flood of names has reached before there was a limit to it."""
    chain = Chain(tmp_path_factory.mktemp("flooded") / "chain")
    configuration = chain.directory / "influxdb.conf"
    text = rendered("influxdb", "influxdb.conf.j2", influxdb_http_bind_address=f"127.0.0.1:{chain.http_port}")
    text = text.replace("/var/lib/influxdb", f"{chain.directory}/influxdb").replace(":8088", f":{free_port()}")
    configuration.write_text(text)
    share = re.search(r"GOMEMLIMIT=\w+", rendered("influxdb", "influxdb.service.conf.j2"))[0].split("=")
    chain.database.environment |= dict([share])
    chain.start_database()
    try:
        chain.create()
        now = time.time_ns()
        for first in range(0, 5000, 500):
            chain.write(
                *(f"mqtt_consumer,device=d{number} outsidetemp=1 {now}" for number in range(first, first + 500))
            )
        for first in range(0, 1000, 500):
            fields = ",".join(f"f{number}=1" for number in range(first, first + 500))
            chain.write(f"mqtt_consumer,device=greenhouse {fields} {now}")
        yield chain
    finally:
        chain.stop()


def memory(chain: Chain) -> int:
    """The most that the database had resident, in MB."""
    status = open(f"/proc/{chain.database.process.pid}/status").read()  # noqa: SIM115
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) // 1024


@pytest.mark.parametrize(
    "query",
    [
        'SELECT * FROM "mqtt_consumer" GROUP BY "device" ORDER BY time DESC LIMIT 1',
        'SELECT mean(*) FROM "mqtt_consumer" GROUP BY *',
        'SELECT mean(*) INTO "iot"."averages".:MEASUREMENT FROM "mqtt_consumer" WHERE time > now() - 1h GROUP BY time(10m), *',
        'SELECT last("outsidetemp") FROM "mqtt_consumer" WHERE "device" =~ /.*/ GROUP BY "device"',
    ],
)
def test_a_query_that_would_need_too_much_memory_is_refused(flooded, query):
    with pytest.raises(RuntimeError, match="max-select-series limit exceeded"):
        flooded.query(query)
    assert memory(flooded) < 320


def test_a_query_with_too_many_intervals_is_refused(flooded):
    with pytest.raises(RuntimeError, match="max-select-buckets limit exceeded"):
        flooded.query('SELECT mean("outsidetemp") FROM "mqtt_consumer" WHERE time > now() - 520w GROUP BY time(1s)')


def test_the_cost_of_make_status_depends_on_the_declared_devices_only(flooded):
    readings, devices = [{"field": "outsidetemp"}, {"field": "f1"}], [{"name": "greenhouse"}]
    statements = status.status_queries(devices, readings, "mqtt_consumer", "", 5)
    form = urllib.parse.urlencode({"q": statements, "db": "iot", "epoch": "s"})
    results = json.loads(flooded.ask("query", form.encode()))["results"]
    assert memory(flooded) < 320
    [row] = status.device_states(devices, results, time.time())
    assert row["reading"] == {"f1": 1}
    assert "too many undeclared devices" in " ".join(status.message_notes(results, time.time()))


def test_ordinary_queries_are_still_answered(flooded):
    [series] = flooded.query("SELECT last(f1) FROM mqtt_consumer WHERE device = 'greenhouse'")
    assert series["values"][0][1] == 1
    [series] = flooded.query("SELECT mean(f1) FROM mqtt_consumer WHERE device = 'greenhouse' AND time > now() - 1h")
    assert series["values"][0][1] == 1
    year = [
        f"mqtt_consumer,device=greenhouse outsidetemp=1 {time.time_ns() - week * 604800 * 10**9}" for week in range(60)
    ]
    flooded.write(*year)
    query = "SELECT mean(outsidetemp) FROM mqtt_consumer WHERE device = 'greenhouse' AND time > now() - 52w GROUP BY time(10m)"
    wait_until(lambda: flooded.query(query), "a year of averages is there")
