"""A client of InfluxDB 1.x: InfluxQL over HTTP."""

from __future__ import annotations

import base64
import contextlib
import json
import urllib.error
import urllib.parse
import urllib.request

NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class InfluxError(Exception):
    """The server refused; the message is the server's."""


class Unauthorised(InfluxError):
    """Wrong name or password."""


class NoAdmin(InfluxError):
    """There is no administrator yet."""


def local_address(address: str) -> tuple[str, int]:
    """Host and port at which a server with this bind address is reached from its own host."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    return ("127.0.0.1" if host in ("", "0.0.0.0", "::") else host), int(port)


class Server:
    """InfluxQL and the line protocol over HTTP on one address."""

    def __init__(self, host: str, port: int) -> None:
        self.url = f"http://{'[' + host + ']' if ':' in host else host}:{port}"
        self.credentials: tuple[str, str] | None = None

    @classmethod
    def at(cls, url: str, credentials: tuple[str, str] | None = None) -> Server:
        parts = urllib.parse.urlsplit(url)
        server = cls(parts.hostname, parts.port)
        server.credentials = credentials
        return server

    def answers(self) -> bool:
        try:
            with NO_PROXY.open(f"{self.url}/ping", timeout=5) as response:
                return response.status in (200, 204)
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False

    def query(self, statement: str, credentials: tuple[str, str] | None = None) -> list[dict]:
        """The series of one statement.

        Raises:
            Unauthorised, NoAdmin, InfluxError: the server refuses.
        """
        answer = json.loads(self._post("query", urllib.parse.urlencode({"q": statement}), credentials))
        results = answer.get("results", [{}])
        if answer.get("error") or results[0].get("error"):
            raise InfluxError(answer.get("error") or results[0]["error"])
        return results[0].get("series", [])

    def write(self, database: str, retention_policy: str, lines: str) -> None:
        """Write points in the line protocol.

        Raises:
            Unauthorised, InfluxError: the server refuses some or all of them.
        """
        self._post("write?" + urllib.parse.urlencode({"db": database, "rp": retention_policy}), lines, timeout=120)

    def _post(self, path: str, body: str, credentials: tuple[str, str] | None = None, timeout: float = 60) -> bytes:
        request = urllib.request.Request(f"{self.url}/{path}", body.encode())
        credentials = credentials or self.credentials
        if credentials:
            token = base64.b64encode(":".join(credentials).encode()).decode()
            request.add_header("Authorization", f"Basic {token}")
        try:
            with NO_PROXY.open(request, timeout=timeout) as response:
                return response.read()
        except urllib.error.HTTPError as error:
            said = error.read().decode(errors="replace")
            with contextlib.suppress(ValueError, AttributeError):
                said = json.loads(said).get("error", said)
            if "create admin user first" in said:
                raise NoAdmin(said) from error
            raise (Unauthorised if error.code == 401 else InfluxError)(said) from error

    def rows(self, statement: str) -> list[dict]:
        return [
            dict(zip(series["columns"], row, strict=True))
            for series in self.query(statement)
            for row in series.get("values", [])
        ]

    def can_log_in(self, name: str, password: str) -> bool:
        try:
            self.query("SHOW DATABASES", (name, password))
        except Unauthorised:
            return False
        return True
