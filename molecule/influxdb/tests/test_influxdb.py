"""The database, from outside: who is accepted, what each user may do, and how changes converge."""

from __future__ import annotations

import time

import pytest

testinfra_hosts = ["ansible://pi"]

# The feed's, as the scenario has it.
REPOSITORY = {"name": "tig-pi-feed", "uri": "file:///srv/tig-pi-feed", "key": "{{ feed_key }}"}


def test_a_query_without_an_account_is_refused(database):
    assert database.query("SHOW DATABASES", None)[0] == 401
    assert database.query("SHOW DATABASES", "admin", "wrong")[0] == 401
    assert database.query("CREATE USER intruder WITH PASSWORD 'x' WITH ALL PRIVILEGES", None)[0] == 401
    assert database.write("m value=1", None) == 401


def test_each_user_has_exactly_its_privileges(database):
    assert database.write("rights,device=a value=1") == 204
    assert database.write("rights,device=a value=1", "grafana") == 403
    assert database.query("SELECT * FROM iot.autogen.rights", "grafana")[1][0]["values"]
    assert database.query("SELECT * FROM iot.autogen.rights", "telegraf")[0] == 403
    for user in ("telegraf", "grafana"):
        assert database.query("DROP DATABASE iot", user)[0] == 403
        assert database.query("SHOW USERS", user)[0] == 403


def test_only_the_declared_address_is_open(host):
    listening = host.run("ss --listening --tcp --udp --numeric --processes --no-header | grep influxd").stdout
    assert {line.split()[4] for line in listening.splitlines()} == {"*:8086", "127.0.0.1:8088"}


def test_the_schema_is_as_declared(database):
    policies = {row["name"]: row for row in database.rows("SHOW RETENTION POLICIES ON iot")}
    assert (policies["autogen"]["duration"], policies["autogen"]["default"]) == ("17472h0m0s", True)
    assert policies["averages"]["duration"] == "0s"
    assert "averages" in {row.get("name") for row in database.rows("SHOW CONTINUOUS QUERIES")}


def test_the_server_stores_no_statistics_of_its_own(database):
    assert [row["name"] for row in database.rows("SHOW DATABASES")] == ["iot"]


def test_the_pi_has_no_password_in_the_clear(host, inventory):
    everything = host.run(
        "cat /etc/influxdb/* /etc/default/* /etc/systemd/system/influxdb.service.d/*; journalctl --no-pager"
    ).stdout
    for user in ("admin", "telegraf", "grafana"):
        assert (inventory / "secrets/influxdb" / user).read_text().strip() not in everything


@pytest.mark.parametrize("user", ["telegraf", "admin"])
def test_a_changed_password_converges(database, converge, inventory, user):
    assert database.write("passwords,device=a value=1") == 204
    (inventory / "secrets/influxdb" / user).write_text("another one\n")
    run = converge()
    assert run.returncode == 0, run.stdout
    assert "another one" not in run.stdout
    assert database.query("SHOW DATABASES", user, "another one")[0] == 200
    assert database.rows("SELECT value FROM iot.autogen.passwords")
    assert "changed=0" in converge().stdout


def test_a_changed_retention_converges(database, converge):
    assert converge(retention="52w").returncode == 0
    policies = {row["name"]: row["duration"] for row in database.rows("SHOW RETENTION POLICIES ON iot")}
    assert policies["autogen"] == "8736h0m0s"
    assert "changed=0" in converge(retention="52w").stdout
    assert converge().returncode == 0


def test_the_tutorial_s_user_with_all_privileges_is_restricted(database, converge):
    assert database.query("GRANT ALL PRIVILEGES TO grafana")[0] == 200
    assert database.query("DROP DATABASE nothing", "grafana")[0] == 200
    assert converge().returncode == 0
    assert database.query("DROP DATABASE nothing", "grafana")[0] == 403


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        (
            {"influxdb_databases": [{"name": "iot", "retention_policies": [{"name": "a", "duration": "1 year"}]}]},
            "'1 year' is not a duration",
        ),
        ({"influxdb_databases": [{"name": "iot"}, {"name": "iot"}]}, "database 'iot' is declared twice"),
        ({"influxdb_users": [{"name": "a", "grants": []}]}, "user 'a' has no password"),
        (
            {"influxdb_users": [{"name": "a", "password": "x", "grants": [{"database": "toi", "privilege": "read"}]}]},
            "influxdb_databases has no database 'toi'",
        ),
        ({"influxdb_http_bind_address": "8086"}, "'8086' is not an address with a port"),
        ({"influxdb_cache_max_memory_size": "lots"}, "refuses the whole set"),
        ({"influxdb_version": "1.5*"}, "Raise influxdb_version to keep it"),
        ({"influxdb_repository": {**REPOSITORY, "fingerprint": "0" * 40}}, "has the fingerprint"),
    ],
)
def test_invalid_variables_are_refused_and_the_database_runs_on(host, database, converge, variables, sentence):
    before = host.run("cat /etc/influxdb/influxdb.conf; systemctl show influxdb --property=MainPID").stdout
    run = converge(**variables)
    assert run.returncode != 0
    assert sentence in " ".join(run.stdout.replace("\\'", "'").replace('\\"', '"').split())
    assert host.run("cat /etc/influxdb/influxdb.conf; systemctl show influxdb --property=MainPID").stdout == before
    assert database.query("SHOW DATABASES")[0] == 200


