"""InfluxDB 1.x: backed up shard by shard with its own portable backup, while points are written.

Of each shard the manifest has, for each series and field, the count and sum of the points, and their first and last value,
until the backup began. The database computes them, before the shard is copied and again after it: if they agree, the copy
has exactly these points. After a restore they are computed again, but for shards whose files are those of the archive: of these, only
the first and last values are queried. With a year of readings, that takes a fifth of the time.
"""

from __future__ import annotations

import base64
import datetime
import gzip
import hashlib
import json
import re
import shutil
import subprocess
import tarfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from . import Problem
from .archive import GZIPPED, Writer, hash_of
from .scratch import place_for, size_of

INTERNAL = "_internal"
# The database to which the present points are restored before they are added to those of the archive.
PRESENT = "tig_pi_before_restore"
# What the server knows of databases, policies and shards.
META = "meta"
NUMBERS = ("count", "sum", "first", "last")
TEXTS = ("count", "first", "last")
ENDS = ("first", "last")
# Endings of the files that have the points of a shard; its other files are made from them.
DATA = (".tsm", ".tombstone")
# A shard that is being written to is copied again so many times.
ATTEMPTS = 3
# Time until a restored shard can be queried.
SECONDS_TO_OPEN = 60
# Points that arrived since the backup are added in slices, each of which is a query that may not take too long.
SLICE = 6 * 3600 * 10**9
# A query must not read more series than the server allows: series × fields × functions of one query.
MOST_ITERATORS = 900


