"""The card dies: a new Pi has the same readings, dashboards, flows and retained messages, and those that arrived meanwhile."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import threading
import time

import pytest
from virtual_site import PROJECT, Site

testinfra_hosts = ["ansible://servers"]

STATUS = "/var/lib/tig-pi/backup/status.json"
NOT_CARRIED_OUT = "A drill could not be carried out"  # an alert
FIRST, COUNT = 1704060000, 2000  # readings of a device, one each 15 s


@pytest.fixture(scope="module")
def site(inventory):
    return Site(inventory)


def status(host) -> dict[str, dict]:
    """What the Pi reports about its targets."""
    return {one["target"]: one for one in json.loads(host.file(STATUS).content_string)}


def reading(moment: int, value: float) -> str:
    return json.dumps({"outsidetemp": value, "time": moment})


def of(first: int, count: int) -> list[tuple]:
    return [(first + 15 * number, 10 + number % 100 / 10) for number in range(count)]


OWN_TAB = {"id": "0123456789abcdef", "type": "tab", "label": "My own flow"}
OWN_NODE = {
    "id": "0123456789abcdee",
    "type": "comment",
    "z": OWN_TAB["id"],
    "name": "made by hand",
    "info": "",
    "x": 100,
    "y": 100,
    "wires": [],
}
DURING, AFTER, MEANWHILE = FIRST + 10**6, FIRST + 2 * 10**6, FIRST + 3 * 10**6


def test_a_new_pi_gets_everything_back(host, site, playbook):
    def archives() -> list[str]:
        return host.check_output("tig-pi-backup list --from attic").splitlines()

    site.publish("tig/matslopy4/reading", *(reading(*one) for one in of(FIRST, COUNT)))
    site.publish("tig/matslopy4/status", '{"state": "online", "uptime": 7}', retain=True)
    site.grafana("/api/dashboards/db", {"dashboard": {"uid": "own", "title": "Made by hand", "panels": []}})
    site.add_to_flows(OWN_TAB, OWN_NODE)
    assert len(site.readings(f"time < {FIRST + 10**6}s", COUNT)) == COUNT

    # Readings flow during the backup. Those that it has are those that were stored when it began.
    is_done = threading.Event()
    sent = of(DURING, 5000)

    def flow() -> None:
        for start in range(0, len(sent), 50):
            site.publish("tig/matslopy4/reading", *(reading(*one) for one in sent[start : start + 50]))
            if is_done.wait(0.3):
                return

    thread = threading.Thread(target=flow)
    thread.start()
    backup = playbook("backup.yml")
    is_done.set()
    thread.join()
    assert backup.returncode == 0, backup.stdout + backup.stderr
    assert "attic: last backup" in backup.stdout
    assert "laptop: last backup" in backup.stdout
    made = status(host)["attic"]["succeeded"]
    site.publish("tig/matslopy4/reading", *(reading(*one) for one in of(AFTER, 20)))

    site.replace_pi("trixie")
    converge = playbook("site.yml")
    assert converge.returncode == 0, converge.stdout + converge.stderr
    site.publish("tig/matslopy4/reading", *(reading(*one) for one in of(MEANWHILE, 30)))
    assert len(site.readings(f"time >= {MEANWHILE}s", 30)) == 30
    # The new card makes a backup before anything was restored: it removes no archive of the card before, and a rebuild takes that one.
    (old,) = archives()
    assert host.run("systemctl start tig-pi-backup").rc == 0
    assert archives()[1:] == [old]
    fetched = host.check_output("tig-pi-backup fetch --from attic --rebuild")
    assert int(json.loads(fetched)["begun"]) == made
    # There is no device that could send its readings again; scenario rebuild has one.
    # The archive that this computer keeps; scenario `rebuild` restores that of the other host.
    restore = playbook(
        "restore.yml",
        "--extra-vars=restore_consent=true",
        "--extra-vars=replay_timeout=2",
        "--extra-vars=restore_from=laptop",
    )
    assert restore.returncode == 0, restore.stdout + restore.stderr

    # `make status` names the device that was away.
    assert json.loads(host.check_output("tig-pi-backup status"))["owing"] == ["matslopy4"]

    assert site.readings(f"time < {FIRST + 10**6}s", COUNT) == of(FIRST, COUNT)
    assert site.readings(f"time >= {MEANWHILE}s", 30) == of(MEANWHILE, 30)
    during = site.readings(f"time >= {DURING}s AND time < {AFTER}s", 1)
    assert during
    assert during == sent[: len(during)]
    assert site.grafana("/api/dashboards/uid/own")["dashboard"]["title"] == "Made by hand"
    flows = {node["id"]: node for node in site.flows()}
    assert flows[OWN_NODE["id"]]["name"] == "made by hand"
    assert json.loads(site.retained("tig/matslopy4/status"))["uptime"] == 7
    # Readings are stored as before.
    site.publish("tig/matslopy4/reading", reading(MEANWHILE + 10**6, 1.5))
    assert site.readings(f"time >= {MEANWHILE + 10**6}s", 1) == [(MEANWHILE + 10**6, 1.5)]


@pytest.fixture
def drill(inventory):
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [PROJECT / "bin/drill", inventory, *arguments]
        environment = {**os.environ, "ANSIBLE_NOCOLOR": "1"}
        return subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)

    return run


def wait_for_alert(site: Site, title: str, states: set[str], seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while (state := site.alerts()[title]) not in states:
        assert time.monotonic() < end, f"{title}: {state}"
        time.sleep(1)


def test_a_drill_that_cannot_choose_an_archive_is_recorded_and_raises_an_alert(host, site, drill):
    assert site.alerts()[NOT_CARRIED_OUT] == "inactive"
    refused = drill("--extra-vars=drill_from=nowhere")
    assert refused.returncode == 1
    assert "the drill could not be carried out" in refused.stdout
    told = status(host)
    assert [told[name]["drill_aborted"] for name in ("attic", "laptop")] == [1, 1]
    assert "There is no target nowhere" in told["laptop"]["drill_aborted_text"]
    wait_for_alert(site, NOT_CARRIED_OUT, {"pending", "firing"})  # it fires after two minutes


def test_a_drill_restores_the_newest_backup_elsewhere_and_the_pi_knows_it(host, site, drill):
    # The newest one of the attic is of the new card, before anything was restored.
    done = drill("--extra-vars=drill_from=laptop")
    assert done.returncode == 0, done.stdout + done.stderr
    (compared,) = re.findall(r"pi: (\d+) points, (\d+) dashboards, (\d+) users of Grafana, (\d+) nodes", done.stdout)
    assert int(compared[0]) >= COUNT
    assert min(int(number) for number in compared) > 0
    told = status(host)
    assert abs(told["laptop"]["proven"] - time.time()) < 120
    assert told["laptop"]["drill_failed"] == 0
    assert [told[name]["drill_aborted"] for name in ("attic", "laptop")] == [0, 0]
    wait_for_alert(site, NOT_CARRIED_OUT, {"inactive"})
    left = subprocess.run([PROJECT / "virtual/pi/pi.py", "list"], capture_output=True, text=True, check=True).stdout
    assert f"tig-drill-{hashlib.sha256(str(PROJECT).encode()).hexdigest()[:6]}" not in left


def test_nothing_is_restored_without_consent(playbook, host):
    before = host.check_output("find /var/lib/tig-pi/backup -maxdepth 1 -name 'before-restore-*' | wc -l")
    refused = playbook("restore.yml")
    assert refused.returncode != 0
    assert "Nothing was restored" in refused.stdout
    assert host.check_output("find /var/lib/tig-pi/backup -maxdepth 1 -name 'before-restore-*' | wc -l") == before


def test_a_damaged_archive_is_refused_before_anything_is_stopped(playbook, host):
    assert playbook("backup.yml").returncode == 0
    packs = "find /srv/backup/tig-pi/pi/data -type f -size +20k"
    attic = host.get_host("ansible://attic", ansible_inventory=host.backend.ansible_inventory)
    for pack in attic.check_output(f"sudo {packs}").split():
        attic.run_expect([0], f"sudo dd if=/dev/urandom of={pack} bs=1 count=64 seek=5000 conv=notrunc")
    started = host.check_output(
        "systemctl show --property=ActiveEnterTimestamp grafana-server mosquitto node-red influxdb"
    )
    refused = playbook("restore.yml", "--extra-vars=restore_consent=true", "--extra-vars=restore_from=attic")
    assert refused.returncode != 0
    assert "damaged" in refused.stdout
    assert "the one before it is" in " ".join(refused.stdout.split())
    assert (
        host.check_output("systemctl show --property=ActiveEnterTimestamp grafana-server mosquitto node-red influxdb")
        == started
    )
    # Without FROM it is the newest one of all, which this computer keeps.
    offered = " ".join(playbook("restore.yml").stdout.split())
    assert re.search(r"Restoring the archive of \S+ \S+ \([^)]+ ago\) of laptop\.", offered)
    assert "cannot be read" not in offered  # attic has none that is newer
    assert "Nothing was restored" in offered
    failed = playbook("backup.yml")
    assert failed.returncode != 0
    assert "attic" in failed.stdout
    assert status(host)["attic"]["problem"] == "damaged"
