"""An upgrade ends with the new versions or with the previous ones, verified, with all readings, whenever it fails or is killed.

UPGRADE_KILL chooses how many seconds after the begin of its longest step an upgrade is killed; UPGRADE_KILL_BACK the same for its rollback.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time

import pytest
from virtual_site import PROJECT, Site

testinfra_hosts = ["ansible://servers"]

FIRST, COUNT = 1704060000, 2000  # readings from before the upgrades, one each 15 s
UNSAVED = 65  # seconds; the broker saves what Telegraf has not stored once a minute
STATE = "/var/lib/tig-pi/upgrade"
NEW = "--extra-vars=influxdb_source=vendor"
# Telegraf cannot log in to the database, which only the verification notices.
BROKEN = '--extra-vars={"telegraf_secrets": {"MQTT_PASSWORD": "%s", "INFLUXDB_PASSWORD": "wrong"}}'


@pytest.fixture(scope="module")
def site(inventory):
    return Site(inventory)


def reading(moment: int, value: float) -> str:
    return json.dumps({"outsidetemp": value, "time": moment})


def of(first: int, count: int) -> list[tuple]:
    return [(first + 15 * number, 10 + number % 100 / 10) for number in range(count)]


class Sender:
    """Sends readings all the time; those that were acknowledged must be stored."""

    def __init__(self, site: Site, first: int) -> None:
        self.site, self.first = site, first
        self.acknowledged: list[float] = []  # when, of each reading
        self._is_done = threading.Event()
        self._thread = threading.Thread(target=self._send)

    def _send(self) -> None:
        while not self._is_done.wait(0.5):
            batch = of(self.first, len(self.acknowledged) + 10)[-10:]
            try:
                self.site.publish("tig/matslopy4/reading", *(reading(*one) for one in batch))
            except (subprocess.SubprocessError, OSError):
                continue  # the broker is being restarted: the same readings are sent again
            self.acknowledged += [time.time()] * len(batch)

    def __enter__(self) -> Sender:
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._is_done.set()
        self._thread.join()

    def check(self, cut: float) -> None:
        """All of its readings are there, but for those that the broker may lose when its power is cut; and those from before."""
        sent = of(self.first, len(self.acknowledged))
        safe = [one for one, when in zip(sent, self.acknowledged, strict=True) if not cut - UNSAVED < when < cut]
        assert safe
        where = f"time >= {self.first}s AND time < {self.first + 10**6}s"
        found = self.site.readings(where, len(sent), 15)
        assert set(safe) <= set(found)
        assert found == [one for one in sent if one in set(found)]
        assert self.site.readings(f"time < {FIRST + 10**6}s", COUNT) == of(FIRST, COUNT)


class Upgrade:
    """`make upgrade`, which may be killed."""

    def __init__(self, inventory) -> None:
        self.inventory = inventory

    def start(self, *arguments: str) -> subprocess.Popen:
        command = [PROJECT / "bin/upgrade", self.inventory, *arguments]
        environment = {**os.environ, "ANSIBLE_NOCOLOR": "1", "PYTHONUNBUFFERED": "1"}
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "start_new_session": True}
        return subprocess.Popen(command, cwd=PROJECT, env=environment, **options)

    def run(self, *arguments: str) -> tuple[int, str]:
        with self.start(*arguments) as process:
            output = process.communicate()[0]
        print(output)
        return process.returncode, output

    def kill(self, wanted: str, seconds: float, *arguments: str) -> str:
        """Kill it some seconds after it has printed a line; what it has printed."""
        output = ""
        with self.start(*arguments) as process:
            for line in process.stdout:
                output += line
                if wanted in line:
                    time.sleep(seconds)
                    with contextlib.suppress(ProcessLookupError):  # it has ended
                        os.killpg(process.pid, signal.SIGKILL)
                    break
            process.wait()
        assert wanted in output, output
        return output


@pytest.fixture(scope="module")
def upgrade(inventory):
    return Upgrade(inventory)


def state(host) -> dict:
    return json.loads(host.file(f"{STATE}/upgrade.json").content_string)


def versions(host) -> str:
    return host.check_output("dpkg-query --show --showformat='${db:Status-Status} ${Package} ${Version}\n' | sort")


def settings(host) -> str:
    """What is in the files of settings; owners and permissions, also of their folders."""
    # podman writes some of them when the Pi starts; ldconfig and Python write caches.
    ignored = ["/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/etc/ld.so.cache", "/etc/*-", "*/__pycache__/*"]
    found = "find /etc /usr/local " + " ".join(f"-not -path '{path}'" for path in [*ignored, "*/__pycache__"])
    return host.check_output(
        f"{found} -printf '%p %u %g %m %l\n' | sort; {found} -type f -print0 | sort -z | xargs -0 sha256sum | sort -k 2"
    )


def test_an_upgrade_whose_verification_fails_goes_back_although_it_is_killed(host, pi, site, upgrade):
    site.publish("tig/matslopy4/reading", *(reading(*one) for one in of(FIRST, COUNT)))
    site.grafana("/api/dashboards/db", {"dashboard": {"uid": "own", "title": "Made by hand", "panels": []}})
    assert len(site.readings(f"time < {FIRST + 10**6}s", COUNT)) == COUNT
    old, before = versions(host), settings(host)
    assert "influxdb 1.6.7" in old
    broken = [NEW, BROKEN % site.secret("mosquitto/telegraf")]
    with Sender(site, FIRST + 10**7) as sender:
        upgrade.kill("==> Rolling back", float(os.environ.get("UPGRADE_KILL_BACK", "4")), *broken)
        pi.power_cut()
        cut = time.time()
        assert state(host)["state"] in ("begun", "reverting", "reverted")
        # A refusal changes nothing.
        assert "Nothing was changed" in upgrade.run(NEW, "--check")[1]
        assert state(host)["state"] in ("begun", "reverting", "reverted")
        code, output = upgrade.run(*broken)
        assert code == 1
        assert "The site is as it was before." in output
    assert state(host)["state"] == "reverted"
    assert state(host)["problems"] == []
    assert "values of iot.autogen" in " ".join(state(host)["lines"])
    assert versions(host) == old
    assert settings(host) == before
    sender.check(cut)
    assert site.grafana("/api/dashboards/uid/own")["dashboard"]["title"] == "Made by hand"
    assert not host.file(f"{STATE}/kept").exists


def test_an_upgrade_that_is_killed_goes_on(host, pi, site, upgrade):
    with Sender(site, FIRST + 2 * 10**7) as sender:
        upgrade.kill("==> Upgrading and configuring", float(os.environ.get("UPGRADE_KILL", "15")), NEW)
        pi.power_cut()
        cut = time.time()
        assert state(host)["state"] == "begun"
        status = subprocess.run(
            [PROJECT / "bin/status", site.inventory], capture_output=True, text=True, check=False
        ).stdout
        assert "Upgrade of pi: it began on" in status
        code, output = upgrade.run(NEW)
        assert code == 0, output
        assert "goes on" in output
        assert "influxdb: 1.6.7" in output
    assert state(host)["state"] == "verified"
    assert "installed influxdb 1.13" in versions(host)
    sender.check(cut)
    assert site.grafana("/api/dashboards/uid/own")["dashboard"]["title"] == "Made by hand"
    assert host.check_output(f"ls -A {STATE}").split() == ["lock", "upgrade.json"]
    assert not host.file("/etc/apt/apt.conf.d/90tig-pi-upgrade").exists
