"""The chain broker → Telegraf → database on private loopback ports, from the repository's own templates.

The programs are the real ones: mosquitto, telegraf and influxd. They are looked for on the PATH and then in the debs of
the feed and of the cache, since nothing of them need be installed on the machine that tests.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.tig_pi.stack.plugins.filter.averages import averages_policies, averages_queries, averages_span
from project import CONTRACT, PROBE, REPOSITORY

TEMPLATES = REPOSITORY / "templates" / "telegraf"
CACHE = Path(
    os.environ.get("TIG_PI_CACHE") or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "tig-pi"
)
DEBIAN_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "armhf"}
PASSWORD = "a\"b\\c$d'e ${HOME}#%25 ö"  # as awkward as a password may be

AVERAGES = [{"interval": "10m", "retention": "0s"}, {"interval": "1h", "retention": "0s"}]
SITE = {
    "ansible_managed": "Ansible managed",
    "site_name": "test",
    "site_timezone": "Europe/Stockholm",
    "site_topic_prefix": "tig",
    "site_extra_topics": ["mats/test"],
    "site_measurement": "mqtt_consumer",
    "site_database": "iot",
    "site_clock_tolerance_minutes": 5,
    "site_new_names_per_day": 50,
    "site_write_interval_seconds": 1,
    "site_devices": [{"name": "greenhouse"}],
    "site_averages_queries": averages_queries(AVERAGES, "iot", "mqtt_consumer", PROBE),
    "site_averages_span": averages_span(AVERAGES),
    "telegraf_interval": "100ms",
    "telegraf_max_undelivered_messages": 10000,
    "site_readings": [
        {"field": "outsidetemp", "title": "Outside temperature"},
        {"field": "outsidehumidity", "title": "Outside humidity"},
        {"field": "airpressure", "title": "Air pressure"},
        {"field": "soilhumidity", "title": "Soil humidity"},
    ],
}
# Where the services of a rendered configuration are, if they are not started.
ADDRESSES = {
    "site_broker_address": "127.0.0.1",
    "site_broker_port": 1883,
    "site_database_address": "127.0.0.1",
    "site_database_port": 8086,
}


@functools.cache
def program(name: str, package: str) -> str:
    """Path of a program: installed here, or unpacked from a deb of the feed, or of the distribution's own.

    Raises:
        FileNotFoundError: it can be had from none of these; the message says how to get it.
    """
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found:
        return found
    architecture = DEBIAN_ARCHITECTURES.get(platform.machine(), "amd64")
    in_feeds = (CACHE / "feed").glob(f"*{architecture}/{package}_*.deb")
    for deb in sorted(in_feeds, key=lambda path: path.stat().st_mtime, reverse=True):
        if path := _in_package([deb], name):
            return path
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        if path := _in_package(_downloaded(package), name):
            return path
    raise FileNotFoundError(
        f"{name} is not here, and the package {package} is in no feed and does not come from apt; `make test` fills a feed."
    )


def _in_package(debs: list[Path], name: str) -> str | None:
    """Path of a program in these packages, unpacked together."""
    root = CACHE / "debs" / "unpacked" / f"{debs[0].stem}-{int(debs[0].stat().st_mtime)}"
    if not root.exists():
        partial = root.with_name(f"{root.name}.{os.getpid()}")
        partial.mkdir(parents=True)
        for deb in debs:
            subprocess.run(["dpkg-deb", "-x", deb, partial], check=True)
        with contextlib.suppress(OSError):  # another run was faster
            partial.rename(root)
    return next((str(root / place / name) for place in ("usr/bin", "usr/sbin") if (root / place / name).exists()), None)


@functools.cache
def _downloaded(package: str) -> list[Path]:
    """The distribution's package, and after it the libraries that it needs and that are not installed here."""
    folder = CACHE / "debs" / "downloaded"
    folder.mkdir(parents=True, exist_ok=True)
    command = ["apt-get", "--print-uris", "--yes", "--no-install-recommends", "install", package]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    files = [line.split()[1] for line in listed if line.startswith("'")]
    files.sort(key=lambda file: file.partition("_")[0] != package)
    if missing := [file.partition("_")[0] for file in files if not (folder / file).exists()]:
        with tempfile.TemporaryDirectory(dir=folder) as unfinished:  # several tests may fetch the same
            subprocess.run(["apt-get", "download", *missing], cwd=unfinished, capture_output=True, check=True)
            for path in Path(unfinished).glob("*.deb"):
                path.replace(folder / path.name)
    return [folder / file for file in files]


