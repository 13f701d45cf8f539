"""An apt source with its own key, as a file that the tree module writes."""

from __future__ import annotations

DOCUMENTATION = r"""
name: apt_source
short_description: Return the file of an apt source, with the verified key of its repository
description:
  - Returns an entry for M(tig_pi.stack.tree), for C(/etc/apt/sources.list.d/<name>.sources).
options:
  _terms:
    description: >-
      Repositories, each with C(name), C(uri), C(key) (an ASCII-armoured block, or the URL of one), C(fingerprint), and, unless it
      is flat, C(suites) and C(components).
    required: true
  variable:
    description: The inventory's variable of the repository, for error messages.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Write the apt source
  tig_pi.stack.tree:
    files: ["{{ lookup('tig_pi.stack.apt_source', telegraf_repository, variable='telegraf_repository') }}"]
"""

RETURN = r"""
_raw:
  description: Entries with C(dest) and C(content).
  type: list
  elements: dict
"""

from ansible.errors import AnsibleError
from ansible.plugins.loader import lookup_loader
from ansible.plugins.lookup import LookupBase
from ansible_collections.tig_pi.stack.plugins.filter.apt import apt_source

REQUIRED = ("name", "uri", "key")


class LookupModule(LookupBase):
    def run(self, terms, variables=None, **kwargs):
        self.set_options(var_options=variables, direct=kwargs)
        return [self._file(repository, variables) for repository in terms]

    def _file(self, repository: dict, variables: dict) -> dict:
        variable = self.get_option("variable")
        if missing := [key for key in REQUIRED if not repository.get(key)]:
            raise AnsibleError(f"{variable} has no {missing[0]}; it must have {', '.join(REQUIRED)} and fingerprint.")
        lookup = lookup_loader.get("tig_pi.stack.repository_key", loader=self._loader, templar=self._templar)
        fingerprint = repository.get("fingerprint", "")
        [key] = lookup.run([repository["key"]], variables, fingerprint=fingerprint, variable=f"{variable}.fingerprint")
        text = apt_source(repository["uri"], repository.get("suites", "./"), repository.get("components", ""), key)
        return {"dest": f"/etc/apt/sources.list.d/{repository['name']}.sources", "content": text}
