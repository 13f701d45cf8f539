"""What the role `backup` checks in its variables, and computes of them."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Mapping

from ansible_collections.tig_pi.stack.plugins.filter.status import age

# What a target and a source of each kind need; of a tuple one.
TARGETS = {
    "disk": [("uuid", "label")],
    "directory": ["path"],
    "ssh": ["host", "user", "host_key"],
    "controller": [],
}
# Where the controller keeps archives, and after how many days a backup is late: a computer that is not always on has more time.
CONTROLLER_DIRECTORY = "~/tig-pi-backups"
LATE_AFTER_DAYS, CONTROLLER_LATE_AFTER_DAYS = 2, 7
SOURCES = {
    "influxdb": ["url", "user", "password"],
    "sqlite": ["path"],
    "directory": ["path"],
    "mosquitto": ["path", "unit"],
}
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
# An archive that was checked, as `tig-pi-backup list` prints it. A host printed it, so it is not taken for more than that.
LISTED = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]*) ([0-9a-f]+) ([0-9T:.Z+-]+)")
# How `tig-pi-backup fetch` begins to say what is wrong with a target that has no newer archive.
ASKED = ("no_archive: ", "no_repository: ", "older: ")
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


def backup_targets(targets: list[dict], ssh_key: str) -> list[dict]:
    """The targets, as the program on the host reads them."""
    return [
        {
            **{key: value for key, value in target.items() if key != "late_after_days"},
            "late_after": _late_after_days(target) * 86400,
            "key": ssh_key,
        }
        for target in targets
    ]


def _late_after_days(target: dict) -> int:
    default = CONTROLLER_LATE_AFTER_DAYS if target["kind"] == "controller" else LATE_AFTER_DAYS
    return int(target.get("late_after_days") or default)


def controller_repository(target: dict, site: str, host: str) -> str:
    """The directory of the controller in which it keeps the archives of a host."""
    return f"{(target.get('path') or CONTROLLER_DIRECTORY).rstrip('/')}/{site}/{host}"


def newest_archive(lines: list[str], kept: Mapping[str, list], archive: str = "", machine: str = "") -> dict:
    """The newest archive that was checked, or the one with that id. On the controller, those that `machine` has made come last.

    Args:
        lines: what `tig-pi-backup list` prints: target, id and time of each archive.
        kept: the archives on the controller, as `bin/archive list` prints them, by target.

    Returns:
        time, target, archive, whether it is on the controller, and of one there the machine that made it; {} if there is none.
    """
    found = []
    for line in lines:
        if parts := LISTED.fullmatch(line):
            target, identity, time = parts.groups()
            found.append({"time": time, "target": target, "archive": identity, "controller": False, "machine": ""})
    for target, archives in kept.items():
        others = [one for one in archives if machine and one[2] != machine]
        found += [
            {"time": time, "target": target, "archive": one, "controller": True, "machine": made_by}
            for time, one, made_by in others or archives
        ]
    usable = [one for one in found if archive in ("", one["archive"])]
    return max(usable, key=lambda one: (not machine or one["machine"] != machine, _moment(one["time"])), default={})


def unasked_targets(fetched: Mapping, kept: list[Mapping] = ()) -> list[str]:
    """The targets whose newest archive could not be read, each with the reason.

    Args:
        fetched: the result of `tig-pi-backup fetch`.
        kept: the results of `bin/archive list`, each with its target as the item.
    """
    try:
        problems = json.loads(fetched["stdout"]).get("problems", {})
        found = [f"{name}: {text}" for name, text in problems.items()]
    except (ValueError, TypeError, KeyError, AttributeError):
        # It was not called, or no target has a newer archive that can be read.
        lines = [line for line in fetched.get("stderr", "").splitlines() if not line.startswith(ASKED)]
        found = [re.sub(rf"^(\w+): ({NAME.pattern}): ", r"\2: \1: ", line) for line in lines]
    return found + [f"{one['item']['name']}: {one.get('stderr', '').strip()}" for one in kept if one.get("rc")]


def archive_age(said: Mapping, now: float) -> str:
    """The age of an archive; 0 if it is newer than the clock of a Pi that reaches no time server."""
    return age(max(int(now - said["begun"]), 0))


def _moment(time: str) -> datetime.datetime:
    # restic prints nanoseconds, of which Python before 3.11 reads six digits only.
    return datetime.datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", time).replace("Z", "+00:00"))


def backup_line(target: dict, now: float) -> str:
    """A target of the status of the backups, for people."""
    made = f"last backup {age(max(int(now - target['succeeded']), 0))}" if target["succeeded"] else "no backup yet"
    if target["failed"]:
        made += f"; the last attempt failed: {target['problem']}: {target['text']}"
    elif target["succeeded"]:
        size, added = (target[key] / 1e6 for key in ("bytes", "bytes_added"))
        made += f", {size:.1f} MB, {added:.1f} MB of them new; {_counted(target['archives'], 'archive')}, {target['seconds']:.0f} s"
    if now - max(target["succeeded"], target.get("since", 0)) > target.get("late_after", float("inf")):
        made += f"; LATE: it should be made at least every {target['late_after'] // 86400} days"
    return f"{target['target']}: {made}{_proof(target, now)}"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _proof(target: dict, now: float) -> str:
    """Whether a restore of the target was proven."""
    proven = target.get("proven", 0)
    texts = [f"last proven restore {age(max(int(now - proven), 0))}"] if proven else []
    if target.get("drill_failed"):
        texts.append(f"the last drill failed: {target['drill_text']}")
    elif proven and 0 < target.get("drill_late_after", 0) < now - proven:
        texts[0] += ", which is too long: run make drill"
    if target.get("drill_aborted"):
        texts.append(f"the last drill could not be carried out: {target['drill_aborted_text']}")
    return "".join(f"; {text}" for text in texts)


def backup_notes(
    found: Mapping[str, Mapping], now: float, collectors: list[str] = (), devices: list[str] = ()
) -> list[str]:
    """The backups of each host that makes some, from the results of `tig-pi-backup status`.

    Args:
        collectors: the hosts with Telegraf, whose backups have alerts.
        devices: those of the site; one that was removed from it owes no readings.
    """
    notes = []
    for host, result in found.items():
        if "rc" not in result:  # it makes no backups
            continue
        try:
            status = json.loads(result["stdout"])
            targets, aside = status["targets"], status["before_restore"]
        except (ValueError, TypeError, KeyError):
            notes.append(
                f"Backups of {host}: the program does not run: {result.get('stderr') or result.get('msg')}. Run make pi."
            )
            continue
        notes += [f"Backup of {host} to {backup_line(target, now)}." for target in targets]
        if not targets:
            notes.append(f"Backups of {host}: none yet; the first one is made tonight, or with make backup.")
        elif not any(target.get(key) for target in targets for key in ("proven", "drill_failed", "drill_aborted")):
            notes.append(f"Backups of {host}: no restore was proven yet; make drill does it.")
        if aside["directories"]:
            notes.append(
                f"Backups of {host}: what was there before the last restores takes {aside['bytes'] / 1e6:.1f} MB of its disk"
                f" ({', '.join(aside['directories'])}); it is removed after {aside['keep_days']} days."
            )
        notes += [
            f"{device} has not sent its readings since the backup that was restored: when it is online, run make replay DEVICE={device}."
            for device in status.get("owing", [])
            if device in devices
        ]
        if host not in collectors:
            notes.append(
                f"Backups of {host}: no alert reports a failed or late one, since Telegraf does not run there."
            )
    return notes


def last_backup(result: Mapping) -> int:
    """When the newest backup of a host began, in seconds since 1970, from the result of `tig-pi-backup status`; 0 if there is none."""
    try:
        return max((int(target["succeeded"]) for target in json.loads(result.get("stdout", ""))["targets"]), default=0)
    except (ValueError, TypeError, KeyError):
        return 0


def drill_differences(comparison: dict, dashboards: list[dict], users: list[dict], flows: list[dict]) -> list[str]:
    """What the services of a throwaway Pi do not have, although the archive has it.

    Args:
        comparison: what `tig-pi-backup compare` prints.
        dashboards, users: what Grafana answers.
        flows: what Node-RED answers.
    """
    found = {
        "dashboard": {one["uid"] for one in dashboards},
        "user": {one["login"] for one in users},
        "flows.json": {node["id"] for node in flows},
    }
    services = {
        "dashboard": "Grafana has no dashboard",
        "user": "Grafana has no user",
        "flows.json": "Node-RED has no node",
    }
    missing = [
        f"{services[kind]} {name}"
        for kind, names in comparison["names"].items()
        for name in sorted(set(names) - found[kind])
    ]
    return comparison["differences"] + missing


def drill_record(result: dict, host: str, archive: dict, target: str) -> dict:
    """What `tig-pi-backup record` is to add to the status of a host after a drill.

    Args:
        result: of bin/drill: the problem, whether it shows nothing about the archives (aborted), and the hosts that have it.
        host: the host.
        archive: the archive that was chosen for it; {} if none was.
        target: that the drill was to use; "" for all.
    """
    record = {"what": "drill", "target": archive.get("target", target)}
    if not result["problem"]:
        return record | {"time": archive["time"]}
    is_of_another_host = result["hosts"] and host not in result["hosts"]
    if result["aborted"] or is_of_another_host or not archive:
        record["what"] = "aborted drill"
    return record | {"time": archive.get("time", ""), "problem": ["drill", result["problem"]]}


class FilterModule:
    def filters(self):
        return {
            "backup_problems": backup_problems,
            "backup_module": backup_module,
            "backup_line": backup_line,
            "backup_targets": backup_targets,
            "controller_repository": controller_repository,
            "newest_archive": newest_archive,
            "unasked_targets": unasked_targets,
            "archive_age": archive_age,
            "backup_notes": backup_notes,
            "drill_differences": drill_differences,
            "drill_record": drill_record,
            "last_backup": last_backup,
        }
