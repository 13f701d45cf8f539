"""Which variables count: what a site sets in its inventory, over what playbooks/group_vars/all hands to the roles."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY

HOSTS = {
    "site": {
        "children": {
            "servers": {"hosts": {"pi": {"ansible_connection": "local"}}},
            **{name: {"children": {"servers": {}}} for name in ("brokers", "databases", "collectors")},
            **{name: {"children": {"servers": {}}} for name in ("dashboards", "flows")},
        }
    }
}
SHOWN = (
    "base_feed",
    "base_feed_fingerprint",
    "grafana_home_page",
    "grafana_dashboards",
    "influxdb_users",
    "mosquitto_settle_time",
    "site_database_admin_password",
    "site_database_reader_user",
    "site_grafana_admin_password",
    "site_node_red_admin_password",
    "site_broker_port",
    "site_database_port",
    "site_grafana_url",
    "site_influxdb_url",
    "site_name",
)


@pytest.fixture
def shown(ansible_playbook, tmp_path):
    """What a play beside group_vars/all sees on the Pi, with these files in the inventory."""

    def run(**files: dict) -> tuple[dict, str]:
        inventory = tmp_path / "inventory"
        inventory.mkdir()
        (inventory / "hosts.yml").write_text(yaml.safe_dump(files.pop("hosts", HOSTS)))
        for name, variables in files.items():
            path = inventory / f"{name.replace('__', '/')}.yml"
            path.parent.mkdir(exist_ok=True)
            path.write_text(yaml.safe_dump(variables))
        shutil.copytree(REPOSITORY / "playbooks/group_vars", tmp_path / "group_vars")
        show = {"ansible.builtin.copy": {"content": "{{ shown }}", "dest": str(tmp_path / "shown.json")}}
        show["vars"] = {"shown": "{{ dict(names | zip(query('vars', *names))) | to_json }}"}
        show["vars"]["names"] = list(SHOWN)
        problems = {"ansible.builtin.debug": {"msg": "{{ query('tig_pi.stack.outranked_variables') }}"}}
        play = {"hosts": "pi", "gather_facts": False, "tasks": [problems, show]}
        result = ansible_playbook(yaml.safe_dump([play]))
        assert result.returncode == 0, result.stdout
        return json.loads((tmp_path / "shown.json").read_text()), " ".join(result.stdout.split())

    return run


def test_what_a_site_sets_counts_for_every_role(shown):
    values, said = shown(
        group_vars__site={"site_name": "mine", "grafana_home_page": "d/own", "grafana_dashboards": []},
        host_vars__pi={"influxdb_users": [], "mosquitto_settle_time": 3},
    )
    assert (values["site_name"], values["grafana_home_page"], values["grafana_dashboards"]) == ("mine", "d/own", [])
    assert (values["influxdb_users"], values["mosquitto_settle_time"]) == ([], 3)
    assert "has no effect" not in said


def test_without_internet_the_feed_of_the_site_is_used_also_before_it_has_a_fingerprint(shown):
    """Role base then names what is missing: the feed, or the fingerprint of its key."""
    values, _ = shown(group_vars__site={"site_offline": True})
    assert values["base_feed"].endswith("/feed/inventory")
    assert values["base_feed_fingerprint"] == ""


def test_ports_that_a_site_sets_for_a_role_count_everywhere(shown):
    values, _ = shown(
        host_vars__pi={
            "mosquitto_listeners": [{"port": 2883}],
            "influxdb_http_bind_address": "127.0.0.1:9086",
            "grafana_http_port": 3333,
        }
    )
    assert (values["site_broker_port"], values["site_database_port"]) == (2883, 9086)
    assert values["site_influxdb_url"] == "http://127.0.0.1:9086"
    assert values["site_grafana_url"] == "http://127.0.0.1:3333"


def test_accounts_that_a_site_sets_for_a_role_are_used_by_status_and_verify(shown):
    source = {"name": "own", "uid": "influx", "user": "reader", "secureJsonData": {"password": "secret-1"}}
    values, _ = shown(
        host_vars__pi={
            "influxdb_admin": {"name": "root", "password": "secret-2"},
            "grafana_datasources": [source],
            "grafana_admin_password": "secret-3",
            "node_red_admin_password": "secret-4",
        }
    )
    assert values["site_database_reader_user"] == "reader"
    passwords = (f"site_{name}_admin_password" for name in ("database", "grafana", "node_red"))
    assert [values[name] for name in passwords] == ["secret-2", "secret-3", "secret-4"]


def test_a_variable_in_group_all_is_reported_with_the_place_where_it_takes_effect(shown):
    values, said = shown(group_vars__all={"site_name": "lost", "telegraf_version": "1.39.*", "of_my_own": 1})
    assert values["site_name"] == "home"
    assert "inventory/group_vars/all.yml sets site_name, which has no effect there" in said
    assert "inventory/group_vars/site.yml, and have all hosts in group site" in said


def test_variables_in_hosts_yml_are_reported_with_the_place_where_they_take_effect(shown):
    hosts = {
        "all": {"vars": {"site_name": "lost"}},
        "site": HOSTS["site"] | {"vars": {"grafana_home_page": "lost", "telegraf_version": "1.39.*"}},
    }
    values, said = shown(hosts=hosts)
    assert (values["site_name"], values["grafana_home_page"]) == ("home", "d/readings")
    assert "group all, sets site_name, which has no effect there" in said
    assert "Move it to group_vars/site.yml beside it" in said
    assert "group site, sets grafana_home_page, which has no effect there" in said
    assert "telegraf_version" not in said


@pytest.mark.parametrize("playbook", ["playbooks/validate.yml", "tig_pi.stack.validate", "own.yml"])
def test_every_path_to_the_playbooks_reads_their_variables(playbook, tmp_path):
    """In a clone, by its name in the collection, and imported from a playbook of one's own."""
    inventory = tmp_path / "inventory"
    (inventory / "group_vars").mkdir(parents=True)
    (inventory / "hosts.yml").write_text(yaml.safe_dump(HOSTS))
    (inventory / "group_vars/site.yml").write_text("site_timezone: Europe/Stockholn\n")
    if playbook == "own.yml":
        playbook = tmp_path / playbook
        playbook.write_text("- import_playbook: tig_pi.stack.validate\n")
    result = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "-i", inventory, playbook],
        cwd=REPOSITORY,
        env={**os.environ, "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2, result.stdout + result.stderr
    [problem] = re.findall(r"^ +- (.*)$", result.stdout, re.MULTILINE)
    assert "unknown time zone" in problem
