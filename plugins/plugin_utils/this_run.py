"""What tasks of this playbook run have done on a host, for later tasks: in its facts, and ignored by the next run."""

from __future__ import annotations

import uuid

# Facts may be cached for later runs. Ansible imports an action plugin before it forks its workers, so that all of them have
# the same identifier.
RUN = uuid.uuid4().hex


def done(facts: dict, name: str) -> list:
    fact = facts.get(name, {})
    return fact["done"] if fact.get("run") == RUN else []


def with_done(facts: dict, name: str, more: list) -> dict:
    """The fact to return from an action."""
    return {name: {"run": RUN, "done": done(facts, name) + more}}
