"""Data sources from files in provisioning/datasources. They are kept in the store; their secrets only in memory."""

import hashlib
import threading
from pathlib import Path
from typing import Any

from . import yaml_files
from .errors import ApiError, StartError, coded
from .expand import ExpandError, interpolate_all
from .log import Logger
from .store import Store
from .values import flag, text

_log = Logger("provisioning.datasources")

# Grafana's built-in types with their names. The stand-in can query only InfluxDB.
TYPE_NAMES = {
    "influxdb": "InfluxDB",
    "prometheus": "Prometheus",
    "loki": "Loki",
    "graphite": "Graphite",
    "mysql": "MySQL",
    "postgres": "PostgreSQL",
    "grafana-postgresql-datasource": "PostgreSQL",
    "elasticsearch": "Elasticsearch",
    "grafana-testdata-datasource": "TestData",
}


def _entries(data: Any, key: str, path: Path) -> list[dict]:
    if data is None:
        return []
    if not isinstance(data, dict):
        raise StartError(f"yaml: unmarshal errors:\n  cannot unmarshal the content of {path} into datasources")
    entries = data.get(key) or []
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise StartError(f"yaml: unmarshal errors:\n  cannot unmarshal {key} of {path}: a list of mappings is needed")
    return entries


class DataSources:
    """The data sources of the organisation."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._secrets: dict[str, dict[str, str]] = {}
        self._lock = threading.Lock()

    def provision(self, directory: Path) -> None:
        """Update the store from the files. Raises StartError with Grafana's message."""
        with self._lock:
            try:
                self._provision(directory)
            except (yaml_files.YamlError, ExpandError, StartError) as error:
                raise StartError(f"Datasource provisioning error: {error}") from error

    def _read(self, directory: Path) -> tuple[list[dict], list[dict]]:
        try:
            paths = yaml_files.files(directory)
        except OSError as error:
            _log.error("can't read datasource provisioning files from directory", path=directory, error=error)
            return [], []
        wanted, unwanted, defaults = [], [], 0
        for path in paths:
            try:
                data = yaml_files.load(path)
            except OSError as error:
                raise StartError(f"open {path}: {(error.strerror or '').lower()}") from error
            prune = flag(data.get("prune")) if isinstance(data, dict) else False
            for entry in _entries(data, "datasources", path):
                source = self._entry(entry, prune)
                defaults += source["isDefault"]
                if defaults > 1:
                    raise StartError(
                        "datasource.yaml config is invalid. "
                        "Only one datasource per organization can be marked as default"
                    )
                wanted.append(source)
            unwanted += [{"name": text(entry.get("name"))} for entry in _entries(data, "deleteDatasources", path)]
        return wanted, unwanted

    @staticmethod
    def _entry(entry: dict, prune: bool) -> dict[str, Any]:
        access = text(entry.get("access")) or "proxy"
        if access not in ("proxy", "direct"):
            _log.warn("invalid access value, will use 'proxy' instead", value=access)
            access = "proxy"
        json_data = entry.get("jsonData") or {}
        secure = entry.get("secureJsonData") or {}
        return {
            "name": text(entry.get("name")),
            "uid": text(entry.get("uid")),
            "type": text(entry.get("type")),
            "access": access,
            "url": text(entry.get("url")),
            "user": text(entry.get("user")),
            "database": text(entry.get("database")),
            "basicAuth": flag(entry.get("basicAuth")),
            "isDefault": flag(entry.get("isDefault")),
            "jsonData": interpolate_all(json_data) if isinstance(json_data, dict) else {},
            "secure": {key: text(value) for key, value in secure.items()} if isinstance(secure, dict) else {},
            "readOnly": not flag(entry.get("editable")),
            "prunable": prune,
        }

    def _provision(self, directory: Path) -> None:
        wanted, unwanted = self._read(directory)
        names = {source["name"] for source in wanted}
        for stale in [source for source in self._store.all("datasource") if source.get("prunable")]:
            if stale["name"] not in names:
                self._delete(stale)
        for entry in unwanted:
            existing = next((s for s in self._store.all("datasource") if s["name"] == entry["name"]), None)
            if existing:
                self._delete(existing)
                _log.info("deleted datasource based on configuration", name=entry["name"])
        for source in wanted:
            self._save(source)

    def _save(self, source: dict[str, Any]) -> None:
        if not source["name"]:
            raise StartError("unique identifier and org id are needed to be able to get or delete a datasource")
        secure = source.pop("secure")
        existing = {s["name"]: s for s in self._store.all("datasource")}
        old = existing.get(source["name"])
        if not source["uid"]:
            digest = hashlib.sha256(source["name"].encode()).hexdigest()[:16].upper()
            source["uid"] = old["uid"] if old else "P" + digest
        if any(s["uid"] == source["uid"] and s["name"] != source["name"] for s in existing.values()):
            raise StartError("data source with the same uid already exists")
        with self._store:
            if source["isDefault"]:
                for other in existing.values():
                    if other["isDefault"] and other["name"] != source["name"]:
                        self._store.put("datasource", other["name"], {**other, "isDefault": False})
            if not old:
                _log.info("inserting datasource from configuration", name=source["name"], uid=source["uid"])
            self._store.put("datasource", source["name"], source)
        self._secrets[source["name"]] = secure

    def _delete(self, source: dict[str, Any]) -> None:
        self._store.delete("datasource", source["name"])
        self._secrets.pop(source["name"], None)

    def all(self) -> list[dict[str, Any]]:
        """Data sources as GET /api/datasources lists them."""
        return sorted(
            (self._public(source) for source in self._store.all("datasource")), key=lambda s: s["name"].lower()
        )

    def find(self, uid: str) -> dict[str, Any] | None:
        """The stored data source with its secrets under `secure`, or None."""
        for source in self._store.all("datasource"):
            if source["uid"] == uid or (uid == "default" and source["isDefault"]):
                return {**source, "secure": self._secrets.get(source["name"], {})}
        return None

    @staticmethod
    def _public(source: dict[str, Any]) -> dict[str, Any]:
        kind = source["type"]
        known = kind in TYPE_NAMES
        return {
            "id": source["id"],
            "uid": source["uid"],
            "orgId": 1,
            "name": source["name"],
            "type": kind,
            "typeName": TYPE_NAMES.get(kind, kind),
            "typeLogoUrl": f"public/plugins/{kind}/img/{kind}_logo.svg" if known else "public/img/icn-datasource.svg",
            "access": source["access"],
            "url": source["url"],
            "user": source["user"],
            "database": source["database"],
            "basicAuth": source["basicAuth"],
            "isDefault": source["isDefault"],
            "jsonData": source["jsonData"],
            "readOnly": source["readOnly"],
        }

    def delete(self, uid: str) -> dict[str, Any]:
        """Delete a data source by request. Raises ApiError."""
        source = self.find(uid)
        if source is None:
            raise ApiError(404, "Data source not found")
        if source["readOnly"]:
            raise ApiError(403, "Cannot delete read-only data source")
        with self._lock:
            self._delete(source)
        return {"id": source["id"], "message": "Data source deleted"}


def not_registered() -> ApiError:
    return coded(404, "plugin.notRegistered", "Plugin not registered")
