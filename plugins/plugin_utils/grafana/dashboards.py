"""Complete a dashboard (places and ids of its panels) and check it."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

from ansible_collections.tig_pi.stack.plugins.plugin_utils.grafana.documents import BUILT_IN, UID, Fault, listed, parsed

COLUMNS = 24


def place(panels: list[dict]) -> None:
    """Place the panels that have only a size: side by side, in rows, below those that have a place."""
    x = y = bottom = 0
    for panel in panels:
        grid = panel.get("gridPos")
        if not isinstance(grid, dict) or not {"w", "h"} <= set(grid):
            raise Fault(f"panel {name_of(panel)} has no gridPos with w and h.")
        is_row = panel.get("type") == "row"
        if not {"x", "y"} <= set(grid):
            if is_row or x + grid["w"] > COLUMNS:
                x, y = 0, bottom
            grid |= {"x": x, "y": y}
            x += grid["w"]
            if is_row:
                place_below(panel, y + 1)
        else:
            x = COLUMNS  # the next panel without a place begins below
        bottom = max(bottom, grid["y"] + grid["h"])


def place_below(row: dict, y: int) -> None:
    """The panels of a collapsed row."""
    place(row.get("panels") or [])
    for panel in row.get("panels") or []:
        panel["gridPos"]["y"] += y


def number_panels(panels: list[dict]) -> None:
    everything = all_panels(panels)
    taken = {panel["id"] for panel in everything if panel.get("id")}
    free = (number for number in range(1, len(everything) + len(taken) + 1) if number not in taken)
    for panel in everything:
        if not panel.get("id"):
            panel["id"] = next(free)


def all_panels(panels: list[dict]) -> list[dict]:
    return [one for panel in panels for one in (panel, *(panel.get("panels") or []))]


def name_of(panel: dict) -> str:
    return repr(panel.get("title") or panel.get("type") or "without a title")


def dashboard(text: str, is_json: bool, datasources: set[str]) -> dict:
    """The dashboard in a rendered template, completed and checked."""
    model = parsed(text, is_json)
    if not isinstance(model, dict):
        raise Fault("is not a dashboard, which is an object with uid, title and panels.")
    if "dashboard" in model and "panels" not in model:
        raise Fault("is an answer of Grafana's API; keep only the content of 'dashboard'.")
    if "__inputs" in model:
        raise Fault("was exported for sharing; export it again without 'Export for sharing externally'.")
    if not isinstance(model.get("title"), str) or not model["title"].strip():
        raise Fault("has no title.")
    if not UID.fullmatch(str(model.get("uid") or "")):
        raise Fault(f"has the uid {model.get('uid')!r}; use at most 40 letters, digits, '-' and '_'.")
    model.pop("id", None)  # assigned by Grafana
    model.setdefault("schemaVersion", 42)
    panels = model.setdefault("panels", [])
    place(panels)
    number_panels(panels)
    for number, count in Counter(panel["id"] for panel in all_panels(panels)).items():
        if count > 1:
            raise Fault(f"has {count} panels with the id {number}.")
    check_grid(panels)
    check_datasources(model, datasources)
    return model


def check_grid(panels: list[dict]) -> None:
    placed = []
    for panel in all_panels([panel for panel in panels if not panel.get("collapsed")]):
        grid = panel["gridPos"]
        if not 0 < grid["w"] <= COLUMNS - grid["x"] or grid["h"] <= 0 or grid["x"] < 0 or grid["y"] < 0:
            raise Fault(f"panel {name_of(panel)} does not fit into the {COLUMNS} columns: gridPos is {grid}.")
        placed.append((panel, grid))
    for (one, a), (other, b) in combinations(placed, 2):
        if (
            a["x"] < b["x"] + b["w"]
            and b["x"] < a["x"] + a["w"]
            and a["y"] < b["y"] + b["h"]
            and b["y"] < a["y"] + a["h"]
        ):
            raise Fault(f"panels {name_of(one)} and {name_of(other)} overlap.")


def check_datasources(node, datasources: set[str]) -> None:
    if isinstance(node, dict):
        source = node.get("datasource")
        uid = source.get("uid") if isinstance(source, dict) else source
        if isinstance(uid, str) and uid not in datasources | BUILT_IN and not uid.startswith("$"):
            raise Fault(f"uses the data source {uid!r}; the provisioned ones are {listed(datasources)}.")
        for value in node.values():
            check_datasources(value, datasources)
    elif isinstance(node, list):
        for value in node:
            check_datasources(value, datasources)
