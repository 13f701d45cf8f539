"""Refuses the former name of the lookup tig_pi.stack.secret, which inventories made before may still have."""

from __future__ import annotations

from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase


class LookupModule(LookupBase):
    def run(self, terms, variables=None, **kwargs):
        raise AnsibleError(
            f"lookup('tig_pi.stack.secret', '{terms[0]}') is called lookup('tig_pi.stack.secret', '{terms[0]}') now: change it in "
            f"{(variables or {}).get('inventory_dir', 'the inventory')}."
        )
