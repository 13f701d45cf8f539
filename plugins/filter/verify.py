"""Reports of `make verify` on a check that failed: what was expected, what was found, and the last messages of the service."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

LENGTH = 400  # of an answer that is shown


def http_answer(result: Mapping) -> str:
    """The answer to a request, from the result of ansible.builtin.uri, whose own message may be no more than OK."""
    if result.get("status", -1) < 0:
        return re.sub(r"^Status code was -1 and not \[[\d, ]*\]: ", "", str(result.get("msg", "no answer")))
    body = json.dumps(result["json"]) if "json" in result else str(result.get("content", ""))
    return f"HTTP {result['status']}: {body[:LENGTH]}" if body else f"HTTP {result['status']}"


def failed_check(result: Mapping, expected: str, unit: str, host: str, messages: list[str]) -> str:
    """The report on a check. `unit` and `host` are those of the service that it depends on, `messages` the last of its journal."""
    found = f"Found: {http_answer(result) if 'status' in result else result.get('msg', result)}"
    if not unit:
        return found
    lines = [f"Expected: {expected}", found]
    if messages:
        lines += [f"Last messages of {unit} on {host}:", *(f"  {line}" for line in messages)]
    return "\n".join([*lines, f"Its log: sudo journalctl --unit={unit}, on {host}"])


class FilterModule:
    def filters(self) -> dict:
        return {"failed_check": failed_check, "http_answer": http_answer}
