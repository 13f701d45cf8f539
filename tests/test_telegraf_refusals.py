"""Nothing that the broker has acknowledged is lost while the database refuses it, for whatever reason."""

from __future__ import annotations

import functools
import http.server
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import paho.mqtt.client as mqtt
import pytest
from chain import PASSWORD, Chain, _quoted, running, wait_until

pytestmark = pytest.mark.slow

ACCOUNT = f"CREATE USER telegraf WITH PASSWORD {_quoted(PASSWORD)}"
# What breaks → statements that break it, statements that mend it, and the status with which writes are refused meanwhile.
REFUSALS = {
    "its grant was revoked": (["REVOKE ALL ON iot FROM telegraf"], ["GRANT ALL ON iot TO telegraf"], 403),
    "its account is gone": (["DROP USER telegraf"], [ACCOUNT, "GRANT ALL ON iot TO telegraf"], 401),
    "its password was changed": (
        ["SET PASSWORD FOR telegraf = 'another'"]
        * 2,  # the second ends a login that was being checked during the first
        [f"SET PASSWORD FOR telegraf = {_quoted(PASSWORD)}"],
        401,
    ),
    "the database is gone": (["DROP DATABASE iot"], ["CREATE DATABASE iot", "GRANT ALL ON iot TO telegraf"], 404),
    "the retention policy is gone": (
        ["DROP RETENTION POLICY autogen ON iot"],
        ["CREATE RETENTION POLICY autogen ON iot DURATION 0s REPLICATION 1 DEFAULT"],
        500,
    ),
}
ADMIN = f"CREATE USER admin WITH PASSWORD {_quoted(PASSWORD)} WITH ALL PRIVILEGES"


def publish(chain: Chain, *readings: dict, topic: str = "tig/greenhouse/reading") -> None:
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
    client.max_inflight_messages_set(1000)
    client.connect("127.0.0.1", chain.mqtt_port)
    client.loop_start()
    for message in [client.publish(topic, json.dumps(reading), qos=1) for reading in readings]:
        message.wait_for_publish(30)
        assert message.is_published()
    client.disconnect()
    client.loop_stop()


def readings(start: int, count: int) -> list[dict]:
    return [{"outsidetemp": 20, "time": start + number} for number in range(count)]


def stored(chain: Chain, start: int, count: int) -> int:
    window = f"time >= {start}s AND time < {start + count}s"
    found = chain.query(f"SELECT count(outsidetemp) FROM mqtt_consumer WHERE device = 'greenhouse' AND {window}")
    return found[0]["values"][0][1] if found else 0


def log(chain: Chain) -> str:
    return chain.telegraf.log.read_text(errors="replace")


def wait_for_refusal(chain: Chain, status: int) -> None:
    def refused() -> bool:
        return any("::readings" in line and f" {status}" in line for line in log(chain).splitlines())

    wait_until(refused, f"a write is refused with {status}")


def succeeds(chain: Chain, statement: str) -> bool:
    """Nothing can be dropped at the moment at which Telegraf's own metrics create a shard in it."""
    try:
        chain.query(statement)
    except RuntimeError as error:
        if "directory not empty" in str(error):
            return False
        raise
    return True


@pytest.fixture
def chain(tmp_path) -> Iterator[Chain]:
    with running(tmp_path / "chain") as chain:
        publish(chain, *readings(1_700_000_000, 10))
        wait_until(lambda: stored(chain, 1_700_000_000, 10) == 10, "readings are stored")
        yield chain


@pytest.mark.parametrize("restarted", [False, True], ids=["", "Telegraf is restarted meanwhile"])
@pytest.mark.parametrize("refusal", REFUSALS)
def test_refused_points_are_kept_and_stored_later(chain, refusal, restarted):
    broken, mended, status = REFUSALS[refusal]
    for statement in broken:
        wait_until(functools.partial(succeeds, chain, statement), statement)
        time.sleep(0.5)
    publish(chain, *readings(1_700_001_000, 500))
    wait_for_refusal(chain, status)
    if restarted:
        chain.telegraf.stop()
        chain.start_telegraf()
        publish(chain, *readings(1_700_001_500, 500))
    for statement in mended:
        chain.query(statement)
    count = 1000 if restarted else 500
    wait_until(lambda: stored(chain, 1_700_001_000, count) == count, f"all {count} are stored", 30)


def test_points_that_a_database_without_accounts_refuses_are_kept(chain):
    """Its administrator is gone: it answers 403 to everybody, until there is one again."""
    chain.query("DROP USER admin")
    publish(chain, *readings(1_700_002_000, 500))
    wait_for_refusal(chain, 403)
    configuration = chain.directory / "influxdb.conf"
    text = configuration.read_text()
    for authentication in ("false", "true"):  # as the role influxdb gets in again
        chain.database.stop()
        configuration.write_text(text.replace("auth-enabled = true", f"auth-enabled = {authentication}"))
        chain.start_database()
        if authentication == "false":
            chain.query(ADMIN)
    wait_until(lambda: stored(chain, 1_700_002_000, 500) == 500, "all 500 are stored", 30)


