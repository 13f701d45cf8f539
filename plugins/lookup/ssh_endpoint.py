"""How SSH on this computer reaches a host, and by which keys it knows it."""

from __future__ import annotations

DOCUMENTATION = r"""
name: ssh_endpoint
short_description: Read how SSH on the controller reaches a host, and by which keys it knows it
description:
  - Asks C(ssh -G), with the host's connection variables, and C(ssh-keygen -F).
options:
  _terms:
    description: Names of hosts.
    required: true
requirements:
  - ssh and ssh-keygen (OpenSSH) on the controller
"""

EXAMPLES = r"""
- name: Wait until SSH answers
  ansible.builtin.wait_for:
    host: "{{ lookup('tig_pi.stack.ssh_endpoint', inventory_hostname).host }}"
    port: "{{ lookup('tig_pi.stack.ssh_endpoint', inventory_hostname).port }}"
  delegate_to: localhost
"""

RETURN = r"""
_raw:
  description: >-
    Of each host C(host) and C(port) of the connection, C(is_direct) (whether it is reached without a proxy), C(known_hosts) (the file with
    its keys), C(name) (its name in this file) and C(known_keys) (its keys there, each as type and key).
  type: list
  elements: dict
"""

import os
import shlex
import subprocess
from collections.abc import Iterable, Mapping

from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase
from ansible_collections.tig_pi.stack.plugins.filter.ssh import host_keys


class LookupModule(LookupBase):
    def run(self, terms, variables=None, **kwargs):
        self.set_options(var_options=variables, direct=kwargs)
        return [self._endpoint(term, variables["hostvars"][term]) for term in terms]

    def _endpoint(self, host: str, variables: Mapping) -> dict:
        options = shlex.split(variables.get("ansible_ssh_common_args") or "")
        if port := variables.get("ansible_port"):
            options += ["-p", str(port)]
        asked = subprocess.run(
            ["ssh", "-G", *options, variables.get("ansible_host") or host], capture_output=True, text=True, check=False
        )
        if asked.returncode:
            raise AnsibleError(f"ssh cannot tell how it reaches {host}: {asked.stderr.strip()}")
        endpoint = read_configuration(asked.stdout.splitlines())
        find = ["ssh-keygen", "-F", endpoint["name"], "-f", endpoint["known_hosts"]]
        known = subprocess.run(find, capture_output=True, text=True, check=False)  # which fails if there are none
        return {**endpoint, "known_keys": host_keys(known.stdout.splitlines())}


def read_configuration(lines: Iterable[str]) -> dict:
    """An endpoint without its keys, from the lines that `ssh -G` prints."""
    found = dict(line.split(" ", 1) for line in lines if " " in line)
    host, port = found["hostname"], int(found["port"])
    proxies = [found.get(option, "none") for option in ("proxyjump", "proxycommand")]
    return {
        "host": host,
        "port": port,
        "is_direct": proxies == ["none", "none"],
        "name": found.get("hostkeyalias") or (host if port == 22 else f"[{host}]:{port}"),
        "known_hosts": os.path.expanduser(found["userknownhostsfile"].split(" ")[0]),
    }
