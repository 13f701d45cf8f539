"""Dashboards and folders: from the files of providers, and created by hand."""

import hashlib
import json
import re
import secrets
import string
import threading
import unicodedata
from pathlib import Path
from typing import Any

from . import yaml_files
from .clock import now
from .errors import ApiError, StartError
from .expand import ExpandError, interpolate_all
from .log import Logger
from .store import Store
from .values import flag, number, text

_log = Logger("provisioning.dashboard")
_UID = re.compile(r"[a-zA-Z0-9\-_]*")
_LETTERS = string.ascii_lowercase + string.digits
GENERAL = ""  # the uid of the root folder


def new_uid() -> str:
    return "d" + "".join(secrets.choice(_LETTERS) for _ in range(13))


def slug(title: str) -> str:
    """The title in the form that URLs use."""
    plain = unicodedata.normalize("NFKD", title.replace("&", " and ").replace("@", " at "))
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    return re.sub(r"[^a-z0-9_]+", "-", plain.lower()).strip("-") or hashlib.md5(title.encode()).hexdigest()


def _content(model: dict[str, Any]) -> dict[str, Any]:
    """A dashboard without the fields that saving it changes."""
    return {key: value for key, value in model.items() if key not in ("id", "uid", "version")}


def check_uid(uid: str) -> None:
    """Raises ApiError for a uid that Grafana refuses."""
    if len(uid) > 40:
        raise ApiError(400, "uid too long, max 40 characters")
    if not _UID.fullmatch(uid):
        raise ApiError(400, "uid contains illegal characters")


class Library:
    """Folders and dashboards of the organisation."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def folders(self) -> list[dict[str, Any]]:
        return self.store.all("folder")

    def folder(self, uid: str) -> dict[str, Any] | None:
        return self.store.get("folder", uid)

    def folder_by_title(self, title: str, uid: str = "") -> dict[str, Any]:
        """The folder with this title, or with `uid` if it is given. It is created if it does not exist."""
        if uid and (folder := self.folder(uid)):
            return folder
        if not uid:
            for folder in self.folders():
                if folder["title"] == title:
                    return folder
        return self.create_folder(title, uid)

    def create_folder(self, title: str, uid: str = "") -> dict[str, Any]:
        """Raises ApiError."""
        uid = uid or new_uid()
        check_uid(uid)
        if not title:
            raise ApiError(400, "folder title cannot be empty")
        if self.folder(uid):
            raise ApiError(412, "the folder has been changed by someone else")
        return self.store.put(
            "folder", uid, {"uid": uid, "title": title, "created": now(), "updated": now(), "version": 1}
        )

    def dashboards(self) -> list[dict[str, Any]]:
        return self.store.all("dashboard")

    def dashboard(self, uid: str) -> dict[str, Any] | None:
        return self.store.get("dashboard", uid)

    def save(
        self, model: dict[str, Any], folder_uid: str, provisioning: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Store a dashboard. Raises ApiError if Grafana would refuse it."""
        title = model.get("title") or ""
        if not isinstance(title, str) or not title.strip():
            raise ApiError(400, "Dashboard title cannot be empty", status="empty-name")
        uid = model.get("uid") or new_uid()
        check_uid(uid)
        old = self.dashboard(uid) or {"created": now(), "version": 0, "model": {}}
        changed = _content(model) != _content(old["model"]) or folder_uid != old["folderUid"]
        record = {
            "uid": uid,
            "title": title.strip(),
            "tags": [str(tag) for tag in model.get("tags") or []],
            "folderUid": folder_uid,
            "version": old["version"] + changed,
            "created": old["created"],
            "updated": now(),
            "provisioning": provisioning,
        }
        record = self.store.put("dashboard", uid, {**record, "model": {}})
        model = {**model, "id": record["id"], "uid": uid, "title": record["title"], "version": record["version"]}
        return self.store.put("dashboard", uid, {**record, "model": model})

    def delete(self, uid: str) -> None:
        self.store.delete("dashboard", uid)


