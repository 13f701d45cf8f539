"""From the broker to the database, from outside: what is stored, what is not lost, and what is refused."""

from __future__ import annotations

import base64
import contextlib
import json
import pathlib
import time
import urllib.error
import urllib.parse
import urllib.request

import paho.mqtt.client as mqtt
import pytest
import yaml

PROJECT = pathlib.Path(__file__).parents[3]
TABLE = yaml.safe_load((PROJECT / "tests/data/messages.yml").read_text(encoding="utf-8"))
CONTENT = PROJECT / "templates/telegraf"


def wait_until(condition, what: str, seconds: float = 30):
    end = time.monotonic() + seconds
    while True:
        with contextlib.suppress(ConnectionRefusedError):  # the database is starting
            if value := condition():
                return value
        assert time.monotonic() < end, f"{what} within {seconds:g} s"
        time.sleep(0.2)


@pytest.fixture
def secret(inventory):
    return lambda name: (inventory / "secrets" / name).read_text().strip()


@pytest.fixture
def query(pi, secret):
    """All points of a query as dictionaries, with their tags."""

    def query(statement: str) -> list[dict]:
        body = urllib.parse.urlencode({"q": statement, "db": "iot", "epoch": "ns"}).encode()
        request = urllib.request.Request(f"http://{pi.address}:{pi.port(8086)}/query", body)
        token = base64.b64encode(f"admin:{secret('influxdb/admin')}".encode()).decode()
        request.add_header("Authorization", f"Basic {token}")
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                results = json.load(response)["results"]
        except urllib.error.URLError as error:
            raise error.reason if isinstance(error.reason, OSError) else error from None
        return [
            {**series.get("tags", {}), **dict(zip(series["columns"], row, strict=True))}
            for result in results
            for series in result.get("series", [])
            for row in series["values"]
        ]

    return query


@pytest.fixture
def publish(pi, secret):
    clients = {}

    def connected(account: str) -> mqtt.Client:
        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=f"test-{account}")
        client.username_pw_set(account, secret(f"mosquitto/{account}"))
        client.connect(pi.address, pi.port(1883))
        client.loop_start()
        return client

    def publish(topic: str, *payloads: str | bytes, retain: bool = False) -> None:
        account = "mats" if topic == "mats/test" else topic.split("/")[1]
        client = clients.setdefault(account, None) or clients.update({account: connected(account)}) or clients[account]
        for message in [client.publish(topic, payload, qos=1, retain=retain) for payload in payloads]:
            message.wait_for_publish(30)
            assert message.is_published()

    yield publish
    for client in clients.values():
        client.disconnect()
        client.loop_stop()


def payload_of(row: dict) -> bytes:
    if "base64" in row:
        return base64.b64decode(row["base64"])
    text = row["payload"].replace("DIGITS", "9" * row.get("digits", 0))
    return text.replace("AHEAD", str(int(time.time()) + row.get("ahead", 0))).encode() * row.get("repeat", 1)


def counters(query) -> dict[str, float]:
    return {row["reason"]: row["last"] for row in query('SELECT last("count") FROM pipeline GROUP BY reason')}


def readings(start: int, count: int) -> list[str]:
    return [json.dumps({"outsidetemp": 25, "time": start + number}) for number in range(count)]


def stored(query, start: int, count: int) -> int:
    """How many of these readings the database has; 0 while it does not answer."""
    window = f"time >= {start}s AND time < {start + count}s"
    try:
        found = query(f"SELECT count(outsidetemp) FROM mqtt_consumer WHERE device = 'greenhouse' AND {window}")
    except OSError:
        return 0
    return found[0]["count"] if found else 0


def test_each_row_of_the_table_of_messages(query, publish, probe):
    """tests/test_telegraf_messages.py tests them one by one; this test uses the accounts and the services."""
    rows = [row for row in TABLE if row["topic"] != f"tig/{probe}/reading"]
    before = wait_until(lambda: counters(query), "the counters are written")
    for row in rows:
        publish(row["topic"], payload_of(row))
    publish("tig/greenhouse/reading", '{"marker": 1, "time": 1600000000}')
    wait_until(lambda: query("SELECT marker FROM mqtt_consumer"), "the last one is stored")
    wanted: dict[str, int] = {}
    for row in rows:
        for reason, number in row["counted"].items():
            wanted[reason] = wanted.get(reason, 0) + number

    def grown() -> dict:
        return {reason: now - before[reason] for reason, now in counters(query).items() if now != before[reason]}

    wait_until(lambda: grown() == wanted, f"{wanted} are counted")
    points = query("SELECT * FROM mqtt_consumer WHERE time > 0 GROUP BY device")
    assert len(points) == len([row for row in rows if "point" in row]) + 1
    [tutorial] = [point for point in points if point["time"] == 1626093639 * 10**9]
    assert {name: value for name, value in tutorial.items() if value is not None} == {
        "time": 1626093639000000000,
        "device": "MatsLopy4",
        "outsidehumidity": 53,
        "outsidetemp": 25,
        "airpressure": 1018.61,
        "soilhumidity": 0.6999512,
    }


