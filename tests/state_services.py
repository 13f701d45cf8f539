"""The services' state files, made by the real programs, damaged as a power cut damages them, and looked after.

What tests and `bench/state-files` share: for each service a class that fills a directory with state (`root` stands for
the host's root directory), and says what of it is there when the service has been started on it again.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import queue
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import paho.mqtt.client as mqtt
from ansible_collections.tig_pi.stack.plugins.filter import mosquitto as filters
from chain import Program, _reachable, free_port, program, wait_until
from project import REPOSITORY

WEEK = 7 * 86400  # seconds


def _torn(content: bytes, size: int = 512) -> bytes:
    """One sector in the middle is another file's."""
    middle = len(content) // 2
    block = random.Random(7).randbytes(min(size, len(content) - middle))
    return content[:middle] + block + content[middle + len(block) :]


DAMAGE = {
    "empty": lambda content: b"",
    "NULs": lambda content: bytes(len(content)),
    "NULs at the end": lambda content: content[: len(content) // 2] + bytes(len(content) - len(content) // 2),
    "truncated": lambda content: content[: len(content) // 2],
    "garbage": lambda content: random.Random(7).randbytes(len(content)),
    "garbage in the middle": _torn,
}


class Service:
    """What the services have in common."""

    name: str
    state: Path  # the program under test

    def __init__(self, root: Path) -> None:
        self.root = root

    def start(self) -> bool:
        """Whether it starts, and stays. Those that have no program here are looked at as files."""
        return True

    def stop(self) -> None:
        """End it."""

    def run(self, verb: str, *options: str) -> subprocess.CompletedProcess[str]:
        """The program that looks after the state files, as the unit and the playbook run it."""
        return subprocess.run(
            [sys.executable, self.state, verb, f"--root={self.root}", *options],
            env={**os.environ, "PYTHONPATH": str(REPOSITORY / "plugins/module_utils")},
            capture_output=True,
            text=True,
            check=False,
        )

    def report(self) -> dict:
        return json.loads(self.run("report").stdout)

    def path(self, name: str) -> Path:
        return self.root / name.lstrip("/")

    def damage(self, path: Path, how: str) -> bytes:
        """Damage a file; what it is like afterwards."""
        whole = path.read_bytes()
        used = whole.rstrip(b"\0") if len(whole) == 4 << 20 else whole  # InfluxDB takes room ahead for series
        content = DAMAGE[how](used)
        path.write_bytes(content)
        return content


class Broker(Service):
    """Mosquitto with a client that is away and has messages waiting, and with retained ones."""

    name = "mosquitto"
    state = REPOSITORY / "roles/mosquitto/files/mosquitto-state"
    store = "/var/lib/mosquitto/mosquitto.db"
    waiting = 500
    retained = 50

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.port = free_port()
        self.path(self.store).parent.mkdir(parents=True, exist_ok=True)
        configuration = root / "mosquitto.conf"
        configuration.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\npersistence true\nuser root\n"
            f"persistence_location {self.path(self.store).parent}/\nmax_queued_messages 100000\n"
            "max_inflight_messages 1000\npersistent_client_expiration 14d\nlog_type all\n"
        )
        self.broker = Program([program("mosquitto", "mosquitto"), "-c", str(configuration)], root / "mosquitto.log")

    def start(self) -> bool:
        """Whether it is there and stays."""
        self.broker.start()
        try:
            wait_until(lambda: self.broker.process.poll() is not None or _reachable(self.port), "the broker listens")
        except TimeoutError:
            return False
        return self.broker.process.poll() is None

    def stop(self) -> None:
        self.broker.stop()

    def files(self) -> dict[str, Path]:
        return {"mosquitto.db": self.path(self.store)}

    def client(self, name: str, clean: bool = True) -> mqtt.Client:
        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=name, clean_session=clean)
        client.told = queue.Queue()
        client.on_connect = lambda *arguments: client.told.put(("connected", arguments[2].session_present))
        client.on_subscribe = lambda *arguments: client.told.put(("subscribed", None))
        client.on_message = lambda _client, _data, message: client.told.put((message.topic, message.payload))
        client.connect("127.0.0.1", self.port)
        client.loop_start()
        assert client.told.get(timeout=10)[0] == "connected"
        return client

    def close(self, client: mqtt.Client) -> None:
        client.disconnect()
        client.loop_stop()

    def make(self) -> None:
        assert self.start()
        away = self.client("away", clean=False)
        away.subscribe("tig/+/reading", qos=1)
        assert away.told.get(timeout=10)[0] == "subscribed"
        self.close(away)
        device = self.client("device")
        for number in range(self.retained):
            device.publish(f"tig/{number}/status", f"retained {number}", qos=1, retain=True)
        for number in range(self.waiting):
            last = device.publish("tig/device/reading", f"waiting {number}", qos=1)
        last.wait_for_publish(20)
        self.close(device)
        self.stop()
        assert self.run("start").stdout == ""

    def there(self) -> dict[str, int]:
        """How many messages wait for the client that was away, and how many retained ones there are."""
        back = self.client("away", clean=False)
        back.subscribe("tig/+/status", qos=1)
        asked = self.client("asking")
        asked.subscribe("end/#")
        wait_until(lambda: asked.told.qsize(), "the subscription")
        found = {"waiting": 0, "retained": 0}
        while True:
            try:
                topic, payload = back.told.get(timeout=0.5)
            except queue.Empty:
                break
            if topic.startswith("tig/"):
                kind, number = payload.decode().split()
                assert topic == ("tig/device/reading" if kind == "waiting" else f"tig/{number}/status")
                found[kind] += 1
        self.close(back)
        self.close(asked)
        return found


