"""What the role `backup` checks in its variables, and computes of them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from ansible_collections.tig_pi.stack.plugins.filter.status import age

# What a target and a source of each kind need; of a tuple one.
TARGETS = {
    "disk": [("uuid", "label")],
    "directory": ["path"],
    "ssh": ["host", "user", "host_key"],
}
SOURCES = {
    "influxdb": ["url", "user", "password"],
    "sqlite": ["path"],
    "directory": ["path"],
    "mosquitto": ["path", "unit"],
}
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
HOST_KEY = re.compile(r"(ssh-ed25519|ecdsa-sha2-nistp\d+|ssh-rsa) [A-Za-z0-9+/]+=*( .*)?")


def backup_problems(targets: list[dict], sources: list[dict], password: str, ssh_key: str) -> list[str]:
    """What is wrong with the variables of the role, one sentence each, without any secret."""
    problems = []
    for variable, entries, kinds in (("backup_targets", targets, TARGETS), ("backup_sources", sources, SOURCES)):
        names = [entry["name"] for entry in entries]
        for entry in entries:
            name = entry["name"]
            if not NAME.fullmatch(name):
                problems.append(f"{variable}: {name!r} is not a name; use letters, digits, '.', '_' and '-'.")
            if names.count(name) > 1:
                problems.append(f"{variable}: the name {name} occurs twice.")
            for need in kinds[entry["kind"]]:
                keys = need if isinstance(need, tuple) else (need,)
                if not any(entry.get(key) for key in keys):
                    problems.append(f"{variable}: {name} is of kind {entry['kind']} and needs {' or '.join(keys)}.")
            if entry.get("host_key") and not HOST_KEY.fullmatch(entry["host_key"]):
                problems.append(
                    f"{variable}: host_key of {name} is not a public key; it is what `ssh-keyscan -t ed25519 HOST` prints, without"
                    " the name of the host."
                )
    if targets and not sources:
        problems.append("backup_sources: there is nothing to back up.")
    if targets and not password:
        problems.append("backup_password is not set, and has no default.")
    if any(target["kind"] == "ssh" for target in targets) and not ssh_key:
        problems.append("backup_ssh_key is not set, and a target of kind ssh needs it.")
    return list(dict.fromkeys(problems))


def backup_module(name: str) -> dict:
    """A Python module of the program, for module `tree`."""
    return {"dest": f"/usr/local/lib/tig-pi/tig_backup/{name}.py", "src": f"tig_backup/{name}.py"}


def backup_line(target: dict, now: float) -> str:
    """A target of the status of the backups, for people."""
    made = f"last backup {age(max(int(now - target['succeeded']), 0))}" if target["succeeded"] else "no backup yet"
    if target["failed"]:
        return f"{target['target']}: {made}; the last attempt failed: {target['problem']}: {target['text']}"
    size, added = (target[key] / 1e6 for key in ("bytes", "bytes_added"))
    return f"{target['target']}: {made}, {size:.1f} MB, {added:.1f} MB of them new; {target['archives']} archives, {target['seconds']:.0f} s"


def backup_notes(found: Mapping[str, Mapping], now: float) -> list[str]:
    """The backups of each host that makes some, from the results of `tig-pi-backup status`."""
    notes = []
    for host, result in found.items():
        if "rc" not in result:  # it makes no backups
            continue
        try:
            targets = json.loads(result["stdout"])
        except ValueError:
            notes.append(
                f"Backups of {host}: the program does not run: {result.get('stderr') or result.get('msg')}. Run make pi."
            )
            continue
        notes += [f"Backup of {host} to {backup_line(target, now)}." for target in targets]
        if not targets:
            notes.append(f"Backups of {host}: none yet; the first one is made tonight, or with make backup.")
    return notes


def last_backup(result: Mapping) -> int:
    """When the newest backup of a host began, in seconds since 1970, from the result of `tig-pi-backup status`; 0 if there is none."""
    try:
        return max((int(target["succeeded"]) for target in json.loads(result.get("stdout", ""))), default=0)
    except ValueError:
        return 0


class FilterModule:
    def filters(self):
        return {
            "backup_problems": backup_problems,
            "backup_module": backup_module,
            "backup_line": backup_line,
            "backup_notes": backup_notes,
            "last_backup": last_backup,
        }
