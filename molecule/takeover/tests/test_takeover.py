"""A Pi that was set up by hand keeps its points and gets accounts, as the inventory describes."""

from __future__ import annotations

import json
import re

testinfra_hosts = ["ansible://servers"]


def influxql(host, inventory, user, statement):
    password = (inventory / "secrets/influxdb" / user).read_text().strip()
    command = "curl -sS -u %s:%s --data-urlencode db=iot --data-urlencode q=%s http://127.0.0.1:8086/query"
    return json.loads(host.run_expect([0], command, user, password, statement).stdout)


def test_the_pi_runs_bookworm(host):
    assert host.system_info.codename == "bookworm"


def test_existing_points_are_kept(host, inventory):
    answer = influxql(host, inventory, "grafana", 'SELECT "outsidetemp", "soilhumidity" FROM "mqtt_consumer"')
    values = answer["results"][0]["series"][0]["values"]
    assert values[0] == ["2021-07-12T12:40:39Z", 25, 0.6999512]
    assert values[1][1:] == [26, None]


def test_status_lists_the_last_points_of_the_old_telegraf(playbook):
    """They have no device, and other tags."""
    result = playbook("status.yml")
    assert result.returncode == 0, result.stdout
    assert re.search(r"\(no device\) +unknown .*outsidetemp=26\n", result.stdout), result.stdout


def test_the_user_of_grafana_can_only_read(host, inventory):
    users = influxql(host, inventory, "admin", "SHOW USERS")["results"][0]["series"][0]["values"]
    assert ["grafana", False] in users
    grants = influxql(host, inventory, "admin", 'SHOW GRANTS FOR "grafana"')["results"][0]["series"][0]["values"]
    assert grants == [["iot", "READ"]]


def test_the_old_apt_source_is_replaced(host):
    assert not host.file("/etc/apt/sources.list.d/influxdb.list").exists
    assert host.file("/etc/apt/sources.list.d/tig-pi-feed.sources").exists


def test_the_database_listens_on_loopback_only(host):
    sockets = host.run_expect([0], "ss -lntH 'sport = :8086'").stdout
    assert "127.0.0.1:8086" in sockets
    assert "*:8086" not in sockets


def test_the_whole_chain_works(playbook):
    """Although the controller has a proxy for the internet, which does not answer here."""
    result = playbook("verify.yml", ANSIBLE_STDOUT_CALLBACK="tig_pi.stack.lines", http_proxy="http://127.0.0.1:9")
    assert result.returncode == 0, result.stdout
