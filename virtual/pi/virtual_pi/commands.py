"""The commands of pi.py."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pathlib
import signal
from concurrent.futures import ThreadPoolExecutor

from . import LABEL, Failure, say
from .container import Pi
from .files import lock
from .image import Image
from .owners import is_left_over, orphans, owner_mark
from .podman import Podman


def collect_garbage(podman: Podman, cache: pathlib.Path, leaving: int | None = None) -> list[str]:
    """Remove Pis whose owner has ended, and those of the process `leaving`; end orphaned processes and virtual machines. Returns the Pis' names."""
    removed, leaver = [], owner_mark(leaving)
    for pid in orphans(leaving):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    with lock(cache / "pis.lock", "another run that removes Pis"):
        for name, pi in (pis := podman.pis()).items():
            mark = pi["labels"].get("owner", "")
            if is_left_over(mark) or (leaver and mark == leaver):
                Pi.existing(podman, cache, name, pis).remove(harvest=False)
                removed.append(name)
    if removed:
        say(f"removed left-over Pis: {', '.join(removed)}")
    return removed


def up(podman: Podman, cache: pathlib.Path, options: argparse.Namespace) -> None:
    owner = owner_mark(options.owner_pid)
    collect_garbage(podman, cache)
    image = Image(podman, cache, options.release)
    state = pathlib.Path(options.state or cache / "pis").resolve()
    if len(options.names) > 1 and (options.alias or options.hostname):
        raise Failure("--alias and --hostname need a single NAME")
    state.mkdir(parents=True, exist_ok=True)
    image.ensure()

    starting = []
    with lock(cache / "pis.lock", "another run that creates a Pi"):
        pis = podman.pis()
        known = [Pi.existing(podman, cache, name, pis) for name in options.names if name in pis]
        for pi in [pi for pi in known if pi.is_lost]:
            say(f"{pi.name}: its files in {pi.state} are missing; creating it again")
            pi.remove(harvest=False)
            del pis[pi.name]
        for name in options.names:
            if name in pis:
                pi = Pi.existing(podman, cache, name, pis)
                labels, here = pis[name]["labels"], json.loads(pis[name]["labels"]["ports"])
                if labels["release"] != options.release or pi.state != state:
                    raise Failure(
                        f"{name} already exists, with {labels['release']} and state directory {pi.state}; run "
                        f"`pi.py down {name}` first"
                    )
                if missing := {guest for _, guest in options.publish} - set(here):
                    raise Failure(
                        f"{name} already exists, without port {', '.join(missing)}; run `pi.py down {name}` first"
                    )
                pi.ssh.write_config()
                pi.describe_feed(image.stem)
                if pis[name]["state"] != "running":
                    starting.append(pi)
                continue
            pi = Pi(podman, cache, name, state, options.alias)
            taken = {port for other in podman.pis().values() for port in json.loads(other["labels"]["ports"]).values()}
            if not podman.succeeds("network", "exists", pi.network):
                podman.run("network", "create", f"--label={LABEL}=network", pi.network)
            pi.create(image, options.hostname or name, options.publish, taken, owner, options.memory)
            starting.append(pi)
    with ThreadPoolExecutor() as pool:
        for failure in list(pool.map(lambda pi: start_or_remove(pi, options.timeout), starting)):
            if failure:
                raise failure


def start_or_remove(pi: Pi, timeout: float) -> Failure | None:
    """Start a Pi. If that fails, remove it and return the reason."""
    try:
        pi.start(timeout)
    except Failure as failure:
        pi.remove(harvest=False)
        return failure
    return None


def show(podman: Podman, as_json: bool) -> None:
    rows = [
        {
            "name": name,
            "state": pi["state"],
            "release": pi["labels"]["release"],
            "ports": json.loads(pi["labels"]["ports"]),
            "state_directory": pi["labels"]["state"],
            "left_over": is_left_over(pi["labels"].get("owner", "")),
        }
        for name, pi in sorted(podman.pis().items())
    ]
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    for row in rows:
        ports = " ".join(f"{here}->{guest}" for guest, here in row["ports"].items())
        state = "left over" if row["left_over"] else row["state"]
        print(f"{row['name']:32} {state:10} {row['release']:10} {ports}")