class Accounts(Service):
    """The broker's files of accounts and topics, each with its second copy."""

    name = "mosquitto"
    state = REPOSITORY / "roles/mosquitto/files/mosquitto-state"

    def make(self) -> None:
        accounts = [
            {"name": name, "password": name, "topics": [{"topic": f"tig/{name}/#", "access": "write"}]}
            for name in ("a", "b", "c")
        ]
        contents = [filters.mosquitto_password_file(accounts, "pi", 10), filters.mosquitto_acl_file(accounts)]
        contents.append(filters.mosquitto_accounts_file(accounts, "pi", 10))
        for path, content in zip(self.files().values(), contents, strict=True):
            for each in (path, self.copy(path)):
                each.parent.mkdir(parents=True, exist_ok=True)
                each.write_text(content)

    def files(self) -> dict[str, Path]:
        return {name: self.path(f"/etc/mosquitto/{name}") for name in ("passwd", "acl", "accounts")}

    def copy(self, path: Path) -> Path:
        return self.path(f"/var/lib/tig-pi/mosquitto/copies/{path.name}")

    def there(self) -> dict[str, int]:
        texts = [path.read_bytes() if path.exists() else b"" for path in self.files().values()]
        counts = (text.count(word) for text, word in zip(texts, (b":$7$", b"topic write", b"id "), strict=True))
        return dict(zip(("accounts", "topics", "ids"), counts, strict=True))


