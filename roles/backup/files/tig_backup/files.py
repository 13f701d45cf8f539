"""Files of a service that replaces them while it runs, and SQLite databases."""

from __future__ import annotations

import base64
import contextlib
import fnmatch
import json
import os
import shutil
import sqlite3
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from . import Problem
from .archive import Writer, hash_of
from .scratch import place_for

# Files that change while they are read are read again so many times.
PASSES = 10


def save_directory(archive: Writer, name: str, source: dict, scratch: Path) -> None:
    """Add the files of a directory, all of them as they were at one moment.

    A service writes its files by a rename, one after the other: what has changed by the end of a pass is read again, until
    nothing changes any more.
    """
    root = Path(source["path"])
    added: dict[str, tuple] = {}
    for _ in range(PASSES):
        present = dict(_files(root, source.get("exclude", [])))
        changed = [path for path, state in present.items() if added.get(path) != state]
        gone = added.keys() - present.keys()
        if not changed and not gone and added:
            break
        for path in gone:
            archive.leave_out(f"{name}/{path}")
            del added[path]
        for path in changed:
            with contextlib.suppress(FileNotFoundError):
                _add(archive, f"{name}/{path}", root / path)
                added[path] = present[path]
        if not present:
            break
    else:
        raise Problem(
            "not_consistent", f"the files in {root} have changed during each of {PASSES} attempts to read them"
        )
    about = archive.about["sources"][name] = {"kind": "directory", "files": len(added)}
    about["names"] = {path: _ids(root / path, key) for path, key in source.get("names", {}).items() if path in added}


def _ids(path: Path, key: str) -> list[str]:
    """The values of a key in a file that has a list in JSON."""
    with contextlib.suppress(OSError, ValueError):
        return sorted(str(one[key]) for one in json.loads(path.read_bytes()) if isinstance(one, dict) and key in one)
    return []


def compare_directory(manifest: dict, name: str, source: dict, scratch: Path) -> Iterator[str]:
    """What the service that runs has other than the archive, of the files that it does not write by itself at its start."""
    root = Path(source["path"])
    for member, expected in manifest["files"].items():
        inside = Path(member)
        if inside.parts[0] != name:
            continue
        inside = inside.relative_to(name)
        if _is_excluded(inside, source.get("rewritten", [])):
            continue
        path = root / inside
        if "link" in expected:
            is_same = path.is_symlink() and os.readlink(path) == expected["link"]
        else:
            is_same = path.is_file() and hash_of(path) == expected["sha256"]
        if not is_same:
            yield f"{path} {'is not as in the archive' if path.exists() else 'is missing'}"


def _add(archive: Writer, member: str, path: Path) -> None:
    if path.is_symlink():
        archive.add_link(member, os.readlink(path))
        return
    with path.open("rb") as file:
        state = os.fstat(file.fileno())
        archive.add(member, state.st_size, file, state.st_mtime, state.st_mode & 0o777)


def _files(root: Path, exclude: list[str]):
    """The files and links of a directory by their path in it, with what changes when they are written."""
    for folder, folders, names in os.walk(root):
        inside = Path(folder).relative_to(root)
        folders[:] = sorted(each for each in folders if not _is_excluded(inside / each, exclude))
        links = [each for each in folders if (root / inside / each).is_symlink()]
        for each in sorted(names) + links:
            path = inside / each
            if not _is_excluded(path, exclude):
                with contextlib.suppress(FileNotFoundError):
                    state = (root / path).lstat()
                    yield str(path), (state.st_ino, state.st_size, state.st_mtime_ns)


def _is_excluded(path: Path, exclude: list[str]) -> bool:
    return any(fnmatch.fnmatch(str(path), pattern) for pattern in exclude)


