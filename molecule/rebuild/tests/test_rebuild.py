"""The card dies: `make rebuild` takes a new Pi back to the same site, with the readings that its node sent after the backup."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[3]
testinfra_hosts = ["ansible://servers"]
QUERY = "SELECT outsidetemp, outsidehumidity FROM mqtt_consumer WHERE device = 'greenhouse'"


@pytest.fixture
def readings(host, inventory):
    """All readings of the node that are stored."""
    password = (inventory / "secrets/influxdb/admin").read_text().strip()

    def find(wanted: int = 0, seconds: float = 60) -> list[tuple]:
        end = time.monotonic() + seconds
        while True:
            curl = "curl -sS -u admin:%s --data-urlencode db=iot --data-urlencode epoch=s --data-urlencode q=%s http://127.0.0.1:8086/query"
            (result,) = json.loads(host.check_output(curl, password, QUERY))["results"]
            found = [tuple(row) for series in result.get("series", []) for row in series["values"]]
            if len(found) >= wanted or time.monotonic() > end:
                assert len(found) >= wanted
                return found
            time.sleep(1)

    return find


def new_pi(inventory: Path) -> None:
    """Destroy the Pi, and put a blank one in its place."""
    state = inventory.parent / "pis"
    pi = json.loads((state / "pi.json").read_text())
    command = [PROJECT / "virtual/pi/pi.py"]
    subprocess.run([*command, "down", pi["name"]], check=True)
    publish = [f"--publish={port}" for port in ("1883", "3000", "1880")]
    options = ["--alias=pi", "--hostname=pi", f"--state={state}", f"--release={pi['release']}", *publish]
    subprocess.run([*command, "up", pi["name"], *options], check=True)


def rebuild(inventory: Path) -> subprocess.Popen:
    command = [PROJECT / "bin/rebuild", inventory, "--extra-vars=restore_consent=true"]
    return subprocess.Popen(
        command,
        cwd=PROJECT,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def test_a_new_pi_is_as_the_old_one_was_and_has_later_readings(playbook, inventory, readings):
    flash = playbook("flash.yml")
    assert flash.returncode == 0, flash.stdout + flash.stderr
    backed_up = len(readings(10))
    backup = playbook("backup.yml")
    assert backup.returncode == 0, backup.stdout + backup.stderr
    before = readings(backed_up + 25)

    new_pi(inventory)
    run = rebuild(inventory)
    said, _ = run.communicate(timeout=900)
    assert run.returncode == 0, said
    assert re.search(r"greenhouse: sent \d+ readings again", " ".join(said.split()))
    for step in ("Setting up the services", "Restoring the newest backup", "Getting later readings from the devices"):
        assert re.search(rf"^ *\d+ s  {step}$", said, re.MULTILINE)
    assert set(before) <= set(readings(len(before)))


def test_a_rebuild_that_is_killed_is_completed_by_the_next_one(inventory, readings):
    before = readings()
    new_pi(inventory)
    run = rebuild(inventory)
    seconds = random.uniform(5, 60)
    time.sleep(seconds)
    os.killpg(run.pid, signal.SIGKILL)
    run.communicate()
    run = rebuild(inventory)
    said, _ = run.communicate(timeout=900)
    assert run.returncode == 0, f"killed after {seconds} s\n{said}"
    assert set(before) <= set(readings(len(before)))


def test_a_restored_host_is_left_as_it_is(host, inventory, readings):
    before = readings()
    restored = host.file("/var/lib/tig-pi/backup/restored.json").content_string
    run = rebuild(inventory)
    said, _ = run.communicate(timeout=900)
    assert run.returncode == 0, said
    assert host.file("/var/lib/tig-pi/backup/restored.json").content_string == restored
    assert set(before) <= set(readings(len(before)))
