"""Roles on two Pis: readings are sent from one to the other, and only with an account."""

from __future__ import annotations

import urllib.error
import urllib.request

import pytest

testinfra_hosts = ["ansible://databases"]


def test_the_whole_chain_works_across_two_pis(verify):
    result = verify()
    assert result.returncode == 0, result.stdout


def test_the_database_listens_in_the_network_and_requires_an_account(pis):
    data = pis["data"]
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(f"http://{data.address}:{data.port(8086)}/query?q=SHOW+DATABASES", timeout=10)
    assert error.value.code == 401


def test_each_pi_runs_only_its_own_services(host):
    units = host.run_expect([0], "systemctl list-unit-files --no-legend --plain --state=enabled").stdout
    enabled = {line.split()[0] for line in units.splitlines()}
    assert {"influxdb.service", "grafana-server.service"} <= enabled
    assert not {"mosquitto.service", "telegraf.service", "node-red.service"} & enabled
