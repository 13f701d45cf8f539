"""The tree of notification policies: which alert goes to which contact point, and how often."""

import re
from dataclasses import dataclass, field
from typing import Any

from .settings import seconds
from .store import Store

DEFAULT_RECEIVER = "grafana-default-email"
_DEFAULT_GROUP_BY = ["grafana_folder", "alertname"]
_MATCHER = re.compile(r"\s*([a-zA-Z_][\w.\- ]*?)\s*(=~|!~|!=|=)\s*(.*?)\s*")


class PolicyError(Exception):
    """The tree cannot be used."""


def default_contact_point() -> dict[str, Any]:
    """The contact point that every new Grafana has. Policies know it by another name than this list."""
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
    """The default one and those of the files."""
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


def _matchers(route: dict[str, Any]) -> list[tuple[str, str, str]]:
    found = [tuple(str(part) for part in matcher) for matcher in route.get("object_matchers") or []]
    for text in route.get("matchers") or []:
        match = _MATCHER.fullmatch(str(text))
        if not match:
            raise PolicyError(f"bad matcher format: {text}")
        value = match[3]
        found.append((match[1], match[2], value[1:-1] if len(value) > 1 and value[0] == value[-1] == '"' else value))
    found += [(key, "=", str(value)) for key, value in (route.get("match") or {}).items()]
    found += [(key, "=~", str(value)) for key, value in (route.get("match_re") or {}).items()]
    return found


def receivers(store: Store) -> set[str]:
    """The names that policies and rules may send to."""
    return {DEFAULT_RECEIVER, *(point["name"] for point in store.all("contact_point"))}


def used(route: dict[str, Any]) -> set[str]:
    """The receivers that a tree names."""
    return {route.get("receiver") or ""}.union(*(used(child) for child in route.get("routes") or []))


def check_tree(route: Any, store: Store) -> None:
    """Raises PolicyError for a tree that Grafana refuses."""
    names = receivers(store)

    def check(node: Any, root: bool) -> None:
        if not isinstance(node, dict):
            raise PolicyError("a route must be a mapping")
        if root and not node.get("receiver"):
            raise PolicyError("root route must specify a default receiver")
        if root and _matchers(node):
            raise PolicyError("root route must not have any matchers")
        if node.get("receiver") and node["receiver"] not in names:
            raise PolicyError(f"receiver '{node['receiver']}' does not exist")
        for key in ("group_wait", "group_interval", "repeat_interval"):
            if node.get(key) not in (None, "") and (seconds(str(node[key])) <= 0 and key != "group_wait"):
                raise PolicyError(f"{key} cannot be zero")
        for _, kind, value in _matchers(node):
            if kind not in ("=", "!=", "=~", "!~"):
                raise PolicyError(f"unsupported match type {kind} in matcher")
            re.compile(value) if "~" in kind else None
        for child in node.get("routes") or []:
            check(child, False)

    try:
        check(route, True)
    except (PolicyError, ValueError, re.error) as error:
        raise PolicyError(str(error)) from error


@dataclass
class Route:
    """One policy with everything that it inherits."""

    receiver: str
    group_by: list[str]
    group_wait: float = 30.0
    group_interval: float = 300.0
    repeat_interval: float = 14400.0
    path: str = "{}"
    matchers: list[tuple[str, str, str]] = field(default_factory=list)


def _fits(matchers: list[tuple[str, str, str]], labels: dict[str, str]) -> bool:
    tests = {
        "=": lambda have, want: have == want,
        "!=": lambda have, want: have != want,
        "=~": lambda have, want: re.fullmatch(want, have) is not None,
        "!~": lambda have, want: re.fullmatch(want, have) is None,
    }
    return all(tests[kind](labels.get(name, ""), value) for name, kind, value in matchers)


def routes_for(tree_: dict[str, Any], labels: dict[str, str]) -> list[Route]:
    """The policies that an alert with these labels falls under."""

    def enter(node: dict[str, Any], parent: Route) -> list[Route]:
        matchers = _matchers(node)
        if not _fits(matchers, labels):
            return []
        shown = ",".join(f'{name}{kind}"{value}"' for name, kind, value in matchers)
        route = Route(
            node.get("receiver") or parent.receiver,
            node.get("group_by") or parent.group_by,
            *(
                seconds(str(node[key])) if node.get(key) else getattr(parent, key)
                for key in ("group_wait", "group_interval", "repeat_interval")
            ),
            path=f"{parent.path}/{{{shown}}}" if parent.path != "-" else "{}",
            matchers=matchers,
        )
        found: list[Route] = []
        for child in node.get("routes") or []:
            matched = enter(child, route)
            found += matched
            if matched and not child.get("continue"):
                break
        return found or [route]

    return enter(tree_, Route(DEFAULT_RECEIVER, list(_DEFAULT_GROUP_BY), path="-"))
