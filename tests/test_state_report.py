"""What `make status` says of state files that a power cut has damaged."""

from __future__ import annotations

from ansible_collections.tig_pi.stack.plugins.filter.state_files import set_aside_files
from ansible_collections.tig_pi.stack.plugins.filter.status import service_states
from state_services import Flows


def test_a_file_that_was_set_aside_is_reported_with_what_is_lost(tmp_path):
    """From the damage of a file to the words."""
    flows = Flows(tmp_path)
    flows.make()
    flows.damage(flows.files()["context/global/global.json"], "truncated")
    flows.run("start")
    seen = {"unit": "node-red.service", "set_aside": flows.report()["set_aside"]}
    (said,) = set_aside_files({"pi": [seen]})
    assert said.startswith("On pi, 2")
    assert "/var/lib/node-red/context/global/global.json is damaged: kept " in said
    assert "The damaged file is /var/lib/tig-pi/node-red/damaged/" in said
    assert "Lost: the values after them, until 2" in said


def test_a_service_that_runs_without_a_damaged_file_has_a_problem():
    seen = {"state": "running", "since": 0, "restarts": 0, "said": []}
    problem = "/var/lib/node-red/flows.json is damaged; run make repair. Lost: flows."
    service = {"name": "Node-RED", "unit": "node-red.service", "host": "pi", "error": ""}
    (row,) = service_states([service], {"pi": [{**seen, "unit": service["unit"], "problem": problem}]})
    assert (row["state"], row["problem"]) == ("has damaged files", problem)
