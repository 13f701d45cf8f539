"""The database, as clients in the local network see it."""

from __future__ import annotations

import base64
import json
import time
import urllib.error
import urllib.parse
import urllib.request

import pytest


class Database:
    def __init__(self, pi, secrets) -> None:
        self.url = f"http://{pi.address}:{pi.port(8086)}"
        self.secrets = secrets

    def send(self, path: str, body: bytes, user: str | None, password: str | None = None) -> tuple[int, dict]:
        request = urllib.request.Request(self.url + path, body)
        if user:
            password = password or (self.secrets / user).read_text().strip()
            token = base64.b64encode(f"{user}:{password}".encode()).decode()
            request.add_header("Authorization", f"Basic {token}")
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return response.status, json.loads(response.read() or b"{}")
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read() or b"{}")

    def query(self, statement: str, user: str | None = "admin", password: str | None = None) -> tuple[int, list]:
        status, answer = self.send("/query?db=iot", urllib.parse.urlencode({"q": statement}).encode(), user, password)
        return status, [series for result in answer.get("results", []) for series in result.get("series", [])]

    def write(self, line: str, user: str | None = "telegraf") -> int:
        return self.send("/write?db=iot", line.encode(), user)[0]

    def wait(self) -> None:
        """Wait until it answers."""
        for _ in range(100):
            try:
                return self.query("SHOW DATABASES")
            except OSError:
                time.sleep(0.2)
        raise TimeoutError("the database does not answer")

    def rows(self, statement: str) -> list[dict]:
        return [dict(zip(s["columns"], row, strict=True)) for s in self.query(statement)[1] for row in s["values"]]


@pytest.fixture
def database(host, pi, inventory):
    """The database on the Pi of `host`."""
    return Database(pi, inventory / "secrets/influxdb")