class Provider:
    """One entry of a provider file: a directory of dashboards."""

    def __init__(self, entry: dict[str, Any], library: Library) -> None:
        self.name = text(entry.get("name"))
        self.folder = text(entry.get("folder"))
        self.folder_uid = text(entry.get("folderUid"))
        self.kind = text(entry.get("type")) or "file"
        self.interval = number(entry.get("updateIntervalSeconds")) or 10
        self.disable_deletion = flag(entry.get("disableDeletion"))
        self.allow_ui_updates = flag(entry.get("allowUiUpdates"))
        options = interpolate_all(entry.get("options") or {})
        path = options.get("path", options.get("folder"))
        if not isinstance(path, str):
            raise StartError("failed to load dashboards, path param is not a string")
        self.by_directory = options.get("foldersFromFilesStructure") is True
        if self.by_directory and self.folder and self.folder_uid:
            raise StartError("'folder' and 'folderUID' should be empty using 'foldersFromFilesStructure' option")
        self.path = Path(path)
        self.restricted = False
        self.uids: list[str] = []
        self.titles: list[tuple[str, str]] = []
        self._library = library
        self._seen: dict[str, str] = {}

    def walk(self) -> None:
        """Update the library from the directory. Raises OSError if the directory does not exist."""
        if not self.path.exists():
            _log.error("Cannot read directory", error=f"stat {self.path}: no such file or directory")
            raise FileNotFoundError(f"stat {self.path}: no such file or directory")
        root = self.path.resolve()
        found = sorted(
            path
            for path in root.rglob("*.json")
            if path.is_file() and not any(part.startswith(".") for part in path.relative_to(root).parts[:-1])
        )
        known = {d["provisioning"]["externalId"]: d for d in self._mine()}
        self._forget({str(path) for path in found}, known)
        self.uids, self.titles = [], []
        for path in found:
            self._read(path, root, known.get(str(path)))

    def _mine(self) -> list[dict[str, Any]]:
        return [d for d in self._library.dashboards() if (d["provisioning"] or {}).get("provider") == self.name]

    def _forget(self, found: set[str], known: dict[str, dict[str, Any]]) -> None:
        for path, dashboard in known.items():
            if path in found:
                continue
            if self.disable_deletion:
                self._library.store.put("dashboard", dashboard["uid"], {**dashboard, "provisioning": None})
            else:
                self._library.delete(dashboard["uid"])

    def _read(self, path: Path, root: Path, known: dict[str, Any] | None) -> None:
        try:
            content = path.read_bytes()
            # Grafana's reader stops at the end of the first value and ignores the rest.
            model, _ = json.JSONDecoder().raw_decode(content.decode("utf-8").lstrip())
            if not isinstance(model, dict):
                raise ValueError("the file has no JSON object")
            if not model.get("title"):
                raise ValueError("Dashboard title cannot be empty")
        except (OSError, ValueError) as error:
            self._complain("failed to load dashboard from ", path, str(error))
            return
        folder_uid = self._folder(path, root)
        uid = model.get("uid") or ""
        if uid:
            self.uids.append(uid)
        self.titles.append((folder_uid, str(model["title"])))
        checksum = hashlib.md5(content).hexdigest()
        if known and known["provisioning"]["checkSum"] == checksum and known["folderUid"] == folder_uid:
            return
        if self.restricted:
            _log.warn("Not saving new dashboard due to restricted database access", provisioner=self.name, file=path)
            return
        model.pop("id", None)
        if known and uid != known["uid"]:
            if uid:
                self._library.delete(known["uid"])
            else:
                model["uid"] = known["uid"]
        provisioning = {
            "provider": self.name,
            "externalId": str(path),
            "relative": str(path.relative_to(root)),
            "checkSum": checksum,
            "allowUiUpdates": self.allow_ui_updates,
        }
        try:
            self._library.save(model, folder_uid, provisioning)
            self._seen.pop(str(path), None)
        except ApiError as error:
            self._complain("failed to save dashboard", path, str(error))

    def _complain(self, message: str, path: Path, error: str) -> None:
        _log.error(message, type=self.kind, name=self.name, file=path, error=error)

    def _folder(self, path: Path, root: Path) -> str:
        title = self.folder
        if self.by_directory:
            title = path.parent.name if path.parent != root else ""
        return self._library.folder_by_title(title, self.folder_uid)["uid"] if title else GENERAL


