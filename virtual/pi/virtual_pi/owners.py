"""The process that owns a virtual Pi, and what is left over after its end."""

from __future__ import annotations

import contextlib
import pathlib
import re
from collections.abc import Callable

from . import Failure


def process_start(pid: int) -> str:
    """When a process started, in clock ticks since boot (proc(5), field 22 of stat); "" if it does not exist."""
    with contextlib.suppress(OSError):
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return ""


def owner_mark(pid: int | None) -> str:
    """The mark of an owner on its containers: pid, start and boot, so that no later process is mistaken for the owner."""
    if pid is None:
        return ""
    start = process_start(pid)
    if not start:
        raise Failure(f"--owner-pid {pid}: no such process")
    boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{pid}:{start}:{boot}"


def is_left_over(mark: str, current_mark: Callable[[int], str] = lambda pid: owner_mark(pid)) -> bool:
    """Whether the owner with this mark has ended. A container without an owner is never left over."""
    if not mark:
        return False
    try:
        return current_mark(int(mark.partition(":")[0])) != mark
    except Failure:
        return True


def orphans(leaving: int | None = None, processes: pathlib.Path = pathlib.Path("/proc")) -> list[int]:
    """Processes whose owner, the pid in $TIG_PI_OWNER_PID, has ended, and the virtual machines of the process `leaving`."""
    found = []
    for path in processes.glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            owner = re.search(rb"(?:^|\0)TIG_PI_OWNER_PID=(\d+)(?:\0|$)", path.read_bytes())
            if not owner:
                continue
            is_machine = path.with_name("comm").read_text().startswith("qemu-system")
            if not process_start(int(owner[1])) or (is_machine and int(owner[1]) == leaving):
                found.append(int(path.parent.name))
    return found
