"""Points that InfluxDB has received since the snapshot: read from its files, and written to the previous server."""

from __future__ import annotations

import gzip
import itertools
import os
import shutil
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

from ansible_collections.tig_pi.stack.plugins.module_utils.influxdb.client import InfluxError, Server
from ansible_collections.tig_pi.stack.plugins.module_utils.upgrade.packages import Failure, run

BATCH = 5000  # lines of a request
INTERNAL = "_internal"
# The line before the points in a file of `influx_inspect export`.
CONTEXT = "# CONTEXT-RETENTION-POLICY:"
# Answers to a request whose other points were stored.
PARTIAL = ("partial write", "beyond retention policy")
# Answers to a request for something that the upgrade has created.
MISSING = ("database not found", "retention policy not found")


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


def add(directory: Path, server: Server, ignored: str) -> Iterator[str]:
    """Write the exported points to the server. Those that it has are the same points. Yields what was done, in words.

    Raises:
        Failure: the server does not take them.
    """
    for path in sorted(directory.glob("*/*.gz")):
        database, policy = urllib.parse.unquote(path.parent.name), urllib.parse.unquote(path.stem)
        count, refused, points = 0, set(), lines(path, ignored or "#")
        while batch := list(itertools.islice(points, BATCH)):
            refused |= _write(server, database, policy, batch)
            count += len(batch)
        yield f"sent {count} values of {database}.{policy}, those received during the upgrade among them" + "".join(
            f"; InfluxDB refused some: {one}" for one in sorted(refused)
        )
        path.unlink()


def _write(server: Server, database: str, policy: str, batch: list[str]) -> set[str]:
    """Write lines; what the server says of those that it does not take."""
    try:
        server.write(database, policy, "".join(batch))
    except InfluxError as error:
        if any(one in str(error) for one in PARTIAL + MISSING):
            return {str(error).strip()[:200]}
        raise Failure(f"InfluxDB refuses points of {database}: {str(error).strip()[:200]}") from error
    except OSError as error:
        raise Failure(f"InfluxDB does not take points of {database}: {error}") from error
    return set()
