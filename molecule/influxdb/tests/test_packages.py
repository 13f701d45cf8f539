"""The vendor's package replaces Debian's and the other way round, with all points."""

from __future__ import annotations

import json
import time

import pytest

testinfra_hosts = ["ansible://debian"]

POINTS = 5000


@pytest.fixture(scope="module")
def vendor_s(inventory) -> str:
    """Version of the vendor's package, or of its replacement."""
    packages = json.loads((inventory.parent / "pis/feed.lock").read_text())["packages"]
    [package] = [package for package in packages if package["name"] == "influxdb"]
    if package["origin"] == "debian":
        pytest.skip("the feed has Debian's InfluxDB alone, as on armhf")
    return package["version"]


@pytest.fixture
def points(database):
    """Count the points, and check that accounts, policies and queries exist."""

    def count() -> int:
        assert database.query("SHOW DATABASES", None)[0] == 401
        assert database.write("rights,device=a value=1", "grafana") == 403
        assert database.write("after,device=a value=1") == 204
        assert {row["name"] for row in database.rows("SHOW RETENTION POLICIES ON iot")} >= {"autogen", "averages"}
        assert "averages" in {row.get("name") for row in database.rows("SHOW CONTINUOUS QUERIES")}
        [row] = database.rows('SELECT count("value") FROM "iot"."autogen"."upgrade"')
        return row["count"]

    return count


def changed(run) -> bool:
    assert run.returncode == 0, run.stdout + run.stderr
    return " changed=0 " not in run.stdout


def unit(host, name: str) -> str:
    return host.check_output("systemctl show influxdb.service --property=%s --value", name)


def test_debian_s_package_is_installed(host, database):
    assert host.package("influxdb").version.startswith("1.6.7")
    database.query("DROP MEASUREMENT upgrade")
    now = int(time.time())
    lines = "\n".join(f"upgrade,device=a value={number} {now - number}000000000" for number in range(POINTS))
    assert database.write(lines) == 204
    assert database.query("SHOW DATABASES", None)[0] == 401


def test_debian_s_shell_conflicts_with_the_vendor_s_package(host):
    """As on a Pi that was set up by hand; dpkg refuses two packages with the same file."""
    host.run_expect([0], "apt-get -q -y install influxdb-client")


def test_the_vendor_s_package_keeps_all_points(host, vendor_s, converge, points):
    process = unit(host, "MainPID")
    assert changed(converge("--limit=debian", influxdb_source="vendor", influxdb_version=vendor_s))
    assert host.package("influxdb").version == vendor_s
    assert not host.package("influxdb-client").is_installed
    assert unit(host, "MainPID") != process
    assert points() == POINTS
    assert not changed(converge("--limit=debian", influxdb_source="vendor", influxdb_version=vendor_s))


def test_the_package_has_the_vendor_s_unit_and_start_script(host, vendor_s):
    """As in the package; the role's unit starts the server without the script."""
    own = host.file("/usr/lib/systemd/system/influxdb.service").content_string.splitlines()
    script = "/usr/lib/influxdb/scripts/influxd-systemd-start.sh"
    assert {"Type=forking", "PIDFile=/var/lib/influxdb/influxd.pid", f"ExecStart={script}"} <= set(own)
    assert host.file(script).mode == 0o755
    assert unit(host, "NRestarts") == "0"
    assert host.file("/etc/systemd/system/influxd.service").is_symlink  # its alias
    for directory in ("/var/lib/influxdb", "/var/log/influxdb"):
        assert (host.file(directory).user, host.file(directory).mode) == ("influxdb", 0o755)


def test_it_runs_after_a_power_cut(vendor_s, pi, database, points):
    pi.power_cut()
    database.wait()
    assert points() == POINTS


def test_a_downgrade_must_be_allowed(host, vendor_s, converge, points):
    run = converge("--limit=debian")
    assert run.returncode != 0
    assert "influxdb_source: vendor to keep it" in " ".join(run.stdout.split()), run.stdout
    assert host.package("influxdb").version == vendor_s


def test_the_downgrade_to_debian_s_package_keeps_all_points(host, vendor_s, converge, points):
    assert changed(converge("--limit=debian", influxdb_allow_downgrade=True))
    assert host.package("influxdb").version.startswith("1.6.7")
    assert points() == POINTS
    assert not changed(converge("--limit=debian"))
