"""What is said of a state file that a power cut has damaged."""

from __future__ import annotations

from collections.abc import Mapping


def damaged_file(finding: Mapping) -> str:
    """One finding of a program that looks after state files, in words."""
    copy = f" The damaged file is {finding['copy']}." if finding.get("copy") else ""
    return f"{finding['file']} {finding['problem']}: {finding['done']}.{copy} Lost: {finding['lost']}."


class FilterModule:
    def filters(self) -> dict:
        return {"damaged_file": damaged_file}