class Database(Service):
    """InfluxDB with points in two shards: some in data files, the newest in the write-ahead log. The power has been cut."""

    name = "influxdb"
    state = REPOSITORY / "roles/influxdb/files/influxdb-state"
    directory = "/var/lib/influxdb"
    points = 3000  # in each of: the older shard's data, the newer one's data, and its log
    batch = 100

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.port, self.rpc_port = free_port(), free_port()
        # The last one at midnight. Shards begin on Mondays, so on no day of a test is one of them between points that belong together.
        self.thursday = int(time.time()) // WEEK * WEEK
        self.database = Program(
            [program("influxd", "influxdb"), "-config", str(root / "influxdb.conf")], root / "influxdb.log"
        )

    def start(self, snapshot_after: str = "10m") -> bool:
        here = self.path(self.directory)
        (self.root / "influxdb.conf").write_text(
            f'reporting-disabled = true\nbind-address = "127.0.0.1:{self.rpc_port}"\n'
            f'[meta]\ndir = "{here}/meta"\n[data]\ndir = "{here}/data"\nwal-dir = "{here}/wal"\n'
            'index-version = "tsi1"\nquery-log-enabled = false\nwal-fsync-delay = "100ms"\n'
            f'cache-snapshot-write-cold-duration = "{snapshot_after}"\n[monitor]\nstore-enabled = false\n'
            f'[http]\nbind-address = "127.0.0.1:{self.port}"\nauth-enabled = true\nlog-enabled = false\n'
        )
        self.database.start()
        process = self.database.process
        try:
            wait_until(lambda: process.poll() is not None or _reachable(self.port), "the database listens")
        except TimeoutError:
            return False
        return process.poll() is None

    def stop(self) -> None:
        self.database.stop()

    def power_cut(self) -> None:
        self.database.stop(signal.SIGKILL)

    def ask(self, path: str, body: bytes, login: bool = True) -> dict:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", body)
        if login:
            request.add_header("Authorization", "Basic " + base64.b64encode(b"admin:secret").decode())
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.loads(response.read() or b"{}")

    def query(self, text: str, login: bool = True) -> list[dict]:
        answer = self.ask("/query?db=iot&epoch=s", urllib.parse.urlencode({"q": text}).encode(), login)
        return [series for result in answer["results"] for series in result.get("series", [])]

    def write(self, start: int, device: str) -> None:
        for first in range(start, start + self.points, self.batch):
            times = range(first, first + self.batch)
            lines = (f'm,device={device} value={at % 97},text="n{at}" {at}' for at in times)
            self.ask("/write?db=iot&precision=s", "\n".join(lines).encode())

    def make(self) -> None:
        assert self.run("start").returncode == 0
        assert self.start(snapshot_after="1s")
        self.query("CREATE USER admin WITH PASSWORD 'secret' WITH ALL PRIVILEGES", login=False)
        self.query("CREATE DATABASE iot")
        self.write(self.thursday - 21 * 86400, "old")
        self.write(self.thursday - 20000, "new")
        data = self.path(f"{self.directory}/data/iot/autogen")
        wait_until(lambda: len(list(data.glob("*/*.tsm"))) >= 2, "both shards have a file of data", 40)
        self.stop()
        assert self.run("stopped").returncode == 0
        assert self.run("start").returncode == 0
        assert self.start()
        self.write(self.thursday - 10000, "log")
        time.sleep(0.3)  # of the log's interval between two writes to the card
        self.power_cut()

    def files(self) -> dict[str, Path]:
        """One file of each kind, the newer shard's."""
        data = self.path(f"{self.directory}/data/iot")
        shard = max((path for path in data.glob("autogen/*")), key=lambda path: int(path.name))
        log = max(shard.glob("index/*/*.tsl"), key=lambda path: path.stat().st_size)
        found = {
            "meta.db": self.path(f"{self.directory}/meta/meta.db"),
            "write-ahead log": max(self.path(f"{self.directory}/wal/iot/autogen/{shard.name}").glob("*.wal")),
            "data (.tsm)": max(shard.glob("*.tsm")),
            "index: MANIFEST": log.parent / "MANIFEST",
            "index: log (.tsl)": log,
            "fields.idx": shard / "fields.idx",
            "series": max(data.glob("_series/*/0000"), key=lambda path: len(path.read_bytes().rstrip(b"\0"))),
        }
        return found

    def there(self) -> dict[str, int]:
        """How many points of each kind there are, and whether a new one is taken."""
        try:
            self.ask("/write?db=iot", b'm,device=after value=1,text="a"')
        except urllib.error.HTTPError as error:
            return {"error": error.code}
        counted = self.query('SELECT count("value") FROM m GROUP BY device')
        found = {series["tags"]["device"]: series["values"][0][1] for series in counted}
        assert found.pop("after", 0) == 1, found
        return {device: found.get(device, 0) for device in ("old", "new", "log")}


