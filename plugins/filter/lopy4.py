"""Filters of the role lopy4."""

from __future__ import annotations

from ansible_collections.tig_pi.stack.plugins.plugin_utils.lopy4.conflicts import lopy4_conflicts
from ansible_collections.tig_pi.stack.plugins.plugin_utils.lopy4.inventory import (
    lopy4_choice,
    lopy4_known,
    lopy4_proposal,
    lopy4_with_host,
)
from ansible_collections.tig_pi.stack.plugins.plugin_utils.lopy4.network import lopy4_address, posix_timezone
from ansible_collections.tig_pi.stack.plugins.plugin_utils.lopy4.settings import lopy4_problems
from ansible_collections.tig_pi.stack.plugins.plugin_utils.lopy4.summary import lopy4_summary


def lopy4_requirements(wheels: list[dict]) -> str:
    """A requirements file for pip, with the hashes of wheels in a feed.

    Args:
        wheels: their entries in the list of the feed.
    """
    hashes: dict[str, list[str]] = {}
    for wheel in wheels:  # of one package for several kinds of computers
        hashes.setdefault(f"{wheel['name']}=={wheel['version']}", []).append(f"--hash=sha256:{wheel['sha256']}")
    return "".join(f"{package} {' '.join(own)}\n" for package, own in hashes.items())


class FilterModule:
    def filters(self):
        return {
            "lopy4_address": lopy4_address,
            "lopy4_choice": lopy4_choice,
            "lopy4_conflicts": lopy4_conflicts,
            "lopy4_known": lopy4_known,
            "lopy4_problems": lopy4_problems,
            "lopy4_proposal": lopy4_proposal,
            "lopy4_requirements": lopy4_requirements,
            "lopy4_summary": lopy4_summary,
            "lopy4_with_host": lopy4_with_host,
            "posix_timezone": posix_timezone,
        }