def libraries(program: str) -> dict[str, str]:
    """The environment in which an unpacked program finds the libraries that were unpacked with it."""
    root = Path(program).parents[2]
    if CACHE not in root.parents:
        return {}
    return {"LD_LIBRARY_PATH": ":".join(map(str, sorted((root / "usr/lib").glob("*-linux-gnu*"))))}


def render(template: Path, variables: dict) -> str:
    """A template as the tree module renders it."""
    templar = Templar(loader=DataLoader(), variables=variables)
    text = trust_as_template(template.read_text(encoding="utf-8"))
    return templar.template(text, escape_backslashes=False, overrides={"trim_blocks": True, "lstrip_blocks": True})


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_until(condition, what: str, seconds: float = 20.0):
    """The first true value of condition(); polls, since these programs tell nobody else."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise TimeoutError(f"{what} within {seconds:g} s")
        time.sleep(0.05)


class Program:
    """One child process with its log in a file; stop() ends it and nothing else."""

    def __init__(self, command: list[str], log: Path, environment: dict | None = None) -> None:
        self.command, self.log = command, log
        self.environment = {**libraries(command[0]), **(environment or {})}
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.environment},
            )

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self.process and self.process.poll() is None:
            self.process.send_signal(how)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Chain:
    """Broker, database and Telegraf; publish at one end, query at the other."""

    def __init__(self, directory: Path, site: dict | None = None, agent: str = "", broker_options: str = "") -> None:
        self.directory = directory
        self.mqtt_port, self.http_port, rpc_port = free_port(), free_port(), free_port()
        self.site = {
            **SITE,
            "site_broker_address": "127.0.0.1",
            "site_broker_port": self.mqtt_port,
            "site_database_address": "127.0.0.1",
            "site_database_port": self.http_port,
            **(site or {}),
        }
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "mosquitto").mkdir()
        (directory / "mosquitto.conf").write_text(
            f"listener {self.mqtt_port} 127.0.0.1\nallow_anonymous true\npersistence true\nuser {_user()}\n"
            f"persistence_location {directory}/mosquitto/\nautosave_interval 5\nsys_interval 1\n"
            f"max_inflight_messages 1000\nmax_queued_messages 100000\nmessage_size_limit {CONTRACT['message_bytes']}\n{broker_options}\n"
        )
        (directory / "influxdb.conf").write_text(
            f'reporting-disabled = true\nbind-address = "127.0.0.1:{rpc_port}"\n'
            f'[meta]\ndir = "{directory}/influxdb/meta"\n[data]\ndir = "{directory}/influxdb/data"\n'
            f'wal-dir = "{directory}/influxdb/wal"\nindex-version = "tsi1"\n'
            "query-log-enabled = false\n[monitor]\nstore-enabled = false\n"
            f'[http]\nbind-address = "127.0.0.1:{self.http_port}"\nauth-enabled = true\nlog-enabled = false\n'
        )
        (directory / "telegraf.conf").write_text(
            agent
            or '[agent]\ninterval = "200ms"\nflush_interval = "100ms"\n'
            "metric_batch_size = 5000\nmetric_buffer_limit = 10000\nomit_hostname = true\n"
            "skip_processors_after_aggregators = true\n"
        )
        telegraf_d = directory / "telegraf.d"
        telegraf_d.mkdir()
        (directory / "status.json").write_text("[]\n")  # of backups
        for template in sorted(TEMPLATES.glob("*.conf.j2")):
            text = render(template, self.site)
            # Written ten times as often as in life, so that tests wait less.
            text = text.replace('flush_interval = "1s"', 'flush_interval = "100ms"').replace(
                "SETTLED = max(60, INTERVAL)", "SETTLED = 2"
            )
            text = text.replace('  interval = "10s"\n', "").replace("WAIT = 3600", "WAIT = 5")
            text = text.replace("/var/lib/tig-pi/backup/status", f"{directory}/status")
            (telegraf_d / template.stem).write_text(text)
        self.broker = Program(
            [program("mosquitto", "mosquitto"), "-c", f"{directory}/mosquitto.conf"], directory / "mosquitto.log"
        )
        self.database = Program(
            [program("influxd", "influxdb"), "-config", f"{directory}/influxdb.conf"], directory / "influxdb.log"
        )
        self.telegraf = Program(
            [
                program("telegraf", "telegraf"),
                "--config",
                f"{directory}/telegraf.conf",
                "--config-directory",
                str(telegraf_d),
            ],
            directory / "telegraf.log",
            {"MQTT_PASSWORD": PASSWORD, "INFLUXDB_PASSWORD": PASSWORD},
        )

    def start(self) -> None:
        self.start_database()
        self.create()
        self.start_broker()
        self.start_telegraf()

    def create(self) -> None:
        """The accounts and the database."""
        self.query(f"CREATE USER admin WITH PASSWORD {_quoted(PASSWORD)} WITH ALL PRIVILEGES", login=False)
        self.query("CREATE DATABASE iot")
        for policy in averages_policies(AVERAGES):
            self.query(
                f'CREATE RETENTION POLICY "{policy["name"]}" ON "iot" DURATION {policy["duration"]} REPLICATION 1'
            )
        self.query(f"CREATE USER telegraf WITH PASSWORD {_quoted(PASSWORD)}; GRANT ALL ON iot TO telegraf")

    def start_broker(self) -> None:
        self.broker.start()
        wait_until(lambda: _reachable(self.mqtt_port), "the broker listens")

    def start_database(self) -> None:
        self.database.start()
        wait_until(lambda: _reachable(self.http_port), "the database listens")

    def start_telegraf(self) -> None:
        seen = (
            self.telegraf.log.read_text(errors="replace").count("[inputs.mqtt_consumer::reading] Connected")
            if self.telegraf.log.exists()
            else 0
        )
        self.telegraf.start()
        wait_until(
            lambda: (
                self.telegraf.log.read_text(errors="replace").count("[inputs.mqtt_consumer::reading] Connected") > seen
            ),
            "Telegraf is connected",
        )

    def stop(self) -> None:
        for one in (self.telegraf, self.broker, self.database):
            one.stop()

    def ask(self, path: str, data: bytes, login: bool = True) -> bytes:
        """What the database answers to a POST."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.http_port}/{path}", data=data)
        if login:
            credentials = base64.b64encode(f"admin:{PASSWORD}".encode()).decode()
            request.add_header("Authorization", f"Basic {credentials}")
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.read()

    def write(self, *lines: str) -> None:
        """Store points past Telegraf, in the line protocol."""
        self.ask("write?db=iot", "\n".join(lines).encode())

    def query(self, text: str, login: bool = True) -> list[dict]:
        """The series of an InfluxQL query: name, tags, columns, values; times in nanoseconds."""
        parameters = {"q": text, "db": "iot", "epoch": "ns"}
        answer = json.loads(self.ask("query", urllib.parse.urlencode(parameters).encode(), login))
        errors = [result["error"] for result in answer["results"] if "error" in result]
        if errors:
            raise RuntimeError(f"{text}: {errors}")
        return [series for result in answer["results"] for series in result.get("series", [])]

    def counters(self) -> dict[str, float]:
        """Reason → messages or fields, as last reported."""
        found = {}
        for series in self.query('SELECT last("count") FROM pipeline GROUP BY reason'):
            found[series["tags"]["reason"]] = series["values"][0][1]
        return found


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _user() -> str:
    import getpass

    return getpass.getuser()


def _reachable(port: int) -> bool:
    with socket.socket() as client:
        client.settimeout(1)
        return client.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def running(directory: Path, **options) -> Iterator[Chain]:
    """A chain that is up, and gone afterwards whatever happens."""
    chain = Chain(directory, **options)
    try:
        chain.start()
        yield chain
    finally:
        chain.stop()
