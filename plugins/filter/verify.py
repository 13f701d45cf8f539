"""What `make verify` says of a link that is broken: what was expected, what came, and what the service said last."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

LENGTH = 400  # of an answer that is shown


def http_answer(result: Mapping) -> str:
    """What came of a request, from the result of ansible.builtin.uri, whose own message may be no more than OK."""
    if result.get("status", -1) < 0:
        return re.sub(r"^Status code was -1 and not \[[\d, ]*\]: ", "", str(result.get("msg", "no answer")))
    body = json.dumps(result["json"]) if "json" in result else str(result.get("content", ""))
    return f"HTTP {result['status']}: {body[:LENGTH]}" if body else f"HTTP {result['status']}"


def link_problem(result: Mapping, link: Mapping, host: str, said: list[str]) -> str:
    """The whole of it; `link` is what the task says of itself, `said` the end of the journal of its service on that host."""
    found = f"Found: {http_answer(result) if 'status' in result else result.get('msg', result)}"
    if "unit" not in link:
        return found
    lines = [f"Expected: {link['expected']}", found]
    if said:
        lines += [f"{link['unit']} on {host} said last:", *(f"  {line}" for line in said)]
    return "\n".join([*lines, f"Look there: sudo journalctl --unit={link['unit']}, on {host}"])


class FilterModule:
    def filters(self) -> dict:
        return {"http_answer": http_answer, "link_problem": link_problem}
