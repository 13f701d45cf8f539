"""The module influxdb_schema against a real InfluxDB 1.x: converges in one call, tells the truth, keeps the points."""

from __future__ import annotations

import base64
import json
import os
import stat
import textwrap
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.tig_pi.stack.plugins.modules import influxdb_schema
from chain import PASSWORD, Program, free_port, program, wait_until
from project import PROBE

ADMIN = {"name": "admin", "password": PASSWORD}
QUERY = 'SELECT mean(*) INTO "iot"."averages".:MEASUREMENT FROM "iot"."autogen"./.*/ GROUP BY time(600s), *'
DATABASES = [
    {
        "name": "iot",
        "retention_policies": [
            {"name": "autogen", "duration": "52w", "default": True},
            {"name": "averages", "duration": "0s", "shard_duration": "4w"},
        ],
        "continuous_queries": [{"name": "averages", "query": QUERY, "resample": "FOR 3600s"}],
    }
]
USERS = [
    {"name": "telegraf", "password": PASSWORD, "grants": [{"database": "iot", "privilege": "write"}]},
    {"name": "grafana", "password": "reader's", "grants": [{"database": "iot", "privilege": "read"}]},
]


class Database:
    """A private InfluxDB, and the module run on it."""

    def __init__(self, directory, capsys) -> None:
        self.directory, self.capsys = directory, capsys
        self.port = free_port()
        self.configuration = directory / "influxdb.conf"
        self.configuration.write_text(
            textwrap.dedent(f"""\
                reporting-disabled = true
                bind-address = "127.0.0.1:{free_port()}"
                [meta]
                  dir = "{directory}/meta"
                [data]
                  dir = "{directory}/data"
                  wal-dir = "{directory}/wal"
                  index-version = "tsi1"
                [monitor]
                  store-enabled = false
                [http]
                  bind-address = "127.0.0.1:{self.port}"
                  auth-enabled = true
                  log-enabled = false
                """)
        )
        command = [program("influxd", "influxdb"), "-config", str(self.configuration)]
        self.program = Program(command, directory / "log")
        self.server = influxdb_schema.Server("127.0.0.1", self.port)

    def start(self) -> None:
        self.program.start()
        wait_until(self.server.answers, "the database answers")

    def converge(self, check=False, fails=False, **arguments) -> dict:
        arguments = {
            "port": self.port,
            "listen_file": str(self.directory / "listen.env"),
            "configuration": str(self.configuration),
            "admin": ADMIN,
            "databases": DATABASES,
            "users": USERS,
            "_ansible_check_mode": check,
            "_ansible_diff": True,
            **arguments,
        }
        self.capsys.readouterr()
        with patch_module_args(arguments), pytest.raises(SystemExit):
            influxdb_schema.main()
        result = json.loads(self.capsys.readouterr().out)
        assert bool(result.get("failed")) == fails, result.get("msg")
        return result

    def rows(self, statement: str) -> list[dict]:
        self.server.credentials = (ADMIN["name"], PASSWORD)
        return self.server.rows(statement)

    def write(self, line: str) -> None:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/write?db=iot", line.encode())
        token = base64.b64encode(f"admin:{PASSWORD}".encode()).decode()
        request.add_header("Authorization", f"Basic {token}")
        urllib.request.urlopen(request, timeout=10).close()


@pytest.fixture
def database(tmp_path, capsys):
    made = Database(tmp_path, capsys)
    made.start()
    yield made
    made.program.stop()


@pytest.fixture
def systemctl(database, tmp_path, monkeypatch):
    """A double of systemctl, which stops and starts the private database in place of the service."""
    monkeypatch.setattr(
        influxdb_schema.AnsibleModule,
        "run_command",
        lambda module, command, **options: {"stop": database.program.stop, "start": database.start}[command[1]](),
    )
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "systemctl").write_text("#!/bin/false\n")
    (folder / "systemctl").chmod(0o755)
    folders = [str(folder), os.path.dirname(program("influxd", "influxdb")), os.environ["PATH"]]
    monkeypatch.setenv("PATH", ":".join(folders))


def test_an_empty_database_is_set_up_and_a_second_run_changes_nothing(database):
    assert database.converge()["changed"]
    policies = {row["name"]: row for row in database.rows("SHOW RETENTION POLICIES ON iot")}
    assert policies["autogen"]["duration"] == "8736h0m0s"
    assert policies["autogen"]["default"] is True
    assert policies["averages"]["shardGroupDuration"] == "672h0m0s"
    assert {row["user"]: row["admin"] for row in database.rows("SHOW USERS")} == {
        "admin": True,
        "grafana": False,
        "telegraf": False,
    }
    second = database.converge()
    assert not second["changed"], second["changes"]


