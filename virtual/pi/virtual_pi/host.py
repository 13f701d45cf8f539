"""This machine's architecture, cgroups and resource limits, and the settings that podman needs for them."""

from __future__ import annotations

import json
import os
import pathlib
import platform
import re
import resource
import subprocess

from . import Failure

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "armhf"}  # uname -m: dpkg's name
CAP_SYS_RESOURCE = 24  # linux/capability.h
CGROUP2_SUPER_MAGIC = 0x63677270  # linux/magic.h


def cache_directory() -> pathlib.Path:
    """The user's cache directory, shared by all clones. The same as packaging/feed.py's, whose feeds are mounted in Pis."""
    path = os.environ.get("TIG_PI_CACHE") or pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "tig-pi")
    return pathlib.Path(path).expanduser().resolve()


def host_architecture() -> str:
    """dpkg's name of this machine's architecture; a Failure if Raspberry Pi OS does not support it."""
    machine = platform.machine()
    if machine not in ARCHITECTURES:
        raise Failure(f"no virtual Pi can run on {machine}; it needs one of {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[machine]


def is_cgroup_v2(path: str = "/sys/fs/cgroup") -> bool:
    """Whether this machine uses cgroups v2 only (neither v1 nor hybrid)."""
    result = subprocess.run(["stat", "-f", "-c", "%t", path], capture_output=True, text=True, check=False)
    return result.returncode == 0 and int(result.stdout, 16) == CGROUP2_SUPER_MAGIC


def can_raise_limits(status: str) -> bool:
    """Whether root may raise resource limits. `status` is the content of /proc/self/status.

    This looks at the bounding set, which also applies to root through sudo.
    """
    bounding = re.search(r"^CapBnd:\s*([0-9a-f]+)$", status, re.MULTILINE)
    return bounding is None or bool(int(bounding[1], 16) >> CAP_SYS_RESOURCE & 1)


def containers_conf(cgroup_v2: bool, raise_limits: bool, open_files: int, processes: int) -> str:
    """The content of containers.conf(5) for this machine; empty if podman's defaults work.

    - crun refuses hybrid cgroups, runc does not. systemd 257 refuses v1 unless it is forced to accept it.
    - Without CAP_SYS_RESOURCE, podman cannot set its default limits, because they are higher than this machine's.
    """
    containers, engine = [], []
    if not raise_limits:
        limits = [f"nofile={open_files}:{open_files}", f"nproc={processes}:{processes}"]
        containers.append(f"default_ulimits = {json.dumps(limits)}")
    if not cgroup_v2:
        containers.append('env = ["SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1"]')
        engine.append('runtime = "runc"')
    sections = {"containers": containers, "engine": engine}
    return "".join(f"[{name}]\n" + "\n".join(lines) + "\n" for name, lines in sections.items() if lines)


def host_containers_conf() -> str:
    """containers_conf() for this machine."""
    processes = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    return containers_conf(
        cgroup_v2=is_cgroup_v2(),
        raise_limits=can_raise_limits(pathlib.Path("/proc/self/status").read_text()),
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        processes=min(processes, 32768) if processes != resource.RLIM_INFINITY else 32768,
    )