def test_each_tag_works_alone(tags_work_alone):
    tags_work_alone(
        "influxdb", "influxdb_query_timeout", ("61s", "60s"), "/etc/influxdb/influxdb.conf", 'query-timeout = "{}"'
    )


def test_points_survive_a_power_cut(database, pi):
    """What the database has acknowledged is on the card."""
    for number in range(100):
        assert database.write(f"cut,device=a value={number} {time.time_ns()}") == 204
    pi.power_cut()
    database.wait()
    assert database.rows("SELECT count(value) FROM iot.autogen.cut")[0]["count"] == 100


def test_it_runs_after_a_reboot(database, pi):
    pi.reboot()
    database.wait()
    assert database.query("SHOW DATABASES")[0] == 200
    assert database.query("SHOW DATABASES", None)[0] == 401


def test_it_can_be_restricted_to_loopback_again(host, converge):
    assert converge(influxdb_http_bind_address="127.0.0.1:8086").returncode == 0
    assert "127.0.0.1:8086" in host.run("ss --listening --tcp --numeric --no-header").stdout
    assert "*:8086" not in host.run("ss --listening --tcp --numeric --no-header").stdout
    assert converge().returncode == 0


@pytest.mark.parametrize("how", ["empty", "garbage"])
def test_it_starts_with_a_damaged_index(host, database, damage, state_files, how):
    assert database.write("damaged,device=a value=1") == 204
    manifest = host.check_output("ls /var/lib/influxdb/data/iot/autogen/*/index/0/MANIFEST | tail -1")
    said = damage("influxdb", manifest, how)
    assert f"{manifest} is " in said
    database.wait()
    assert database.write("damaged,device=b value=1") == 204
    assert database.rows("SELECT count(value) FROM iot.autogen.damaged")[0]["count"] >= 2
    report = state_files("influxdb")
    assert report["damaged"] == []
    assert any("index" in note["file"] for note in report["set_aside"])
    assert host.file(report["set_aside"][-1]["copy"]).exists
    assert host.file("/var/lib/influxdb/data/iot/autogen").user == "influxdb"


@pytest.mark.parametrize("how", ["NULs", "truncated"])
def test_damaged_accounts_are_restored(host, database, damage, how):
    said = damage("influxdb", "/var/lib/influxdb/meta/meta.db", how)
    assert "restored from its second copy" in said
    database.wait()
    assert database.query("SHOW DATABASES")[0] == 200
    assert database.query("SHOW DATABASES", None)[0] == 401
    assert host.file("/var/lib/influxdb/meta/meta.db").user == "influxdb"


def test_without_accounts_it_does_not_start(host, database, damage, state_files):
    """If the second copy is missing, too, it stays down without restarting every second, and reports the file."""
    host.run_expect([0], "cp -a /var/lib/influxdb/meta/meta.db /root/; cp -a /var/lib/tig-pi/influxdb/copies /root/")
    try:
        host.run_expect([0], "systemctl stop influxdb; rm -r /var/lib/tig-pi/influxdb/copies")
        said = damage("influxdb", "/var/lib/influxdb/meta/meta.db", "NULs")
        assert said.count("run make repair") == 1
        assert not host.service("influxdb").is_running
        (waits,) = state_files("influxdb")["damaged"]
        assert waits["file"] == "/var/lib/influxdb/meta/meta.db"
    finally:
        host.run_expect(
            [0], "cp -a /root/meta.db /var/lib/influxdb/meta/; cp -a /root/copies /var/lib/tig-pi/influxdb/"
        )
        host.run_expect([0], "systemctl start influxdb")
    database.wait()
    assert state_files("influxdb")["damaged"] == []