def test_a_retained_reading_without_a_time_is_stored_once(host, query, publish):
    """Whatever is restarted: otherwise the broker would send it again each time, and it would count as new."""
    publish("mats/test", '{"device": "retained", "outsidetemp": 25}', retain=True)
    count = "SELECT count(outsidetemp) FROM mqtt_consumer WHERE device = 'retained'"
    wait_until(lambda: query(count), "it is stored")
    for number, service in enumerate(("telegraf", "mosquitto", "telegraf")):
        host.run_expect([0], f"systemctl restart {service}")
        time.sleep(2)  # the client of this test notices, too
        publish("tig/greenhouse/reading", *readings(1_600_100_000 + number, 1))
        wait_until(lambda n=number: stored(query, 1_600_100_000 + n, 1) == 1, "what came later is stored", 60)
    assert query(count)[0]["count"] == 1
    publish("mats/test", "", retain=True)


def test_secrets_are_in_one_file_that_only_root_can_read(host, secret):
    file = host.file("/etc/telegraf/telegraf.env")
    assert (file.user, file.group, file.mode) == ("root", "root", 0o600)
    elsewhere = host.run(
        "cat /etc/telegraf/*.conf /etc/telegraf/telegraf.d/* /proc/*/cmdline; systemctl cat telegraf; "
        "systemctl show telegraf; journalctl --no-pager"
    ).stdout
    for name in ("mosquitto/telegraf", "influxdb/telegraf"):
        assert secret(name) not in elsewhere


def test_tags_work_alone(host, converge):
    for interval in ("3s", "2s"):
        run = converge("--tags=telegraf_configure", telegraf_interval=interval)
        assert run.returncode == 0, run.stdout
        assert f'interval = "{interval}"' in host.file("/etc/telegraf/telegraf.conf").content_string
    for tag in ("telegraf_run", "mosquitto_configure", "influxdb_run"):
        run = converge(f"--tags={tag}", "--check")
        assert run.returncode == 0, run.stdout
        assert "changed=0" in run.stdout


def test_no_port_is_open(host):
    assert "telegraf" not in host.run("ss --listening --tcp --udp --numeric --processes").stdout


def test_metrics_of_the_pi_and_of_the_services(query):
    for measurement, field in (
        ("cpu", "usage_idle"),
        ("mem", "used_percent"),
        ("disk", "used_percent"),
        ("system", "uptime"),
        ("mosquitto", "clients_connected"),
        ("internal_write", "metrics_written"),
    ):
        wait_until(lambda m=measurement, f=field: query(f"SELECT last({f}) FROM {m}"), f"{measurement} is there")


def test_it_starts_without_a_broker(host, query, publish):
    host.run_expect([0], "systemctl stop mosquitto telegraf")
    host.run_expect([0], "systemctl start telegraf")
    assert host.service("telegraf").is_running
    host.run_expect([0], "systemctl start mosquitto")
    publish("tig/greenhouse/reading", *readings(1_500_100_000 + 10**8, 10))
    wait_until(lambda: stored(query, 1_500_100_000 + 10**8, 10) == 10, "ten readings are stored", 60)


@pytest.mark.parametrize("service", ["telegraf", "influxdb"])
@pytest.mark.parametrize("how", ["stop", "kill --signal=KILL"])
def test_no_reading_is_lost_while_a_service_is_down(host, query, publish, service, how):
    start = 1_610_000_000 + 10_000 * ["telegraf", "influxdb"].index(service) + 100_000 * ["stop"].count(how)
    publish("tig/greenhouse/reading", *readings(start, 300))
    host.run_expect([0], f"systemctl {how} {service}")
    publish("tig/greenhouse/reading", *readings(start + 300, 600))
    host.run_expect([0], f"systemctl start {service}")
    publish("tig/greenhouse/reading", *readings(start + 900, 100))
    wait_until(lambda: stored(query, start, 1000) == 1000, "all thousand are stored", 60)


@pytest.mark.parametrize(
    ("broken", "mended"),
    [
        ("REVOKE ALL ON iot FROM telegraf", "GRANT ALL ON iot TO telegraf"),
        (
            "DROP RETENTION POLICY autogen ON iot",
            "CREATE RETENTION POLICY autogen ON iot DURATION 0s REPLICATION 1 DEFAULT",
        ),
    ],
)
def test_no_reading_is_lost_while_the_database_refuses_it(query, publish, broken, mended):
    """tests/test_telegraf_refusals.py has more reasons, on the other InfluxDB."""
    start = 1_625_000_000 + 10_000 * broken.count("POLICY")
    query(broken)
    publish("tig/greenhouse/reading", *readings(start, 500))
    time.sleep(5)  # longer than a flush
    query(mended)
    wait_until(lambda: stored(query, start, 500) == 500, "all 500 are stored", 60)