def restore_directory(directory: Path, about: dict, source: dict, scratch: Path, aside: Path) -> list[str]:
    """Put the archive's files in the place of those that are there, which are kept in `aside`."""
    root = Path(source["path"])
    if not root.exists():  # the service has not been started yet
        root.mkdir(mode=0o750, parents=True)
        if "owner" in source:
            shutil.chown(root, source["owner"], source["owner"])
    owner = root.stat()
    aside.mkdir(mode=0o700, parents=True)
    for path, _ in list(_files(root, source.get("exclude", []))):
        (aside / path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.move(root / path, aside / path)
    count = 0
    for path, _ in _files(directory, []):
        target = root / path
        for parent in reversed(target.relative_to(root).parents[:-1]):
            if not (root / parent).is_dir():
                (root / parent).mkdir(mode=0o750)
                os.chown(root / parent, owner.st_uid, owner.st_gid)
        target.unlink(missing_ok=True)
        shutil.move(directory / path, target)
        os.chown(target, owner.st_uid, owner.st_gid, follow_symlinks=False)
        count += 1
    return [f"restored {count} files to {root}; those of before are kept in {aside}"]


def save_sqlite(archive: Writer, name: str, source: dict, scratch: Path) -> None:
    """Add a database as it is at one moment, by SQLite's online backup."""
    path = Path(source["path"])
    copy = (
        place_for(path.stat().st_size if path.exists() else 0, scratch, Path(source.get("card", scratch))) / "copy.db"
    )
    copy.unlink(missing_ok=True)
    try:
        with (
            contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=60)) as database,
            contextlib.closing(sqlite3.connect(copy)) as target,
        ):
            database.backup(target)
            problem = target.execute("PRAGMA quick_check(1)").fetchone()[0]
            if problem != "ok":
                raise Problem("source_damaged", f"{path} is damaged: {problem}")
            rows = _rows(target, source.get("count", []))
    except sqlite3.Error as error:
        raise Problem("source_damaged", f"{path} cannot be read: {error}") from error
    with copy.open("rb") as file:
        archive.add(f"{name}/{path.name}", copy.stat().st_size, file, path.stat().st_mtime)
    copy.unlink()
    archive.about["sources"][name] = {"kind": "sqlite", "rows": rows, "names": dict(_answers(source))}


def compare_sqlite(manifest: dict, name: str, source: dict, scratch: Path) -> Iterator[str]:
    """What the database lacks. The service may have added what its configuration declares."""
    about = manifest["sources"][name]
    with contextlib.closing(sqlite3.connect(f"file:{source['path']}?mode=ro", uri=True, timeout=60)) as database:
        rows = _rows(database, list(about["rows"]))
    for table, expected in about["rows"].items():
        if rows.get(table, 0) < expected:
            yield f"{source['path']} has {rows.get(table, 0)} rows of {table} instead of {expected}"
    for one in source.get("asks", []):
        if one["name"] not in about.get("names", {}):
            yield f"the archive has no list of each {one['name']}: the service did not answer when it was backed up"


def _answers(source: dict) -> Iterator[tuple[str, list[str]]]:
    """What the service lists, by the names of the questions; without those that it does not answer."""
    login = base64.b64encode(f"{source.get('user')}:{source.get('password')}".encode()).decode()
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for one in source.get("asks", []):
        request = urllib.request.Request(one["url"], headers={"Authorization": f"Basic {login}"})
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError), opener.open(request, timeout=30) as answer:
            yield one["name"], sorted(str(entry[one["key"]]) for entry in json.load(answer))


def _rows(database: sqlite3.Connection, tables: list[str]) -> dict[str, int]:
    """The number of rows of those of the tables that there are."""
    present = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    return {
        table: database.execute(f'SELECT count(*) FROM "{table}"').fetchone()[0] for table in tables if table in present
    }


def restore_sqlite(directory: Path, about: dict, source: dict, scratch: Path, aside: Path) -> list[str]:
    """Put the archive's database in the place of the one that is there, which is kept in `aside`."""
    path = Path(source["path"])
    restored = directory / path.name
    with contextlib.closing(sqlite3.connect(restored)) as database:
        problem = database.execute("PRAGMA quick_check(1)").fetchone()[0]
        rows = _rows(database, list(about["rows"]))
    if problem != "ok" or rows != about["rows"]:
        raise Problem(
            "differs", f"the restored {path.name} is not as it was: {problem}, {rows} instead of {about['rows']}"
        )
    owner = (path if path.exists() else path.parent).stat()
    mode = owner.st_mode & 0o666 if path.exists() else 0o640
    aside.mkdir(mode=0o700, parents=True)
    for old in (path, *(path.with_name(path.name + suffix) for suffix in ("-wal", "-shm", "-journal"))):
        if old.exists():
            shutil.move(old, aside / old.name)
    shutil.move(restored, path)
    os.chown(path, owner.st_uid, owner.st_gid)
    path.chmod(mode)
    return [f"restored {path}; the one of before is kept in {aside}"]
