"""Start Grafana from its Debian package, which is unpacked into a temporary directory, on loopback.

The package is that of the stand-in in virtual/grafana, or the file in TIG_PI_GRAFANA_DEB. The tests must pass with both.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import yaml
from chain import Program, free_port, program, wait_until
from project import REPOSITORY

STAND_IN = REPOSITORY / "virtual/grafana"
PASSWORD = "first secret"
_SECONDS = 90

INI = """\
[paths]
data = {directory}/data
logs = {directory}/log
plugins = {directory}/plugins
provisioning = {directory}/provisioning
[server]
http_addr = 127.0.0.1
http_port = {port}
[database]
wal = true
[security]
admin_user = admin
admin_password = $__file{{{directory}/admin_password}}
secret_key = $__env{{TIG_PI_TEST_KEY}}
[analytics]
reporting_enabled = false
check_for_updates = false
check_for_plugin_updates = false
[plugins]
preinstall_disabled = true
[log]
mode = console
"""

PROVIDER = """\
apiVersion: 1
providers:
  - name: tig
    folder: tig-pi
    type: file
    updateIntervalSeconds: 1
    options: {path: DIRECTORY/dashboards}
"""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


_opener = urllib.request.build_opener(_NoRedirect, urllib.request.ProxyHandler({}))


def unpack(directory: Path) -> Path:
    """Unpack Grafana below the directory and return its home path."""
    package = os.environ.get("TIG_PI_GRAFANA_DEB")
    if not package:
        command = [sys.executable, str(STAND_IN / "package.py"), str(directory)]
        package = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    root = directory / "root"
    subprocess.run(["dpkg-deb", "-x", package, str(root)], check=True)
    return root / "usr/share/grafana"


class Answer:
    """A response: status, headers, text, and its JSON or None."""

    def __init__(self, status: int, headers: Any, content: bytes) -> None:
        self.status = status
        self.headers = headers
        self.text = content.decode(errors="replace")
        try:
            self.json = json.loads(content)
        except ValueError:
            self.json = None


class Grafana:
    """A server with its own files."""

    def __init__(self, home: Path, directory: Path, ini: str = INI) -> None:
        self.home = home
        self.directory = directory
        self.port = free_port()
        self.password = PASSWORD
        for name in ("datasources", "dashboards", "alerting", "plugins"):
            (directory / "provisioning" / name).mkdir(parents=True, exist_ok=True)
        for name in ("data", "log", "plugins", "dashboards"):
            (directory / name).mkdir(exist_ok=True)
        (directory / "admin_password").write_text(PASSWORD + "\n")
        self.config = directory / "grafana.ini"
        self.config.write_text(ini.format(directory=directory, port=self.port))
        self.provision("dashboards", PROVIDER.replace("DIRECTORY", str(directory)))
        self._program = Program(
            [
                str(home / "bin/grafana"),
                "server",
                f"--homepath={home}",
                f"--config={self.config}",
                f"--pidfile={directory}/grafana.pid",
                "--packaging=deb",
            ],
            directory / "log.txt",
            {"TIG_PI_TEST_KEY": "key", "TIG_PI_TEST_PASSWORD": "reader's $ecret"},
        )

    def provision(self, topic: str, content: Any, name: str = "test.yaml") -> None:
        """Write a provisioning file."""
        text = content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False)
        (self.directory / "provisioning" / topic / name).write_text(text)

    def dashboard(self, name: str, content: Any) -> Path:
        """Write a dashboard into the directory of the provider."""
        path = self.directory / "dashboards" / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    @property
    def log(self) -> str:
        return (self.directory / "log.txt").read_text(errors="replace")

    def start(self) -> Grafana:
        """Start the server and wait until it is ready and has read the dashboards."""
        self.launch()
        wait_until(lambda: self._ready() or self.ended, f"Grafana ready; log:\n{self.log[-2000:]}", _SECONDS)
        assert self.ended is None, f"Grafana ended with {self.ended}:\n{self.log[-4000:]}"
        return self

    def launch(self) -> None:
        self._seen = len(self.log) if (self.directory / "log.txt").exists() else 0
        self._program.start()

    def _ready(self) -> bool:
        text = self.log[self._seen :]
        if "finished to provision dashboards" not in text and "Failed to provision config" not in text:
            return False
        with contextlib.suppress(OSError):
            return self.call("GET", "/api/health", login=None).status == 200
        return False

    @property
    def ended(self) -> int | None:
        """The exit code, or None while it runs."""
        return self._program.process.poll() if self._program.process else None

    def wait_for_end(self) -> int:
        """Wait until the server ends, and return its exit code."""
        wait_until(lambda: self.ended is not None, "Grafana ended", _SECONDS)
        return self._program.process.returncode

    def stop(self) -> None:
        self._program.stop()

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        login: tuple[str, str] | None = ("admin", ""),
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """Send a request, as the administrator by default."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, method=method)
        request.add_header("Content-Type", "application/json")
        if login:
            name, password = login[0], login[1] or self.password
            request.add_header("Authorization", "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode())
        for key, value in (headers or {}).items():
            request.add_header(key, value)
        try:
            with _opener.open(request, timeout=30) as response:
                return Answer(response.status, response.headers, response.read())
        except urllib.error.HTTPError as error:
            return Answer(error.code, error.headers, error.read())

    def get(self, path: str) -> Any:
        """Send a GET request that must succeed, and return its JSON."""
        answer = self.call("GET", path)
        assert answer.status == 200, f"{path}: {answer.status} {answer.text}"
        return answer.json

    def cli(self, *arguments: str, text: str = "") -> subprocess.CompletedProcess:
        command = [self.home / "bin/grafana", "cli", "--homepath", self.home, "--config", self.config, *arguments]
        environment = {**os.environ, "TIG_PI_TEST_KEY": "key"}
        return subprocess.run(
            command, input=text, capture_output=True, text=True, env=environment, cwd=self.home, check=False
        )


class Influx:
    """A real InfluxDB 1.x with authentication, database `iot` and a user that may read it."""

    def __init__(self, directory: Path) -> None:
        self.port, rpc_port = free_port(), free_port()
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "influxdb.conf").write_text(
            f'reporting-disabled = true\nbind-address = "127.0.0.1:{rpc_port}"\n[meta]\ndir = "{directory}/meta"\n'
            f'[data]\ndir = "{directory}/data"\nwal-dir = "{directory}/wal"\n[monitor]\nstore-enabled = false\n'
            f'[http]\nbind-address = "127.0.0.1:{self.port}"\nauth-enabled = true\nlog-enabled = false\n'
        )
        command = [program("influxd", "influxdb"), "-config", str(directory / "influxdb.conf")]
        self._program = Program(command, directory / "influxdb.log")

    def start(self) -> Influx:
        self._program.start()
        wait_until(self._answers, "InfluxDB ready")
        return self

    def _answers(self) -> bool:
        try:
            return _opener.open(f"http://127.0.0.1:{self.port}/ping", timeout=5).status == 204
        except OSError:
            return False

    def stop(self) -> None:
        self._program.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _post(self, path: str, body: bytes) -> bytes:
        request = urllib.request.Request(self.url + path, body, method="POST")
        request.add_header("Authorization", "Basic " + base64.b64encode(b"admin:admin").decode())
        with _opener.open(request, timeout=20) as response:
            return response.read()

    def query(self, text: str) -> dict[str, Any]:
        answer = json.loads(self._post("/query", urllib.parse.urlencode({"q": text}).encode()))
        assert "error" not in json.dumps(answer), answer
        return answer

    def write(self, *lines: str) -> None:
        self._post("/write?db=iot&precision=s", "\n".join(lines).encode())

    def fill(self) -> None:
        """Create the users, and the points of two devices for ten minutes, one per minute: d0 at 20.5 degrees, d1 at 10."""
        self.query("CREATE USER admin WITH PASSWORD 'admin' WITH ALL PRIVILEGES")
        self.query("CREATE DATABASE iot")
        self.query("CREATE USER grafana WITH PASSWORD 'reader\\'s $ecret'")
        self.query("GRANT READ ON iot TO grafana")
        self.fresh_points()

    def fresh_points(self) -> None:
        now = int(time.time())
        times = [now - 60 * minute for minute in range(10)]
        self.write(
            *(f"mqtt_consumer,device=d0 outsidetemp=20.5,outsidehumidity=53 {at}" for at in times),
            *(f"mqtt_consumer,device=d1 outsidetemp=10 {at}" for at in times),
            f'device_status,device=d0 online=1,waiting_for="none" {now}',
        )
