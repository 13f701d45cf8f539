"""From the register of a sensor to Grafana: a virtual LoPy4, programmed over its serial port, publishes readings."""

from __future__ import annotations

import json
import subprocess
import time
from itertools import pairwise

import pytest

testinfra_hosts = ["ansible://servers"]
DEVICE = "matslopy4"


@pytest.fixture
def device(host):
    """Speaks to the virtual LoPy4: what is felt, what is broken."""

    def control(*words):
        command = ["/opt/virtual-lopy4/lopy4.py", "ctl", f"/var/lib/virtual-lopy4/{DEVICE}", *words]
        return host.run_expect([0], " ".join(command)).stdout

    return control


@pytest.fixture(scope="module")
def flashed(playbook):
    """The device after playbooks/flash.yml, which ends when its first reading has arrived at the broker."""
    result = playbook("flash.yml")
    assert result.returncode == 0, result.stdout[-4000:]
    return result


def wait_for(what, seconds=90):
    end = time.monotonic() + seconds
    while not (found := what()) and time.monotonic() < end:
        time.sleep(1)
    return found


def test_what_the_sensors_feel_is_what_grafana_shows(flashed, device, rows):
    device("set", "outsidetemp=17", "outsidehumidity=61", "airpressure=987.6")

    def felt():
        found = rows(f"""SELECT last(*) FROM "mqtt_consumer" WHERE "device" = '{DEVICE}' AND time > now() - 1m""")
        row = {name.removeprefix("last_"): value for name, value in found[0].items()} if found else {}
        return row if (row.get("outsidetemp"), row.get("outsidehumidity")) == (17, 61) else None

    row = wait_for(felt)
    assert row, "the values have not arrived"
    assert row["airpressure"] == pytest.approx(987.6, abs=0.3)
    assert 0 <= row["soilhumidity"] <= 1


def test_a_failed_sensor_is_named_and_the_others_go_on(flashed, device, rows):
    device("sensor", "dht11", "fault=checksum")
    try:

        def named():
            found = rows(f"""SELECT last("failed") AS "failed" FROM "device_status" WHERE "device" = '{DEVICE}'""")
            return found and "dht11" in (found[0]["failed"] or "")

        assert wait_for(named)
        assert rows(
            f"""SELECT "airpressure" FROM "mqtt_consumer" WHERE "device" = '{DEVICE}' AND time > now() - 30s""",
            seconds=60,
        )
    finally:
        device("sensor", "dht11", "fault=none")


def test_readings_made_while_the_wifi_was_away_arrive_with_their_own_time(flashed, device, rows):
    device("wifi", "down")
    gone = time.time()
    time.sleep(50)
    device("wifi", "up")
    back = time.time()
    query = (
        f"""SELECT "airpressure" FROM "mqtt_consumer" WHERE "device" = '{DEVICE}' """
        f"AND time > {int(gone)}s AND time < {int(back)}s"
    )
    # One every 15 seconds, and none of them lost.
    found = rows(query, wanted=3, seconds=120)
    assert len(found) >= 3
    gaps = [(after["Time"] - before["Time"]) / 1000 for before, after in pairwise(found)]
    assert max(gaps) < 20, gaps


def test_status_tells_the_device_for_programs(flashed, project, inventory):
    command = [project / "bin/status", inventory, "--format", "json"]
    result = subprocess.run(command, cwd=project, capture_output=True, text=True, check=True)
    status = json.loads(result.stdout)
    (row,) = [row for row in status["devices"] if row["name"] == DEVICE]
    assert row["state"] == "online"
    assert row["age"] < 60
    assert {service["state"] for service in status["services"]} == {"runs"}
