"""What several programs agree on, for templates and playbooks."""

from __future__ import annotations

DOCUMENTATION = r"""
name: contract
short_description: Return what several programs of the collection agree on
description:
  - Topics, status words, reserved names, limits, identifiers and ports, from C(contract.yml) of the collection.
options:
  _terms:
    description: None.
"""

EXAMPLES = r"""
- ansible.builtin.debug:
    msg: "The probe is called {{ lookup('tig_pi.stack.contract').probe }}."
"""

RETURN = r"""
_raw:
  description: The whole file, as one dictionary.
  type: list
  elements: dict
"""

from copy import deepcopy

from ansible.plugins.lookup import LookupBase
from ansible_collections.tig_pi.stack.plugins.plugin_utils.contract import CONTRACT


class LookupModule(LookupBase):
    def run(self, terms, variables=None, **kwargs):
        self.set_options(var_options=variables, direct=kwargs)
        return [deepcopy(CONTRACT)]
