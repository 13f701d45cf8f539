"""Points that InfluxDB has received since its directory was kept: read from its files, and written to the server of before."""

from __future__ import annotations

import base64
import gzip
import os
import shutil
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from ansible_collections.tig_pi.stack.plugins.module_utils.influxdb.client import NO_PROXY
from ansible_collections.tig_pi.stack.plugins.module_utils.upgrade.packages import Failure, run

BATCH = 5000  # lines of a request
INTERNAL = "_internal"
# The line before the points in a file of `influx_inspect export`.
CONTEXT = "# CONTEXT-RETENTION-POLICY:"
# Answers to a request whose other points were stored.
PARTIAL = ("partial write", "beyond retention policy")


def export(root: Path, since: float, directory: Path) -> None:
    """Export the shards of the database's directory that were written to since then, a file for each retention policy.

    The server does not run. Its own program reads them, since it knows the format.
    """
    shutil.rmtree(directory, ignore_errors=True)
    links = directory / "links"
    for shard in sorted(root.glob("data/*/*/[0-9]*")):
        database, policy, number = shard.parts[-3:]
        parts = [shard, root / "wal" / database / policy / number]
        if database != INTERNAL and any(_newest(part) > since for part in parts):
            for part in parts:
                _link(part, links / part.relative_to(root))
    for place in sorted(links.glob("data/*/*")):
        database, policy = place.parts[-2:]
        target = directory / urllib.parse.quote(database, safe="") / f"{urllib.parse.quote(policy, safe='')}.gz"
        target.parent.mkdir(exist_ok=True)
        where = ["-datadir", links / "data", "-waldir", links / "wal", "-database", database, "-retention", policy]
        run("influx_inspect", "export", *where, "-compress", "-out", target)
    shutil.rmtree(links, ignore_errors=True)


def _newest(folder: Path) -> float:
    return max((path.stat().st_mtime for path in folder.glob("*") if path.is_file()), default=0)


def _link(folder: Path, target: Path) -> None:
    target.mkdir(parents=True)
    for path in folder.glob("*"):
        if path.is_file():
            os.link(path, target / path.name)


def lines(path: Path, ignored: str) -> Iterator[str]:
    """The points of an exported file in the line protocol, without those of an ignored measurement."""
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as file:
        for line in file:
            if line.startswith(CONTEXT):
                break
        for line in file:
            if not line.startswith(("#", f"{ignored},", f"{ignored} ")):
                yield line


def add(directory: Path, server: dict) -> Iterator[str]:
    """Write the exported points to the server. Those that it has are the same points. Yields what was done, in words.

    Raises:
        Failure: the server does not take them.
    """
    for path in sorted(directory.glob("*/*.gz")):
        database, policy = urllib.parse.unquote(path.parent.name), urllib.parse.unquote(path.stem)
        count, batch, refused = 0, [], set()
        for line in lines(path, server.get("ignored") or "#"):
            batch.append(line)
            if len(batch) == BATCH:
                refused |= _write(server, database, policy, batch)
                count, batch = count + len(batch), []
        if batch:
            refused |= _write(server, database, policy, batch)
        count += len(batch)
        yield f"wrote {count} values of {database}.{policy}, those received during the upgrade among them" + "".join(
            f"; InfluxDB: {one}" for one in sorted(refused)
        )
        path.unlink()


def _write(server: dict, database: str, policy: str, batch: list[str]) -> set[str]:
    """Write lines; what the server says of those that it does not take."""
    where = urllib.parse.urlencode({"db": database, "rp": policy})
    login = base64.b64encode(f"{server['user']}:{server['password']}".encode()).decode()
    request = urllib.request.Request(
        f"{server['url']}/write?{where}", "".join(batch).encode(), {"Authorization": f"Basic {login}"}
    )
    try:
        NO_PROXY.open(request, timeout=120).close()
    except urllib.error.HTTPError as error:
        said = error.read().decode(errors="replace").strip()
        if "retention policy not found" in said:
            return {f"it had no retention policy {policy} before the upgrade"}
        if error.code == 400 and any(one in said for one in PARTIAL):
            return {said[:200]}
        raise Failure(f"InfluxDB refuses points of {database}: {said[:200]}") from error
    except OSError as error:
        raise Failure(f"InfluxDB does not take points of {database}: {error}") from error
    return set()
