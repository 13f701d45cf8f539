"""What is said of a state file that a power cut has damaged."""

from __future__ import annotations

from collections.abc import Mapping


def damaged_file(finding: Mapping) -> str:
    """One finding of a program that looks after state files, in words."""
    copy = f" The damaged file is {finding['copy']}." if finding.get("copy") else ""
    return f"{finding['file']} {finding['problem']}: {finding['done']}.{copy} Lost: {finding['lost']}."


def set_aside_files(looks: Mapping[str, list[Mapping]]) -> list[str]:
    """What service_state has seen on each host of files that were damaged and have been repaired, in words."""
    return [
        f"On {host}, {note['at']}: {damaged_file(note)}"
        for host, services in looks.items()
        for service in services
        for note in service.get("set_aside", [])
    ]


class FilterModule:
    def filters(self) -> dict:
        return {"damaged_file": damaged_file, "set_aside_files": set_aside_files}