def test_check_mode_reports_all_changes_and_makes_none(database):
    planned = database.converge(check=True)
    with pytest.raises(influxdb_schema.NoAdmin):
        database.server.query("SHOW DATABASES")
    made = database.converge()
    assert planned["changes"] == made["changes"]
    assert not database.converge(check=True)["changed"]


def test_check_mode_assumes_an_empty_database_if_there_is_no_server(database):
    database.program.stop()
    assert len(database.converge(check=True)["changes"]) >= 7


def test_the_output_has_no_secret(database):
    said = json.dumps([database.converge(check=True), database.converge()], ensure_ascii=False)
    for secret in (PASSWORD, "reader's"):
        assert json.dumps(secret, ensure_ascii=False)[1:-1] not in said


def test_changed_passwords_converge(database):
    database.converge()
    users = [{**USERS[0], "password": "another"}, USERS[1]]
    changes = database.converge(users=users)["changes"]
    assert changes == ["user telegraf, password: (secret) -> (secret, changed)"]
    assert database.server.can_log_in("telegraf", "another")
    assert not database.server.can_log_in("telegraf", PASSWORD)
    assert not database.converge(users=users)["changed"]


def test_a_changed_retention_converges_and_keeps_the_points(database):
    database.converge()
    database.write("m,device=a value=1")
    shorter = [{"name": "iot", "retention_policies": [{"name": "autogen", "duration": "3d", "default": True}]}]
    changes = database.converge(databases=shorter)["changes"]
    assert changes == [
        "database iot, retention policy autogen: 52w, shards of 1w, default -> 3d, shards of 1d, default"
    ]
    assert database.rows('SELECT count("value") FROM iot.autogen.m')[0]["count"] == 1
    assert not database.converge(databases=shorter)["changed"]


def test_the_default_policy_moves(database):
    database.converge()
    policies = [
        {"name": "autogen", "duration": "52w"},
        {"name": "averages", "duration": "0s", "shard_duration": "4w", "default": True},
    ]
    moved = [{"name": "iot", "retention_policies": policies}]
    assert database.converge(databases=moved)["changed"]
    defaults = [row["name"] for row in database.rows("SHOW RETENTION POLICIES ON iot") if row["default"]]
    assert defaults == ["averages"]
    assert not database.converge(databases=moved)["changed"]


def test_extra_privileges_are_revoked(database):
    """As the tutorial left it: grafana may do everything, everywhere."""
    database.converge(users=[])
    database.rows("CREATE DATABASE other")
    database.rows(r"CREATE USER grafana WITH PASSWORD 'reader\'s' WITH ALL PRIVILEGES")
    database.rows("GRANT ALL ON iot TO grafana")
    database.rows("GRANT READ ON other TO grafana")
    database.converge()
    assert not {row["user"]: row["admin"] for row in database.rows("SHOW USERS")}["grafana"]
    grants = {row["database"]: row["privilege"] for row in database.rows("SHOW GRANTS FOR grafana")}
    assert grants == {"iot": "READ", "other": "NO PRIVILEGES"}
    assert not database.converge()["changed"]


def test_users_cannot_do_more_than_declared(database):
    database.converge()
    database.write("m,device=a value=1")
    with pytest.raises(influxdb_schema.InfluxError):
        database.server.query("SELECT * FROM iot.autogen.m", ("telegraf", PASSWORD))
    assert database.server.query("SELECT * FROM iot.autogen.m", ("grafana", "reader's"))
    with pytest.raises(influxdb_schema.InfluxError):
        database.server.query("DROP DATABASE iot", ("grafana", "reader's"))


def test_a_changed_continuous_query_converges(database):
    database.converge()
    query = {"name": "averages", "query": QUERY.replace("600s", "1h")}
    changed = [{**DATABASES[0], "continuous_queries": [query]}]
    assert len(database.converge(databases=changed)["changes"]) == 1
    assert not database.converge(databases=changed)["changed"]
    absent = [{**DATABASES[0], "continuous_queries": [{"name": "averages", "state": "absent"}]}]
    assert len(database.converge(databases=absent)["changes"]) == 1
    assert not database.converge(databases=absent)["changed"]


