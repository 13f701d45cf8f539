"""The notification policy: the contact point that gets the alerts, and how often."""

from dataclasses import dataclass
from typing import Any

from .settings import seconds
from .store import Store

DEFAULT_RECEIVER = "grafana-default-email"
_DEFAULT_GROUP_BY = ["grafana_folder", "alertname"]


class PolicyError(Exception):
    """The tree of policies is invalid."""


def default_contact_point() -> dict[str, Any]:
    """The default contact point of a new Grafana. In policies it has another name than in this list."""
    return {
        "uid": "",
        "name": "email receiver",
        "type": "email",
        "settings": {"addresses": "<example@email.com>"},
        "disableResolveMessage": False,
    }


def default_tree() -> dict[str, Any]:
    return {"receiver": DEFAULT_RECEIVER, "group_by": list(_DEFAULT_GROUP_BY)}


def contact_points(store: Store) -> list[dict[str, Any]]:
    """The default contact point and those of the files."""
    own = [{k: v for k, v in point.items() if k != "id"} for point in store.all("contact_point")]
    return sorted([default_contact_point(), *own], key=lambda point: point["name"])


def tree(store: Store) -> dict[str, Any]:
    """The tree in force with its provenance, as GET /api/v1/provisioning/policies shows it."""
    stored = store.get("policies", "tree")
    if stored is None:
        return default_tree()
    shown = dict(stored["tree"])
    if stored.get("provenance"):
        shown["provenance"] = stored["provenance"]
    return shown


def reset_tree(store: Store) -> None:
    store.delete("policies", "tree")


def receivers(store: Store) -> set[str]:
    """The names that policies and rules may send to."""
    return {DEFAULT_RECEIVER, *(point["name"] for point in store.all("contact_point"))}


def used(route: dict[str, Any]) -> set[str]:
    """The receivers that the policy names."""
    return {route.get("receiver") or ""}


def check_tree(route: Any, store: Store) -> None:
    """Raise PolicyError if Grafana refuses the tree."""
    names = receivers(store)

    def check(node: Any) -> None:
        if not isinstance(node, dict):
            raise PolicyError("a route must be a mapping")
        if not node.get("receiver"):
            raise PolicyError("root route must specify a default receiver")
        if any(node.get(key) for key in ("object_matchers", "matchers", "match", "match_re")):
            raise PolicyError("root route must not have any matchers")
        if node["receiver"] not in names:
            raise PolicyError(f"receiver '{node['receiver']}' does not exist")
        for key in ("group_wait", "group_interval", "repeat_interval"):
            if node.get(key) not in (None, "") and (seconds(str(node[key])) <= 0 and key != "group_wait"):
                raise PolicyError(f"{key} cannot be zero")
        if node.get("routes"):
            raise PolicyError("this stand-in does not support nested policies")

    try:
        check(route)
    except ValueError as error:
        raise PolicyError(str(error)) from error


@dataclass
class Route:
    """The policy, or a rule's own notification settings, with its defaults."""

    receiver: str
    group_by: list[str]
    group_wait: float = 30.0
    group_interval: float = 300.0
    repeat_interval: float = 14400.0


def route(node: dict[str, Any]) -> Route:
    """The contact point of this policy."""
    values = {key: node[key] for key in ("receiver", "group_by") if node.get(key)}
    times = {
        key: seconds(str(node[key])) for key in ("group_wait", "group_interval", "repeat_interval") if node.get(key)
    }
    return Route(**{"receiver": DEFAULT_RECEIVER, "group_by": list(_DEFAULT_GROUP_BY), **values, **times})
