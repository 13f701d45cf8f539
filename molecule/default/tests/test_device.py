"""From the registers of a sensor to Grafana: a virtual LoPy4, programmed over its serial port, publishes readings."""

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
    """Control the virtual LoPy4: set what its sensors measure, and break it."""

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


def wait_for(condition, seconds=90):
    end = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < end:
        time.sleep(1)
    return found


def test_the_values_at_the_sensors_are_the_values_in_grafana(flashed, device, rows):
    device("set", "outsidetemp=17", "outsidehumidity=61", "airpressure=987.6")

    def row_with_these_values():
        found = rows(f"""SELECT last(*) FROM "mqtt_consumer" WHERE "device" = '{DEVICE}' AND time > now() - 1m""")
        row = {name.removeprefix("last_"): value for name, value in found[0].items()} if found else {}
        return row if (row.get("outsidetemp"), row.get("outsidehumidity")) == (17, 61) else None

    row = wait_for(row_with_these_values)
    assert row, "the values have not arrived"
    assert row["airpressure"] == pytest.approx(987.6, abs=0.3)
    assert 0 <= row["soilhumidity"] <= 1


def test_a_failed_sensor_is_named_in_the_status_and_the_others_keep_measuring(flashed, device, rows):
    device("sensor", "dht11", "fault=checksum")
    try:

        def is_named():
            found = rows(f"""SELECT last("failed") AS "failed" FROM "device_status" WHERE "device" = '{DEVICE}'""")
            return found and "dht11" in (found[0]["failed"] or "")

        assert wait_for(is_named)
        assert rows(
            f"""SELECT "airpressure" FROM "mqtt_consumer" WHERE "device" = '{DEVICE}' AND time > now() - 30s""",
            seconds=60,
        )
    finally:
        device("sensor", "dht11", "fault=none")


def test_readings_from_an_outage_of_the_wifi_arrive_with_their_own_times(flashed, device, rows):
    device("wifi", "down")
    began = time.time()
    time.sleep(50)
    device("wifi", "up")
    ended = time.time()
    query = (
        f"""SELECT "airpressure" FROM "mqtt_consumer" WHERE "device" = '{DEVICE}' """
        f"AND time > {int(began)}s AND time < {int(ended)}s"
    )
    # One every 15 seconds, and none of them is lost.
    found = rows(query, wanted=3, seconds=120)
    assert len(found) >= 3
    gaps = [(after["Time"] - before["Time"]) / 1000 for before, after in pairwise(found)]
    assert max(gaps) < 20, gaps


def test_status_lists_the_device_as_json(flashed, project, inventory):
    command = [project / "bin/status", inventory, "--format", "json"]
    result = subprocess.run(command, cwd=project, capture_output=True, text=True, check=True)
    status = json.loads(result.stdout)
    (row,) = [row for row in status["devices"] if row["name"] == DEVICE]
    assert row["state"] == "online"
    assert row["age"] < 60
    assert {service["state"] for service in status["services"]} == {"runs"}
