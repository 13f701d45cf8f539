"""What `make status` makes of the database's answer."""

from __future__ import annotations

import importlib.util

from conftest import REPOSITORY

spec = importlib.util.spec_from_file_location("status_filters", REPOSITORY / "plugins/filter/status.py")
status = importlib.util.module_from_spec(spec)
spec.loader.exec_module(status)


def test_what_nobody_declared_is_listed_while_it_sends():
    def series(device, at):
        return {"tags": {"device": device}, "columns": ["time", "outsidetemp"], "values": [[at, 21.5]]}

    results = [
        {"statement_id": 0, "series": [series("guest", 99_000), series("gone", 1_000), series("greenhouse", 1_000)]}
    ]
    states = status.device_states([{"name": "greenhouse"}, {"name": "new"}], results, 100_000)
    assert [(one["name"], one["age"]) for one in states] == [("greenhouse", 99_000), ("new", None), ("guest", 1_000)]