def test_stored_names_are_accepted_although_the_database_refuses_at_the_start(tmp_path):
    with running(tmp_path / "chain", site={"site_new_names_per_day": 5}) as chain:
        known = [f"known-{number}" for number in range(20)]
        chain.write(*(f"mqtt_consumer,device={name} x=1 1700000000000000000" for name in known))
        chain.telegraf.stop()
        chain.query("REVOKE ALL ON iot FROM telegraf")
        chain.start_telegraf()
        wait_until(lambda: "does not return its names" in log(chain), "it was asked for its names")
        publish(chain, *({"device": name, "x": 2, "time": 1_700_000_001} for name in known), topic="mats/test")
        time.sleep(2)
        chain.query("GRANT ALL ON iot TO telegraf")
        count = "SELECT count(x) FROM mqtt_consumer WHERE time = 1700000001s"
        wait_until(lambda: (found := chain.query(count)) and found[0]["values"][0][1] == 20, "all are stored", 30)


@pytest.fixture
def refusing(tmp_path) -> Iterator[tuple[Chain, list[int]]]:
    """A chain, and a list: the statuses with which its next writes are refused before they reach the database."""
    statuses: list[int] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.path.startswith("/write") and statuses:
                status, content = statuses.pop(0), b'{"error":"refused"}'
            else:
                request = urllib.request.Request(
                    f"http://127.0.0.1:{chain.http_port}{self.path}", body or None, dict(self.headers.items())
                )
                try:
                    with urllib.request.urlopen(request, timeout=30) as response:
                        status, content = response.status, response.read()
                except urllib.error.HTTPError as error:
                    status, content = error.code, error.read()
            self.send_response(status)
            if status != 204:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if status != 204:
                self.wfile.write(content)

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    chain = Chain(tmp_path / "chain", site={"site_database_port": server.server_port})
    try:
        chain.start()
        yield chain, statuses
    finally:
        chain.stop()
        server.shutdown()
        server.server_close()


def test_points_are_kept_for_every_status_of_a_temporary_error(refusing):
    """Of those that a server gives to what it may take later."""
    chain, statuses = refusing
    publish(chain, *readings(1_700_000_000, 10))
    wait_until(lambda: stored(chain, 1_700_000_000, 10) == 10, "readings are stored", 30)
    for number, status in enumerate((401, 403, 404, 408, 409, 429, 500, 502, 503, 504, 507)):
        start = 1_700_010_000 + 1000 * number
        statuses.extend([status] * 4)
        publish(chain, *readings(start, 100))
        wait_until(lambda s=start: stored(chain, s, 100) == 100, f"all 100 are stored after {status}", 30)
        assert not statuses


def test_a_point_that_cannot_be_stored_does_not_cost_other_points(chain):
    """Its field is an integer in the database: 400, a part of the batch was written. It holds up nothing."""
    chain.write("mqtt_consumer,device=other airpressure=1i 1700000000000000000")
    chain.database.stop()
    mixed = readings(1_700_000_100, 400)
    mixed[200] |= {"airpressure": 1013.25}
    publish(chain, *mixed)
    chain.start_database()
    wait_until(lambda: stored(chain, 1_700_000_100, 400) == 399, "all others are stored", 30)
    publish(chain, *readings(1_700_000_600, 10))
    wait_until(lambda: stored(chain, 1_700_000_600, 10) == 10, "what comes later is stored")


def test_no_batch_is_larger_than_the_limit_of_the_database(tmp_path):
    """25 MB. A number with an exponent is thirty times as long in the database's protocol."""
    with running(tmp_path / "chain", site={"site_new_names_per_day": 200}) as chain:
        small = {f"field{number}": 1.5e300 for number in range(60)}
        large = {f"field{number}": 1.5e300 for number in range(100)}
        chain.write(f"mqtt_consumer {','.join(f'{name}=1' for name in large)} 1700000000000000000")
        chain.telegraf.stop()
        publish(chain, *({**large, "time": 1_700_000_100 + number} for number in range(1000)))
        publish(chain, *({**small, "time": 1_700_002_000 + number} for number in range(1000)))
        publish(chain, *readings(1_700_004_000, 1000))
        chain.start_telegraf()
        wait_until(lambda: stored(chain, 1_700_004_000, 1000) == 1000, "what came beside them is stored", 60)
        wait_until(lambda: chain.counters().get("too_long") == 1000, "those that are too long are rejected and counted")
        count = "SELECT count(field1) FROM mqtt_consumer WHERE time >= 1700002000s AND time < 1700003000s"
        wait_until(
            lambda: (found := chain.query(count)) and found[0]["values"][0][1] == 1000, "the others are stored", 60
        )
        assert "status 413" not in log(chain)
