"""How an upgrade goes on that was interrupted."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping


def upgrade_plan(states: list[dict], own: dict) -> dict:
    """What is to be done, so that all hosts of a site end with the new versions, or all with the previous ones.

    Args:
        states: what module `upgrade` says of each host.
        own: what it says of this host.

    Returns:
        `goes_back` if a rollback is to be completed first; `is_verified` if this host only has to end an upgrade that was verified;
        and the `id` of the upgrade that goes on, "" for a new one.
    """
    ids = {state: {one["id"] for one in states if one["state"] == state} for state in ("begun", "verified", "reverted")}
    interrupted = ids["begun"] - ids["verified"]
    return {
        "goes_back": any(one["state"] == "reverting" for one in states) or bool(ids["begun"] & ids["reverted"]),
        "is_verified": own["state"] == "begun" and own["id"] in ids["verified"],
        "id": min(interrupted, default=""),
    }


def upgrade_notes(found: Mapping[str, Mapping]) -> list[str]:
    """The upgrades that have not ended, and the problems of the last rollback.

    Args:
        found: by host, the result of printing the state that module `upgrade` writes; most hosts have none.
    """
    notes = []
    for host, result in found.items():
        try:
            about = json.loads(result.get("stdout") or "{}")
        except ValueError:
            notes.append(f"Upgrade of {host}: its state is damaged. `make upgrade` begins a new one.")
            continue
        began = time.strftime("%Y-%m-%d %H:%M", time.localtime(about.get("begun", 0)))
        match about.get("state"):
            case "begun":
                notes.append(
                    f"Upgrade of {host}: it began on {began} and has not ended. If none is running, `make upgrade` continues it."
                )
            case "reverting":
                notes.append(
                    f"Upgrade of {host}: the one of {began} is being rolled back, and services may stay stopped until that is complete. "
                    "If none is running, `make upgrade` completes it."
                )
            case "reverted":
                notes += [f"Upgrade of {host}, rolled back: {problem}" for problem in about.get("problems", [])]
    return notes


class FilterModule:
    def filters(self) -> dict:
        return {"upgrade_plan": upgrade_plan, "upgrade_notes": upgrade_notes}