def test_damaged_files_are_removed_after_their_maximum_age(host, state_files):
    notes = state_files("influxdb")["set_aside"]
    assert notes
    host.run_expect(
        [0], "find /var/lib/tig-pi/influxdb/damaged -exec touch --date=-29days {} +; systemd-tmpfiles --clean"
    )
    assert len(state_files("influxdb")["set_aside"]) == len(notes)
    host.run_expect(
        [0], "find /var/lib/tig-pi/influxdb/damaged -exec touch --date=-31days {} +; systemd-tmpfiles --clean"
    )
    assert state_files("influxdb")["set_aside"] == []
    assert host.run("ls -A /var/lib/tig-pi/influxdb/damaged").stdout == ""


def test_writes_are_accepted_again_after_a_full_disk(host, database):
    """Without the watch it would refuse writes until a restart. All acknowledged points are stored."""
    watch, start = "systemctl start influxdb-watch.service", time.time_ns()
    assert host.service("influxdb-watch.timer").is_running
    host.run_expect([0], "systemctl stop influxdb; mount -t tmpfs -o size=96m,mode=755 tmpfs /mnt")
    try:
        host.run_expect(
            [0], "cp -a /var/lib/influxdb/. /mnt; mount --bind /mnt /var/lib/influxdb; systemctl start influxdb"
        )
        database.wait()
        assert database.write(f"full,device=a value=0 {start}") == 204
        acknowledged = 1
        host.run_expect([0], watch)
        host.run("dd if=/dev/zero of=/mnt/filled bs=64k")
        while (
            database.write(
                "".join(f"full,device=a value={n} {start + n}\n" for n in range(acknowledged + 1, acknowledged + 101))
            )
            == 204
        ):
            acknowledged += 100
            assert acknowledged < 100_000
        host.run_expect([0], watch)  # without room a restart would help nobody
        assert database.write(f"full,device=a value=0 {start}") == 500
        process = host.check_output("systemctl show influxdb --property=MainPID")
        host.run_expect([0], "rm /mnt/filled")
        assert database.write(f"full,device=a value=0 {start}") == 500
        host.run_expect([0], watch)
        end = time.monotonic() + 30
        while True:
            try:
                if database.write(f"full,device=b value=0 {start}") == 204:
                    break
            except OSError:
                pass
            assert time.monotonic() < end, "it still refuses"
            time.sleep(0.5)
        assert host.check_output("systemctl show influxdb --property=MainPID") != process
        assert "although the disk has space: restarting it" in host.check_output(
            "journalctl --unit=influxdb-watch --no-pager"
        )
        rows = database.rows("SELECT count(value) FROM iot.autogen.full WHERE device = 'a'")
        assert rows[0]["count"] >= acknowledged
    finally:
        host.run("systemctl stop influxdb; umount /var/lib/influxdb; umount /mnt; systemctl start influxdb")
    database.wait()


def test_a_service_that_does_not_stay_up_fails_the_role(fails_to_start):
    fails_to_start("influxdb")


# InfluxData's unit, as far as it matters, with a start script that waits for the server, and less patience.
VENDOR_UNIT = """[Service]
User=influxdb
Group=influxdb
EnvironmentFile=-/etc/default/influxdb
Type=forking
PIDFile=/var/lib/influxdb/influxd.pid
TimeoutStartSec=5
ExecStart=/bin/sh -c '/usr/bin/influxd -config /etc/influxdb/influxdb.conf & echo $! >/var/lib/influxdb/influxd.pid; \
until curl --silent --output /dev/null http://127.0.0.1:8086/ping; do sleep 1; done'
Restart=on-failure
"""


def test_a_slow_start_is_waited_for_and_not_killed(host, database, converge):
    """A database that takes longer to open than the vendor's unit allows would be killed and restarted forever."""
    unit, slow = "/run/systemd/system/influxdb.service", "/run/systemd/system/influxdb.service.d/slow.conf"
    host.run_expect([0], "mkdir -p %s.d && printf %%s %s >%s", unit, VENDOR_UNIT, unit)
    host.run_expect([0], "printf '[Service]\nExecStartPre=/bin/sleep 15\n' >%s", slow)
    try:
        host.run_expect([0], "systemctl daemon-reload && systemctl restart --no-block influxdb")
        run = converge()
        assert run.returncode == 0, run.stdout
        assert database.query("SHOW DATABASES")[0] == 200
        assert host.check_output("systemctl show influxdb --property=NRestarts --value") == "0"
    finally:
        host.run_expect([0], "rm -r %s %s.d && systemctl daemon-reload && systemctl restart influxdb", unit, unit)
    database.wait()