def averaged(retention: str, readings: str = "0s", interval: str = "1h") -> list[dict]:
    """Readings, and their averages with a retention of their own."""
    into = 'SELECT mean(*), min(*), max(*), count(*) INTO "iot"."averages".:MEASUREMENT FROM "iot"."autogen"."m"'
    query = f"{into} WHERE \"device\" != 'x' GROUP BY time({interval}), *"
    policies = [
        {"name": "autogen", "duration": readings, "default": True},
        {"name": "averages", "duration": retention},
    ]
    queries = [{"name": "averages", "query": query, "resample": "FOR 7200s", "backfill": True}]
    return [{"name": "iot", "retention_policies": policies, "continuous_queries": queries}]


def counted(database) -> int:
    """How many stored readings the averages include."""
    found = database.rows("SELECT sum(count_value) FROM iot.averages.m")
    return found[0]["sum"] if found else 0


def test_a_new_query_is_computed_for_all_stored_points(database):
    database.converge(databases=[{"name": "iot"}])
    now = int(time.time())
    for days in (0, 1, 40, 400):
        database.write("\n".join(f"m,device=a value={n} {now - days * 86400 - n}000000000" for n in range(100)))
    database.write(f"m,device=x value=1 {now}000000000")
    assert len(database.converge(databases=averaged("0s"))["changes"]) == 2
    assert counted(database) == 400
    assert not database.converge(databases=averaged("0s"))["changed"]
    rows = database.rows(f"SELECT * FROM iot.averages.m WHERE time < {now - 399 * 86400}s")
    assert {row["device"] for row in rows} == {"a"}
    assert min(row["min_value"] for row in rows) == 0
    assert max(row["max_value"] for row in rows) == 99


def test_a_policy_that_is_extended_is_filled_and_one_that_is_shortened_loses_nothing_before(database):
    now = int(time.time())
    database.converge(databases=averaged("20d"))
    for days in (1, 40):
        database.write("\n".join(f"m,device=a value={n} {now - days * 86400 - n}000000000" for n in range(100)))
    # In the same run the readings are to be kept for less time than they are old.
    changes = database.converge(databases=averaged("0s", readings="30d"))["changes"]
    assert len(changes) == 3
    assert counted(database) == 200
    assert not database.converge(databases=averaged("0s", readings="30d"))["changed"]
    # Shortened, the policy keeps what is young enough.
    assert len(database.converge(databases=averaged("50d", readings="30d"))["changes"]) == 1
    assert counted(database) == 200


def test_a_run_that_is_interrupted_while_it_computes_is_completed_by_the_next(database, monkeypatch):
    now = int(time.time())
    database.converge(databases=averaged("20d"))
    database.write("\n".join(f"m,device=a value={n} {now - 40 * 86400 - n}000000000" for n in range(100)))

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(influxdb_schema, "backfill", interrupted)
        with pytest.raises(KeyboardInterrupt):
            database.converge(databases=averaged("0s"))
    assert counted(database) == 0
    assert database.converge(databases=averaged("0s"))["changed"]
    assert counted(database) == 100


def test_undeclared_queries_that_match_are_dropped_and_their_averages_are_kept(database):
    database.converge(databases=averaged("0s"))
    database.write("m,device=a value=1 1700000000000000000")
    declared = [{"name": "iot", "continuous_queries": [{"name": "mine", "query": QUERY}]}]
    database.converge(databases=declared)
    purged = [declared[0] | {"purge_continuous_queries": "aver*"}]
    assert len(database.converge(check=True, databases=purged)["changes"]) == 1
    assert len(database.converge(databases=purged)["changes"]) == 1
    assert {row["name"] for row in database.rows("SHOW CONTINUOUS QUERIES")} == {"mine"}
    assert "averages" in {row["name"] for row in database.rows("SHOW RETENTION POLICIES ON iot")}
    assert not database.converge(databases=purged)["changed"]


def test_check_mode_announces_the_query_and_computes_nothing(database):
    database.converge(databases=averaged("20d"))
    planned = database.converge(check=True, databases=averaged("0s"))
    assert len(planned["changes"]) == 2
    assert len(database.converge(databases=averaged("0s"))["changes"]) == 2


@pytest.mark.parametrize(
    "query",
    [
        f"""SELECT mean(*) INTO "iot"."averages".:MEASUREMENT FROM "iot"."autogen"."mqtt_consumer"
           WHERE "device" != '{PROBE}' GROUP BY time(10m), *""",
        'select max("outsidetemp") as "high" into "iot"."averages"."day" from "mqtt_consumer" group by time(24h),"device"',
        "SELECT mean(a)/2 INTO averages.b FROM m WHERE a>1 AND device=~/^x/ GROUP BY time(90m),device fill(none)",
        "SELECT last(a) INTO averages.c FROM /^m.*/ GROUP BY time(1w)",
    ],
)
def test_a_query_with_another_spelling_is_created_once(database, query):
    declared = [{**DATABASES[0], "continuous_queries": [{"name": "q", "query": query}]}]
    assert database.converge(databases=declared)["changed"]
    second = database.converge(databases=declared)
    assert not second["changed"], second["changes"]


