"""Variables in places of the inventory that rank below the playbook's group_vars/all, where they have no effect."""

from __future__ import annotations

DOCUMENTATION = r"""
name: outranked_variables
short_description: Find variables of the inventory that have no effect
description:
  - Ansible ranks group_vars/all beside a playbook above the inventory's group V(all), and above what a file of hosts sets for any
    group. What an inventory sets there is silently ignored. group_vars/ and host_vars/ beside the inventory rank higher.
  - Only variables that the playbook's group_vars/all sets are reported.
options:
  _terms:
    description: None.
"""

EXAMPLES = r"""
- ansible.builtin.assert:
    that: query('tig_pi.stack.outranked_variables') | length == 0
"""

RETURN = r"""
_raw:
  description: One sentence per file and per group with such variables, with the place where they take effect.
  type: list
  elements: str
"""

import os
from collections.abc import Iterator
from pathlib import Path

from ansible.inventory.manager import InventoryManager
from ansible.plugins.lookup import LookupBase


class LookupModule(LookupBase):
    def run(self, terms, variables=None, **kwargs):
        self.set_options(var_options=variables, direct=kwargs)
        wired = {
            name for _, values in self._files(Path(variables["playbook_dir"], "group_vars"), "all") for name in values
        }
        problems = []
        for place, names, home in self._places(variables["ansible_inventory_sources"]):
            if lost := sorted(wired & names):
                problems.append(
                    f"{place} sets {', '.join(lost)}, which has no effect there: Ansible ranks the playbook's "
                    f"group_vars/all above it. Move it to {home}."
                )
        return problems

    def _places(self, sources: list[str]) -> Iterator[tuple[str, set[str], str]]:
        """The places that rank lower: the name of each, the variables that it sets, and where to move them."""
        sources = [source for source in sources if os.path.exists(source)]
        for source in map(Path, sources):
            folder = source if source.is_dir() else source.parent
            for path, values in self._files(folder / "group_vars", "all"):
                first, *rest = Path(path).relative_to(folder / "group_vars").parts
                home = Path(folder, "group_vars", "site" + Path(first).suffix, *rest)
                yield (
                    _short(path),
                    set(values),
                    f"{_short(home)}, and have all hosts in group site: in hosts.yml, `site:` in place of `all:`",
                )
        inventory = InventoryManager(loader=self._loader, sources=sources)
        for name, group in sorted(inventory.groups.items()):
            home = f"group_vars/{'site' if name == 'all' else name}.yml beside it"
            yield f"The file of hosts ({', '.join(map(_short, sources))}), group {name},", set(group.vars), home

    def _files(self, folder: Path, name: str) -> Iterator[tuple[str, dict]]:
        for path in self._loader.find_vars_files(str(folder), name):
            path = os.fsdecode(path)
            yield path, self._loader.load_from_file(path, unsafe=True) or {}


def _short(path) -> str:
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
