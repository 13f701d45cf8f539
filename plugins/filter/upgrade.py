"""How an upgrade goes on that was interrupted."""

from __future__ import annotations


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


class FilterModule:
    def filters(self) -> dict:
        return {"upgrade_plan": upgrade_plan}