@pytest.mark.parametrize("name", ["admin", "chief"])
def test_an_administrator_with_an_unknown_password_is_replaced(database, systemctl, name):
    """Another password, or another administrator: as on a Pi that somebody else has set up."""
    database.converge(admin={"name": "admin", "password": "forgotten"})
    admin = {"name": name, "password": PASSWORD}
    changes = database.converge(admin=admin)["changes"]
    assert changes == [f"user {name}: (another password, or missing) -> all privileges"]
    assert database.server.can_log_in(name, PASSWORD)
    assert not database.converge(admin=admin)["changed"]


def test_an_administrator_without_privileges_gets_them(database, systemctl):
    database.converge()
    database.rows("CREATE USER chief WITH PASSWORD 'x'")
    assert database.converge(admin={"name": "chief", "password": "x"})["changed"]
    assert not database.converge(admin={"name": "chief", "password": "x"})["changed"]


def test_points_survive_a_replaced_administrator(database, systemctl):
    forever = [{"name": "iot", "retention_policies": [{"name": "autogen", "duration": "0s", "default": True}]}]
    database.converge(databases=forever)
    for week in range(5):
        database.write(f"m,device=a value={week} {1600000000 + week * 604800}000000000")
    database.rows("SET PASSWORD FOR admin = 'lost'")
    database.converge(databases=forever)
    assert database.rows("SELECT count(value) FROM iot.autogen.m")[0]["count"] == 5


def test_an_old_password_ends_although_the_server_checks_it_during_the_change(database, monkeypatch):
    """The server caches a password when it has checked it, which takes a moment, even if it was changed meanwhile."""
    database.converge()
    database.program.stop()
    database.start()  # without anything in its cache
    query, logins = influxdb_schema.Server.query, []

    def query_while_clients_log_in(server, statement, credentials=None):
        if statement.startswith("SET PASSWORD") and not logins:
            logins.extend(clients.submit(server.can_log_in, "grafana", "reader's") for _ in range(8))
            time.sleep(0.05)
        return query(server, statement, credentials)

    monkeypatch.setattr(influxdb_schema.Server, "query", query_while_clients_log_in)
    with ThreadPoolExecutor() as clients:
        database.converge(users=[{"name": "grafana", "password": "changed", "grants": []}])
        assert any(login.result() for login in logins)
    server = influxdb_schema.Server("127.0.0.1", database.port)
    assert [server.can_log_in("grafana", password) for password in ("reader's", "changed")] == [False, True]


def test_the_database_listens_in_the_network_only_with_accounts(database, tmp_path):
    result = database.converge(listen=":8086")
    assert result["listen_changed"]
    door = tmp_path / "listen.env"
    assert door.read_text() == "INFLUXDB_HTTP_BIND_ADDRESS=:8086\n"
    assert stat.S_IMODE(door.stat().st_mode) == 0o644
    assert not database.converge(listen=":8086")["changed"]
    assert database.converge()["listen_changed"]
    assert not door.exists()


def test_the_database_is_found_at_its_previous_address(database, tmp_path):
    door = tmp_path / "listen.env"
    door.write_text(f"INFLUXDB_HTTP_BIND_ADDRESS=127.0.0.1:{database.port}\n")
    assert database.converge(port=free_port(), timeout=3)["listen_changed"]
    assert not door.exists()


def test_the_database_stays_on_loopback_without_authentication(database, tmp_path):
    database.converge()
    database.program.stop()
    text = database.configuration.read_text()
    database.configuration.write_text(text.replace("auth-enabled = true", "auth-enabled = false"))
    database.start()
    assert "accepts queries without an account" in database.converge(listen=":8086", fails=True)["msg"]
    assert not (tmp_path / "listen.env").exists()


def test_an_error_names_the_entry(database):
    broken = [{"name": "iot", "continuous_queries": [{"name": "wrong", "query": "SELECT nothing"}]}]
    message = database.converge(databases=broken, fails=True)["msg"]
    assert message.startswith("database iot, continuous query wrong: the database refuses: ")


def test_durations():
    assert influxdb_schema.nanoseconds("30d") == influxdb_schema.nanoseconds("720h0m0s")
    assert influxdb_schema.nanoseconds("INF") == influxdb_schema.nanoseconds("0s") == 0
    with pytest.raises(ValueError, match="is not a duration"):
        influxdb_schema.nanoseconds("30 days")