class DashboardProvisioner:
    """All providers of provisioning/dashboards, each checked again at its own interval."""

    def __init__(self, library: Library, directory: Path) -> None:
        self._library = library
        self._directory = directory
        self._providers: list[Provider] = []
        self._next: dict[str, float] = {}
        self._lock = threading.Lock()

    def read(self) -> None:
        """Read the files of the providers. Raises StartError."""
        with self._lock:
            try:
                self._providers = self._read()
            except (yaml_files.YamlError, ExpandError, StartError) as error:
                raise StartError(f"Failed to create provisioner: can't read dashboard config: {error}") from error

    def _read(self) -> list[Provider]:
        try:
            paths = yaml_files.files(self._directory)
        except OSError as error:
            _log.error("can't read dashboard provisioning files from directory", path=self._directory, error=error)
            return []
        providers: list[Provider] = []
        for path in paths:
            names: set[str] = set()
            try:
                data = yaml_files.load(path) or {}
                entries = data.get("providers") or [] if isinstance(data, dict) else data
                for entry in entries:
                    provider = Provider(entry, self._library)
                    if provider.name in names:
                        raise StartError(f'dashboard name "{provider.name}" is not unique')
                    names.add(provider.name)
                    if provider.kind != "file":
                        raise StartError(f"type {provider.kind} is not supported")
                    providers.append(provider)
            except (yaml_files.YamlError, OSError, AttributeError, TypeError) as error:
                raise StartError(f"could not parse provisioning config file: {path.name} error: {error}") from error
        return providers

    def provision(self) -> None:
        """Load all dashboards. Errors of single dashboards and directories are only logged."""
        with self._lock:
            names = {provider.name for provider in self._providers}
            for dashboard in self._library.dashboards():
                if dashboard["provisioning"] and dashboard["provisioning"]["provider"] not in names:
                    self._library.delete(dashboard["uid"])
            _log.info("starting to provision dashboards")
            for provider in self._providers:
                try:
                    provider.walk()
                except OSError as error:
                    # As in Grafana, the following providers wait for their next interval.
                    _log.warn("Failed to provision config", name=provider.name, error=error)
                    return
            self._judge()
            _log.info("finished to provision dashboards")

    def _judge(self) -> None:
        """As in Grafana, providers with duplicate uids or titles lose their write permission."""
        guilty: set[str] = set()
        for what, field in (("the same UID is used more than once", "uids"), ("", "titles")):
            users: dict[Any, list[str]] = {}
            for provider in self._providers:
                for entry in getattr(provider, field):
                    users.setdefault(entry, []).append(provider.name)
            for entry, names in users.items():
                if len(names) < 2:
                    continue
                guilty |= set(names)
                providers = f"[{' '.join(sorted(set(names)))}]"
                if field == "uids":
                    _log.warn(what, uid=entry, times=len(names), providers=providers)
                else:
                    _log.warn(
                        "dashboard title is not unique in folder",
                        title=entry[1],
                        folderUID=entry[0],
                        times=len(names),
                        providers=providers,
                    )
        for provider in self._providers:
            if provider.name in guilty and not provider.restricted:
                _log.warn(
                    "dashboards provisioning provider has no database write permissions because of duplicates",
                    provider=provider.name,
                )
            provider.restricted = provider.name in guilty

    def poll(self, clock: float) -> None:
        """Check the providers whose interval has passed."""
        with self._lock:
            walked = False
            for provider in self._providers:
                due = self._next.setdefault(provider.name, clock + provider.interval)
                if clock < due:
                    continue
                self._next[provider.name] = clock + provider.interval
                walked = True
                try:
                    provider.walk()
                except OSError as error:
                    _log.error("failed to search for dashboards", error=error)
            if walked:
                self._judge()
