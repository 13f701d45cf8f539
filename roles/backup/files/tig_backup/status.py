"""What became of the last backups: a line for each target, for people, Telegraf and `make status`."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from . import Problem

NAME = "status.json"


def read(state: Path) -> dict[str, dict]:
    try:
        return {one["target"]: one for one in json.loads((state / NAME).read_bytes())}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def write(state: Path, targets: dict[str, dict]) -> None:
    staged = state / f".{NAME}.new"
    staged.write_text(json.dumps(list(targets.values()), indent=1, sort_keys=True) + "\n")
    staged.chmod(0o644)  # Telegraf reads it
    os.replace(staged, state / NAME)


def waiting(target: str, before: dict) -> dict:
    """The status of a target, also before its first backup."""
    start = {"target": target, "failed": 0, "problem": "", "text": "", "succeeded": 0, "since": int(time.time())}
    proof = {"proven": 0, "proven_archive": "", "drill_failed": 0, "drill_text": ""}
    return start | proof | {"drill_aborted": 0, "drill_aborted_text": ""} | before


def drilled(before: dict, archive: str, problem: Problem | None) -> dict:
    """After an archive of the target was restored to prove it."""
    if problem:
        return {**before, "drill_failed": 1, "drill_text": str(problem)}
    proof = {"proven": int(time.time()), "proven_archive": archive}
    return {**before, **proof, "drill_failed": 0, "drill_text": ""}


def drill_aborted(before: dict, problem: Problem) -> dict:
    """After a drill that could not be carried out, which shows nothing about the archives."""
    return {**before, "drill_aborted": 1, "drill_aborted_text": str(problem)}


def drill_carried_out(before: dict) -> dict:
    """After a drill with any result, with an archive of this target or of another one."""
    return {**before, "drill_aborted": 0, "drill_aborted_text": ""}


def succeeded(target: str, before: dict, result: dict, seconds: float) -> dict:
    return {
        **before,
        "target": target,
        "failed": 0,
        "problem": "",
        "text": "",
        "attempted": int(time.time()),
        "succeeded": int(result["manifest"]["begun"]),
        "seconds": round(seconds, 1),
        "bytes": result["bytes"],
        "bytes_added": result["bytes_added"],
        "archives": result["archives"],
    }


def failed(target: str, before: dict, problem: Problem, seconds: float) -> dict:
    return {
        "succeeded": 0,
        **before,
        "target": target,
        "failed": 1,
        "problem": problem.name,
        "text": str(problem),
        "attempted": int(time.time()),
        "seconds": round(seconds, 1),
    }