class Database:
    """The server, and its account of an administrator."""

    def __init__(self, source: dict, scratch: Path) -> None:
        self.url = source["url"].rstrip("/")
        self.user, self.password = source["user"], source["password"]
        self.backup_address = source.get("backup_address", "127.0.0.1:8088")
        self.data = Path(source.get("data", "/var/lib/influxdb/data"))
        self.memory, self.card = scratch, Path(source.get("card", scratch))
        self.scratch = scratch / "influxdb"
        self._measurements: dict[tuple[str, str], list[tuple]] = {}

    def query(self, statement: str, timeout: float = 300) -> list[dict]:
        """The results of a statement; each has `series`, unless it has none."""
        login = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        request = urllib.request.Request(
            f"{self.url}/query",
            data=urllib.parse.urlencode({"q": statement, "epoch": "ns"}).encode(),
            headers={"Authorization": f"Basic {login}"},
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=timeout) as answer:
                results = json.load(answer)["results"]
        except urllib.error.HTTPError as error:
            raise Problem(
                "database", f"InfluxDB refuses a query: {error.read().decode(errors='replace').strip()}"
            ) from error
        except (OSError, ValueError, KeyError) as error:
            raise Problem("database", f"InfluxDB at {self.url} does not answer: {error}") from error
        for result in results:
            if "error" in result:
                raise Problem("database", f"InfluxDB: {result['error']}")
        return results

    def rows(self, statement: str) -> list[list]:
        return [
            row for result in self.query(statement) for one in result.get("series", []) for row in one.get("values", [])
        ]

    def shards(self, database: str = "") -> list[dict]:
        """The shards of a database, or of all that are backed up; the oldest first."""
        found = []
        for result in self.query("SHOW SHARDS"):
            for series in result.get("series", []):
                for row in series.get("values", []):
                    shard = dict(zip(series["columns"], row, strict=True))
                    if shard["database"] == database or (not database and shard["database"] not in (INTERNAL, PRESENT)):
                        found.append(
                            {
                                "id": shard["id"],
                                "database": shard["database"],
                                "policy": shard["retention_policy"],
                                "start": _nanoseconds(shard["start_time"]),
                                "end": _nanoseconds(shard["end_time"]),
                            }
                        )
        return sorted(found, key=lambda shard: (shard["database"], shard["policy"], shard["start"]))

    def contents(self, shard: dict, until: int, functions: tuple[str, ...] = NUMBERS) -> dict:
        """What the shard has until then: {measurement: {series: {field: {function: value}}}}."""
        database = shard["database"]
        end = min(shard["end"], until)
        found: dict[str, dict] = {}
        if end <= shard["start"]:
            return found
        place = f"{_name(database)}.{_name(shard['policy'])}"
        for measurement, fields, series in self.measurements(database, shard["policy"]):
            for group in _groups(fields, series):
                columns = [
                    f"{function}({_name(field)}) AS {_name(f'{function} {field}')}"
                    for field in group
                    for function in functions
                    if fields[field] in ("float", "integer", "unsigned") or function in TEXTS
                ]
                statement = (
                    f"SELECT {', '.join(columns)} FROM {place}.{_name(measurement)}"
                    f" WHERE time >= {shard['start']} AND time < {end} GROUP BY *"
                )
                for result in self.query(statement):
                    for one in result.get("series", []):
                        self._add(found.setdefault(measurement, {}), one)
        return found

    @staticmethod
    def _add(found: dict, series: dict) -> None:
        """Add a row of the answer. A series may come in several rows, each with some of its columns."""
        key = ",".join(f"{tag}={value}" for tag, value in sorted(series.get("tags", {}).items()))
        for row in series["values"]:
            for column, value in zip(series["columns"], row, strict=True):
                function, _, field = column.partition(" ")
                if field and value is not None:
                    found.setdefault(key, {}).setdefault(field, {})[function] = value

    def measurements(self, database: str, policy: str) -> list[tuple[str, dict[str, str], int]]:
        """The measurements of a policy, with the types of their fields and the number of their series."""
        known = self._measurements.get((database, policy))
        if known is None:
            known = self._measurements[database, policy] = []
            for result in self.query(f"SHOW FIELD KEYS FROM {_name(database)}.{_name(policy)}./.*/"):
                for series in result.get("series", []):
                    name = f"{_name(policy)}.{_name(series['name'])}"
                    counted = self.rows(f"SHOW SERIES EXACT CARDINALITY ON {_name(database)} FROM {name}")
                    known.append((series["name"], dict(series["values"]), counted[0][-1] if counted else 1))
        return known

    def revoke(self, database: str) -> list[tuple[str, str]]:
        """Revoke all rights on a database; whose they were, and which."""
        found = []
        for user, is_admin in self.rows("SHOW USERS"):
            for of, privilege in [] if is_admin else self.rows(f"SHOW GRANTS FOR {_name(user)}"):
                if of == database and privilege != "NO PRIVILEGES":
                    self.query(f"REVOKE ALL ON {_name(database)} FROM {_name(user)}")
                    found.append((user, privilege))
        return found

    def grant(self, database: str, grants: list[tuple[str, str]]) -> None:
        for user, privilege in grants:
            self.query(f"GRANT {privilege.split()[0]} ON {_name(database)} TO {_name(user)}")

    def continuous_queries(self, database: str) -> list[str]:
        """The statements that create them."""
        return [
            row[1]
            for result in self.query("SHOW CONTINUOUS QUERIES")
            for series in result.get("series", [])
            for row in series.get("values", [])
            if series["name"] == database
        ]

    def newest(self, wanted: dict, database: str) -> dict[str, int]:
        """When the newest point of a measurement is from, in seconds since 1970, by the value of a tag."""
        if wanted.get("database") != database:
            return {}
        found = {}
        statement = f"SELECT * FROM {_name(database)}..{_name(wanted['measurement'])} GROUP BY {_name(wanted['tag'])} ORDER BY time DESC LIMIT 1"
        for result in self.query(statement):
            for series in result.get("series", []):
                found[series["tags"][wanted["tag"]]] = series["values"][0][0] // 10**9
        return found

    def forget(self) -> None:
        """Forget the measurements, which may be others now."""
        self._measurements.clear()

    def has_points(self, database: str) -> bool:
        return bool(self.shards(database))

    def files(self, shard: dict) -> Path:
        return self.data / shard["database"] / shard["policy"] / str(shard["id"])

    def back_up(self, shard: dict) -> dict:
        """Run InfluxDB's own portable backup of a shard into the scratch directory; its manifest."""
        shutil.rmtree(self.scratch, ignore_errors=True)
        size = size_of(self.files(shard))
        self.scratch = place_for(size, self.memory, self.card) / "influxdb"
        shutil.rmtree(self.scratch, ignore_errors=True)
        self.scratch.mkdir(mode=0o700)
        options = ["-db", shard["database"], "-rp", shard["policy"], "-shard", str(shard["id"])]
        self.tool("backup", *options, str(self.scratch))
        (manifest,) = self.scratch.glob("*.manifest")
        return json.loads(manifest.read_bytes())

    def tool(self, verb: str, *arguments: str) -> None:
        command = ["influxd", verb, "-portable", "-host", self.backup_address, *arguments]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            said = (result.stdout + result.stderr).strip().splitlines()
            raise Problem("database", f"influxd {verb} fails: {said[-1] if said else 'it says nothing'}")
        if verb == "restore":
            self.forget()