class Dashboards(Service):
    """Grafana's database, as SQLite has it: Grafana's own tables of migrations, and 2000 rows that people have made."""

    name = "grafana-server"
    state = REPOSITORY / "roles/grafana/files/grafana-server-state"
    database = "/var/lib/grafana/grafana.db"
    dashboards = 2000

    def make(self) -> None:
        path = self.path(self.database)
        path.parent.mkdir(parents=True)
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("CREATE TABLE migration_log (id INTEGER PRIMARY KEY AUTOINCREMENT, migration_id TEXT)")
            connection.execute("CREATE TABLE dashboard (id INTEGER PRIMARY KEY AUTOINCREMENT, title TEXT, data BLOB)")
            connection.execute("CREATE UNIQUE INDEX UQE_dashboard_title ON dashboard (title)")
            connection.executemany(
                "INSERT INTO migration_log (migration_id) VALUES (?)", [(f"m{n}",) for n in range(300)]
            )
            rows = [(f"dashboard {number}", bytes([number % 256]) * 100) for number in range(self.dashboards)]
            connection.executemany("INSERT INTO dashboard (title, data) VALUES (?, ?)", rows)
            connection.commit()

    def files(self) -> dict[str, Path]:
        return {"grafana.db": self.path(self.database)}

    def there(self) -> dict[str, int]:
        """Rows of a database that SQLite finds nothing wrong with; an error if it does."""
        path = self.path(self.database)
        if not path.exists():
            return {"migrations": 0, "dashboards": 0}
        with contextlib.closing(sqlite3.connect(path)) as connection:
            (answer,) = connection.execute("PRAGMA integrity_check").fetchone()
            assert answer == "ok"
            for number, data in connection.execute("SELECT title, data FROM dashboard"):
                assert data == bytes([int(number.split()[1]) % 256]) * 100
            counts = [
                connection.execute(f"SELECT count(*) FROM {t}").fetchone()[0] for t in ("migration_log", "dashboard")
            ]
        return dict(zip(("migrations", "dashboards"), counts, strict=True))


class Flows(Service):
    """Node-RED's files, in a directory of their own."""

    name = "node-red"
    state = REPOSITORY / "roles/node_red/files/node-red-state"
    directory = "/var/lib/node-red"
    nodes = 40
    values = 40

    def make(self) -> None:
        root = self.path(self.directory)
        (root / "context/global").mkdir(parents=True)
        nodes = [{"id": f"n{number}", "type": "debug", "name": "ü" * 20, "wires": []} for number in range(self.nodes)]
        (root / "flows.json").write_text(json.dumps(nodes, indent=4))
        (root / ".flows.json.backup").write_text(json.dumps(nodes[:-1], indent=4))
        (root / "flows_cred.json").write_text(json.dumps({"$": "0" * 32 + "A" * 200 + "="}))
        (root / ".flows_cred.json.backup").write_text(json.dumps({"$": "0" * 32 + "B" * 200 + "="}))
        values = {f"value {number}": {"raised": True, "at": number} for number in range(self.values)}
        (root / "context/global/global.json").write_text(json.dumps(values, indent=4))
        (root / ".config.runtime.json").write_text(json.dumps({"instanceId": "x", "telemetryEnabled": False}))

    def files(self) -> dict[str, Path]:
        names = ("flows.json", "flows_cred.json", "context/global/global.json", ".config.runtime.json")
        return {name: self.path(f"{self.directory}/{name}") for name in names}

    def there(self) -> dict[str, int]:
        """How many nodes and values there are, in files that Node-RED can read."""
        read = {name: json.loads(path.read_text()) for name, path in self.files().items() if path.exists()}
        return {
            "nodes": len(read.get("flows.json", [])),
            "credentials": len(read.get("flows_cred.json", [])),
            "values": len(read.get("context/global/global.json", [])),
        }


def copied(service: Service, root: Path) -> Service:
    """The same state in another directory."""
    if root.exists():
        shutil.rmtree(root)
    shutil.copytree(service.root, root)
    return type(service)(root)
