"""A reading crosses from one Pi to the other, and nobody gets in on the way."""

from __future__ import annotations

import urllib.error
import urllib.request

import pytest

testinfra_hosts = ["ansible://databases"]


def test_a_reading_travels_from_one_pi_to_the_other(verify):
    result = verify()
    assert result.returncode == 0, result.stdout


def test_the_database_listens_to_the_other_pi_and_lets_nobody_in_without_an_account(pis):
    data = pis["data"]
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"http://{data.address}:{data.port(8086)}/query?q=SHOW+DATABASES", timeout=10)
    assert refused.value.code == 401


def test_each_pi_runs_its_own_services_and_no_other(host):
    units = host.run_expect([0], "systemctl list-unit-files --no-legend --plain --state=enabled").stdout
    enabled = {line.split()[0] for line in units.splitlines()}
    assert {"influxdb.service", "grafana-server.service"} <= enabled
    assert not {"mosquitto.service", "telegraf.service", "node-red.service"} & enabled