def save(archive: Writer, name: str, source: dict, scratch: Path) -> None:
    """Add all databases to the archive."""
    server = Database(source, scratch)
    begun = time.time_ns()
    saved = []
    meta: dict = {}
    # The newest first: a device sends the oldest reading first, so the archive has all that it sent before the newest one there.
    for shard in reversed(server.shards()):
        copy = _copied(server, shard, begun)
        if copy is None:
            continue
        manifest, contents, is_steady = copy
        (entry,) = manifest["files"]
        with gzip.open(server.scratch / entry["fileName"]) as file:
            # Without the compression, which would hide from restic what has not changed.
            archive.add(f"{name}/{_member(shard)}", entry["size"], file)
        # What the server knows of databases, policies and shards: the last copy knows all shards that were copied before.
        meta = {"file": (server.scratch / manifest["meta"]["fileName"]).read_bytes(), "size": manifest["meta"]["size"]}
        saved.append({**shard, "size": entry["size"], "until": begun, "contents": contents, "steady": is_steady})
    if meta:
        archive.add_bytes(f"{name}/{META}", meta["file"])
    shutil.rmtree(server.scratch, ignore_errors=True)
    archive.about["sources"][name] = {
        "kind": "influxdb",
        "until": begun,
        "meta_size": meta.get("size", 0),
        "shards": saved,
        "continuous_queries": {name: server.continuous_queries(name) for name in {one["database"] for one in saved}},
        "points": sum(count for shard in saved for count in counts(shard["contents"])),
    }


def _copied(server: Database, shard: dict, until: int) -> tuple[dict, dict, bool] | None:
    """Manifest and contents of a copy of a shard, and whether the contents are known to be exactly those of the copy.

    They are not if points from before the backup, such as a node's backlog, arrive during every attempt. It is None if
    the shard is gone, since its retention has ended, or if it was created ahead and nothing was written to it.
    """
    before = server.contents(shard, until)
    manifest: dict = {}
    for attempt in range(1, ATTEMPTS + 1):
        try:
            manifest = server.back_up(shard)
        except Problem:
            has_points = before or server.files(shard).exists()
            if not has_points or shard["id"] not in {each["id"] for each in server.shards()}:
                return None
            if attempt == ATTEMPTS:
                raise
            continue  # the first point may have arrived just now
        after = server.contents(shard, until)
        if after == before:
            return manifest, before, True
        before = after
    return manifest, before, False


def _member(shard: dict) -> str:
    """The file of a shard, below the directory of its source."""
    quoted = [urllib.parse.quote(shard[key], safe="") for key in ("database", "policy")]
    return f"{'/'.join(quoted)}/{shard['id']}.tar"


def is_shard(member: str) -> bool:
    """Whether a file of the archive, of this kind of source, is a shard, which `influxd restore` reads in gzip's format."""
    return member.endswith(".tar")


def counts(contents: dict) -> Iterator[int]:
    """The number of points of each series: that of the field that most of them have."""
    for series in contents.values():
        for fields in series.values():
            yield max(functions["count"] for functions in fields.values())


def differences(expected: dict, found: dict, at_least: bool = False) -> list[str]:
    """In which series the contents of a shard are not those expected; with `at_least`, only where there are fewer points."""
    problems = []
    for measurement, series in expected.items():
        for key, fields in series.items():
            for field, functions in fields.items():
                here = found.get(measurement, {}).get(key, {}).get(field, {})
                wanted, count = functions.get("count", 0), here.get("count", 0)
                what = f"{field} of {measurement},{key}".rstrip(",")
                if count < wanted if at_least else count != wanted:
                    problems.append(f"{what}: {count} points instead of {wanted}")
                elif not at_least and here != functions:
                    problems.append(f"{what}: {'other values' if here else 'no points'}")
    return problems


