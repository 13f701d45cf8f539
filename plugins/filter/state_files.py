"""Messages about state files that a power cut damaged."""

from __future__ import annotations

from collections.abc import Mapping


def damaged_file(finding: Mapping) -> str:
    """The message about one finding of a program that checks state files."""
    copy = f" The damaged file is {finding['copy']}." if finding.get("copy") else ""
    return f"{finding['file']} {finding['problem']}: {finding['done']}.{copy} Lost: {finding['lost']}."


def set_aside_files(found: Mapping[str, list[Mapping]]) -> list[str]:
    """Messages about files that were damaged and repaired, from the results of service_state by host."""
    return [
        f"On {host}, {note['at']}: {damaged_file(note)}"
        for host, services in found.items()
        for service in services
        for note in service.get("set_aside", [])
    ]


class FilterModule:
    def filters(self) -> dict:
        return {"damaged_file": damaged_file, "set_aside_files": set_aside_files}
