"""State files that are not repaired automatically: `make repair` lists and repairs them."""

from __future__ import annotations

testinfra_hosts = ["ansible://servers"]

META, FLOWS = "/var/lib/influxdb/meta/meta.db", "/var/lib/node-red/flows.json"


def test_repair_repairs_what_a_start_does_not(host, publish, rows, playbook, verify):
    publish("tig/matslopy4/reading", '{"outsidetemp": 12.5, "time": 1704060000}', "matslopy4")
    count = "SELECT count(outsidetemp) FROM mqtt_consumer WHERE device = 'matslopy4' AND time < '2024-01-01T00:00:00Z'"
    host.run_expect([0], "systemctl kill --signal=KILL influxdb node-red; systemctl stop influxdb node-red")
    host.run_expect([0], "rm -rf /var/lib/tig-pi/influxdb/copies /var/lib/node-red/.flows.json.backup")
    for path in (META, FLOWS):
        host.run_expect([0], f"truncate --size=0 {path}")
    host.run_expect([0], "systemctl start influxdb node-red")
    assert not host.service("influxdb").is_running

    before = host.check_output(f"sha256sum {META} {FLOWS}")
    plan = playbook("repair.yml", "--check")
    printed = " ".join(plan.stdout.split())
    assert f"{META} is empty" in printed
    assert f"{FLOWS} is empty" in printed
    assert host.check_output(f"sha256sum {META} {FLOWS}") == before

    run = playbook("repair.yml")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "Lost: " in run.stdout
    assert rows(count)
    assert verify().returncode == 0
    assert "No state file is damaged" in playbook("repair.yml", "--check").stdout