def compare(manifest: dict, name: str, source: dict, scratch: Path) -> list[str]:
    """In which series the server has other points or values than the archive; of what it computes by itself, fewer points."""
    server = Database(source, scratch)
    targets = re.findall(r"INTO\s+(\S+)", " ".join(str(row[-1]) for row in server.rows("SHOW CONTINUOUS QUERIES")))
    computed = {part for target in targets for part in target.replace('"', "").split(".")}
    shards = manifest["sources"][name]["shards"]
    return _compare(
        server, [{**shard, "steady": shard["steady"] and shard["policy"] not in computed} for shard in shards]
    )


def restore(directory: Path, about: dict, source: dict, scratch: Path, aside: Path) -> list[str]:
    """Restore the databases, and add to them the points that the server has now. What it has now is kept in `aside`.

    The accounts have no rights on the database until the role grants them again, so nobody writes to it meanwhile.
    Points that an earlier restoration kept aside, but did not get to add, are added as well. The continuous queries are those of the
    archive, so that the role computes only those for all points that were changed since. Returns what was done, in words, and adds
    to `about` which points of the archive are the newest.
    """
    server = Database(source, scratch)
    _describe(directory, about)
    done = []
    for database in sorted({shard["database"] for shard in about["shards"]}):
        shards = [shard for shard in about["shards"] if shard["database"] == database]
        present = aside / urllib.parse.quote(database, safe="")
        has_points = server.has_points(database)
        queries = server.continuous_queries(database)
        grants = server.revoke(database)  # from here on nobody writes, so that nothing is dropped that is not kept
        if has_points:
            present.mkdir(mode=0o700, parents=True)
            now = [
                {**shard, "until": shard["end"], "steady": True, "contents": server.contents(shard, shard["end"])}
                for shard in server.shards(database)
            ]
            server.tool("backup", "-db", database, str(present))
            _marker(present).write_text(json.dumps(now))
        try:
            _replace(server, database, directory, about.get("continuous_queries", {}).get(database, []))
            problems = _compare_restored(server, shards, directory)
            if problems:
                raise Problem(
                    "differs", f"the restored database {database} is not as it was: {'; '.join(problems[:5])}"
                )
        except Problem:
            if has_points:
                _replace(server, database, present, queries)
                _compare(server, now)
                _marker(present).unlink()
                server.grant(database, grants)
            raise
        about.setdefault("newest", {}).update(server.newest(source.get("newest_of") or {}, database))
        points = sum(count for shard in shards for count in counts(shard["contents"]))
        done.append(f"restored {points} points of database {database}")
        for kept in sorted(aside.parent.parent.glob(f"*/{aside.name}/{_marker(present).name}")):
            added = _merge(server, database, kept.with_suffix(""), json.loads(kept.read_bytes()), shards)
            kept.unlink()
            done.append(
                f"added {added} points that are not in the archive; all of before are kept in {kept.with_suffix('')}"
            )
    return done


def _marker(present: Path) -> Path:
    """The file that is there until the points that were kept aside have been added, even if this program is killed meanwhile."""
    return present.with_name(f"{present.name}.to-add")


def _describe(directory: Path, about: dict) -> None:
    """Write the manifest with which `influxd restore -portable` reads the archive's files where they are."""
    files = []
    for shard in about["shards"]:
        entry = {"database": shard["database"], "policy": shard["policy"], "shardID": shard["id"]}
        files.append({**entry, "fileName": f"{_member(shard)}{GZIPPED}", "size": shard["size"], "lastModified": 0})
    manifest = {"meta": {"fileName": META, "size": about["meta_size"]}, "limited": False, "files": files}
    (directory / "archive.manifest").write_text(json.dumps(manifest))


def _replace(server: Database, database: str, portable: Path, queries: list[str]) -> None:
    server.query(f"DROP DATABASE {_name(database)}")
    server.tool("restore", "-db", database, str(portable))
    for query in queries:  # which InfluxDB does not restore
        server.query(query)


def _compare_restored(server: Database, shards: list[dict], directory: Path) -> list[str]:
    """Where the restored shards differ from the archive.

    Once their first and last values can be queried, their files are compared. Only shards that have other files are read.
    """
    problems = _compare(server, [_ends(shard) for shard in shards if shard["steady"]])
    if problems:
        return problems
    here = {(shard["policy"], shard["start"]): server.files(shard) for shard in server.shards(shards[0]["database"])}

    def is_copied(shard: dict) -> bool:
        place = here.get((shard["policy"], shard["start"]))
        return bool(place) and _is_copied(directory / f"{_member(shard)}{GZIPPED}", place)

    return _compare(server, [shard for shard in shards if not (shard["steady"] and is_copied(shard))])


