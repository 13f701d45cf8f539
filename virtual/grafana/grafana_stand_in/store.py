"""Data that survives a restart: JSON documents by kind and key in an SQLite file.

The file has the name and place of Grafana's own database, so that what saves and restores the one does so with the
other; its only table has a name that Grafana does not use, so that a Grafana installed later finds room beside it.
"""

import json
import os
import sqlite3
import threading
from pathlib import Path
from typing import Any

_TABLE = "stand_in_document"


class Store:
    """All methods may be called from any thread."""

    def __init__(self, path: Path, wal: bool = False) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.is_new = not path.exists()
        if self.is_new:
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o640))
        self._lock = threading.RLock()
        self._connection = sqlite3.connect(path, check_same_thread=False, timeout=10, isolation_level=None)
        self._connection.execute(f"PRAGMA journal_mode={'WAL' if wal else 'DELETE'}")
        self._connection.execute("PRAGMA cache_size=-512")
        self._connection.execute(
            f"CREATE TABLE IF NOT EXISTS {_TABLE} (id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL,"
            " key TEXT NOT NULL, body TEXT NOT NULL, UNIQUE (kind, key))"
        )

    def __enter__(self) -> "Store":
        """Several changes in one transaction."""
        self._lock.acquire()
        self._connection.execute("BEGIN")
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._connection.execute("ROLLBACK" if kind else "COMMIT")
        self._lock.release()

    def get(self, kind: str, key: str) -> dict[str, Any] | None:
        """The document with its number as `id`, or None."""
        with self._lock:
            row = self._connection.execute(
                f"SELECT id, body FROM {_TABLE} WHERE kind = ? AND key = ?", (kind, key)
            ).fetchone()
        return {**json.loads(row[1]), "id": row[0]} if row else None

    def all(self, kind: str) -> list[dict[str, Any]]:
        """All documents of a kind in the order of their creation."""
        with self._lock:
            rows = self._connection.execute(
                f"SELECT id, body FROM {_TABLE} WHERE kind = ? ORDER BY id", (kind,)
            ).fetchall()
        return [{**json.loads(body), "id": number} for number, body in rows]

    def put(self, kind: str, key: str, body: dict[str, Any]) -> dict[str, Any]:
        """Store a document; an existing one keeps its number."""
        text = json.dumps({name: value for name, value in body.items() if name != "id"}, separators=(",", ":"))
        with self._lock:
            self._connection.execute(
                f"INSERT INTO {_TABLE} (kind, key, body) VALUES (?, ?, ?)"
                " ON CONFLICT (kind, key) DO UPDATE SET body = excluded.body",
                (kind, key, text),
            )
            row = self._connection.execute(
                f"SELECT id FROM {_TABLE} WHERE kind = ? AND key = ?", (kind, key)
            ).fetchone()
        return {**body, "id": row[0]}

    def delete(self, kind: str, key: str) -> bool:
        with self._lock:
            return (
                self._connection.execute(f"DELETE FROM {_TABLE} WHERE kind = ? AND key = ?", (kind, key)).rowcount > 0
            )

    def close(self) -> None:
        with self._lock:
            self._connection.close()