def test_no_reading_is_lost_when_the_broker_restarts(host, query, publish):
    start = 1_630_000_000
    host.run_expect([0], "systemctl stop influxdb")
    publish("tig/greenhouse/reading", *readings(start, 500))
    host.run_expect([0], "systemctl restart mosquitto")
    time.sleep(2)  # the client of this test notices, too
    publish("tig/greenhouse/reading", *readings(start + 500, 500))
    host.run_expect([0], "systemctl start influxdb")
    wait_until(lambda: stored(query, start, 1000) == 1000, "all thousand are stored", 90)


@pytest.mark.parametrize("how", ["restart telegraf", "kill --signal=KILL telegraf", "restart influxdb telegraf"])
def test_stored_names_are_accepted_after_a_restart_whatever_else_arrives(host, query, publish, how):
    start = 1_635_000_000 + 1000 * len(how)
    publish("mats/test", json.dumps({"device": "known", "outsidetemp": 1, "time": start}))
    stored = "SELECT outsidetemp FROM mqtt_consumer WHERE device = 'known' AND time >= %ds AND time <= %ds"
    wait_until(lambda: query(stored % (start, start)), "an undeclared device is stored")
    flood = [json.dumps({"device": f"{how}-{number}", "outsidetemp": 1}) for number in range(500)]
    host.run_expect([0], f"systemctl {how}")
    publish("mats/test", *flood, json.dumps({"device": "known", "outsidetemp": 2, "time": start + 1}))
    wait_until(lambda: query(stored % (start + 1, start + 1)), "it is stored once more")
    wait_until(lambda: counters(query)["undeclared_device"] >= 450, "most of the flood is counted")
    names = {row["value"] for row in query('SHOW TAG VALUES FROM mqtt_consumer WITH KEY = "device"')}
    assert len([name for name in names if name.startswith(how)]) <= 50


def test_memory_has_limits(host):
    shown = host.run_expect([0], "systemctl show mosquitto influxdb telegraf --property=MemoryMax,Environment").stdout
    assert shown.count("GOMEMLIMIT=") == 2
    assert "MemoryMax=infinity" not in shown


def test_a_changed_password_converges_everywhere(converge, inventory, query, publish):
    for name in ("mosquitto/telegraf", "influxdb/telegraf"):
        (inventory / "secrets" / name).write_text('it\'s "new" and has $HOME \\ in it %n\n')
    run = converge()
    assert run.returncode == 0, run.stdout
    assert "it's" not in run.stdout
    publish("tig/greenhouse/reading", *readings(1_640_000_000, 10))
    wait_until(lambda: stored(query, 1_640_000_000, 10) == 10, "ten readings are stored")
    assert "changed=0" in converge().stdout


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        ("[[inputs.cpu]]\n  percpus = true\n", 'the fields ["percpus"]'),
        ("[[inputs.cpus]]\n", "undefined but requested input: cpus"),
        ("[[inputs.cpu]\n", "invalid"),
        ('[[outputs.influxdb]]\n  password = "${FORGOTTEN}"\n', "telegraf_secrets has no FORGOTTEN"),
        ('[[processors.starlark]]\n  source = "def apply(metric) return metric"\n', "processors.starlark"),
    ],
)
def test_an_invalid_configuration_is_refused_and_telegraf_runs_on(host, converge, tmp_path, template, sentence):
    (tmp_path / "wrong.conf.j2").write_text(template)
    before = host.run("ls -lR /etc/telegraf; systemctl show telegraf --property=MainPID").stdout
    templates = [*map(str, sorted(CONTENT.glob("*.conf.j2"))), str(tmp_path / "wrong.conf.j2")]
    run = converge("--tags=telegraf", telegraf_config_templates=templates)
    assert run.returncode != 0
    assert sentence in " ".join(run.stdout.replace("\\'", "'").replace('\\"', '"').split())
    assert host.run("ls -lR /etc/telegraf; systemctl show telegraf --property=MainPID").stdout == before


def test_the_file_of_a_removed_template_is_removed(host, converge):
    templates = [str(path) for path in sorted(CONTENT.glob("*.conf.j2")) if path.name != "host.conf.j2"]
    assert converge("--tags=telegraf", telegraf_config_templates=templates).returncode == 0
    assert not host.file("/etc/telegraf/telegraf.d/host.conf").exists
    assert converge("--tags=telegraf").returncode == 0
    assert host.file("/etc/telegraf/telegraf.d/host.conf").exists


def test_no_reading_is_lost_in_a_power_cut(query, publish, pi):
    """Readings from before are stored, and later ones arrive."""
    publish("tig/greenhouse/reading", *readings(1_650_000_000, 100))
    wait_until(lambda: stored(query, 1_650_000_000, 100) == 100, "a hundred readings are stored")
    pi.power_cut()
    wait_until(lambda: stored(query, 1_650_000_000, 100) == 100, "they are still there")


def test_readings_arrive_after_a_reboot(query, publish, pi):
    pi.reboot()
    publish("tig/greenhouse/reading", *readings(1_660_000_000, 10))
    wait_until(lambda: stored(query, 1_660_000_000, 10) == 10, "ten readings are stored", 60)


def test_a_service_that_does_not_stay_up_fails_the_role(fails_to_start):
    fails_to_start("telegraf")