def _ends(shard: dict) -> dict:
    """The shard, with only the first and last values of its contents."""
    contents = {
        measurement: {
            key: {field: {end: functions[end] for end in ENDS} for field, functions in fields.items()}
            for key, fields in series.items()
        }
        for measurement, series in shard["contents"].items()
    }
    return {**shard, "contents": contents, "functions": ENDS}


def _is_copied(archived: Path, place: Path) -> bool:
    """Whether the files with a shard's points are those of the archive. InfluxDB gives them other names, and may compact them."""
    try:
        with tarfile.open(archived) as tar:
            expected = Counter(
                hashlib.file_digest(tar.extractfile(member), "sha256").hexdigest()
                for member in tar
                if member.name.endswith(DATA)
            )
        return expected == Counter(hash_of(path) for path in place.iterdir() if path.name.endswith(DATA))
    except OSError:
        return False


def _compare(server: Database, shards: list[dict]) -> list[str]:
    """Where the restored shards differ from the manifest. The server numbers them again, but keeps policy and times.

    It takes a moment until a restored shard can be queried: until then the server says so, or (1.6) that it has no points.
    """
    end = time.monotonic() + SECONDS_TO_OPEN
    while True:
        problems = {
            number: differences(shard["contents"], _enabled(server, shard), at_least=not shard["steady"])
            for number, shard in enumerate(shards)
        }
        shards = [shard for number, shard in enumerate(shards) if problems[number]]
        if not shards or time.monotonic() > end:
            return [problem for found in problems.values() for problem in found]
        server.forget()
        time.sleep(0.5)


def _enabled(server: Database, shard: dict) -> dict:
    """The contents of a shard until its end of the backup, as soon as the server has opened it."""
    end = time.monotonic() + SECONDS_TO_OPEN
    while True:
        try:
            return server.contents(shard, shard["until"], shard.get("functions", NUMBERS))
        except Problem as problem:
            server.forget()
            if "shard is disabled" not in str(problem) or time.monotonic() > end:
                raise
            time.sleep(0.2)


def _merge(server: Database, database: str, present: Path, now: list[dict], shards: list[dict]) -> int:
    """Add the points of the shards kept aside that are not exactly as in the archive; the number of points written."""
    server.query(f"DROP DATABASE {_name(PRESENT)}")
    server.tool("restore", "-db", database, "-newdb", PRESENT, str(present))
    archived = {(shard["policy"], shard["start"]): shard for shard in shards}
    policies = {row[0] for row in server.rows(f"SHOW RETENTION POLICIES ON {_name(database)}")}
    written = 0
    problems = _compare(server, [{**shard, "database": PRESENT} for shard in now])
    if problems:
        raise Problem("differs", f"the points kept in {present} are not as they were: {'; '.join(problems[:5])}")
    for shard in now:
        same = archived.get((shard["policy"], shard["start"]), {})
        contents = shard["contents"]
        if contents == same.get("contents", {}):
            continue
        if shard["policy"] not in policies:
            # The role gives it its duration.
            server.query(
                f"CREATE RETENTION POLICY {_name(shard['policy'])} ON {_name(database)} DURATION INF REPLICATION 1"
            )
            policies.add(shard["policy"])
        for measurement in contents:
            for start in range(shard["start"], shard["end"], SLICE):
                source, target = (
                    f"{_name(name)}.{_name(shard['policy'])}.{_name(measurement)}" for name in (PRESENT, database)
                )
                ((_, count),) = server.rows(
                    f"SELECT * INTO {target} FROM {source}"
                    f" WHERE time >= {start} AND time < {min(start + SLICE, shard['end'])} GROUP BY *"
                )
                written += count
    server.query(f"DROP DATABASE {_name(PRESENT)}")
    return written


def _groups(fields: dict[str, str], series: int) -> Iterator[list[str]]:
    """The fields in groups that one query may ask for."""
    size = max(1, MOST_ITERATORS // (len(NUMBERS) * max(series, 1)))
    names = sorted(fields)
    for first in range(0, len(names), size):
        yield names[first : first + size]


def _name(name: str) -> str:
    escaped = name.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _nanoseconds(text: str) -> int:
    moment = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    return int((moment - datetime.datetime.fromtimestamp(0, datetime.UTC)).total_seconds()) * 10**9
