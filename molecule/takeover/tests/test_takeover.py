"""What was measured is kept, and what was wide open is closed."""

from __future__ import annotations

import json
import re

testinfra_hosts = ["ansible://servers"]


def influxql(host, inventory, user, statement):
    password = (inventory / "secrets/influxdb" / user).read_text().strip()
    command = "curl -sS -u %s:%s --data-urlencode db=iot --data-urlencode q=%s http://127.0.0.1:8086/query"
    return json.loads(host.run_expect([0], command, user, password, statement).stdout)


def test_it_has_the_older_release(host):
    assert host.system_info.codename == "bookworm"


def test_what_was_measured_is_still_there(host, inventory):
    answer = influxql(host, inventory, "grafana", 'SELECT "outsidetemp", "soilhumidity" FROM "mqtt_consumer"')
    values = answer["results"][0]["series"][0]["values"]
    assert values[0] == ["2021-07-12T12:40:39Z", 25, 0.6999512]
    assert values[1][1:] == [26, None]


def test_status_has_a_row_for_what_the_old_telegraf_wrote_last(playbook):
    """Its points have no device, and tags that are no readings."""
    result = playbook("status.yml")
    assert result.returncode == 0, result.stdout
    assert re.search(r"\(no device\) +unknown .*outsidetemp=26\n", result.stdout), result.stdout


def test_grafana_s_user_may_read_and_no_more(host, inventory):
    users = influxql(host, inventory, "admin", "SHOW USERS")["results"][0]["series"][0]["values"]
    assert ["grafana", False] in users
    grants = influxql(host, inventory, "admin", 'SHOW GRANTS FOR "grafana"')["results"][0]["series"][0]["values"]
    assert grants == [["iot", "READ"]]


def test_the_old_source_of_packages_is_gone(host):
    assert not host.file("/etc/apt/sources.list.d/influxdb.list").exists
    assert host.file("/etc/apt/sources.list.d/tig-pi-feed.sources").exists


def test_the_database_listens_on_loopback_now(host):
    sockets = host.run_expect([0], "ss -lntH 'sport = :8086'").stdout
    assert "127.0.0.1:8086" in sockets
    assert "*:8086" not in sockets


def test_the_whole_chain_works(playbook):
    """Though the controller has a proxy for the world outside, at which nobody answers here."""
    result = playbook("verify.yml", ANSIBLE_STDOUT_CALLBACK="tig_pi.stack.lines", http_proxy="http://127.0.0.1:9")
    assert result.returncode == 0, result.stdout
