#!/usr/bin/python
"""Documentation of the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: apt_package
short_description: Write apt sources and install the wanted versions of packages
description:
  - Writes the files of apt sources with M(tig_pi.stack.tree), updates the package lists, and installs packages with
    M(ansible.builtin.apt), without recommended packages and without starting services.
  - It needs package facts. If they say that the wanted versions are installed, apt does not run.
  - If the facts of M(tig_pi.stack.host_facts) say that apt was interrupted, by a power cut for example, it is completed first.
    What dpkg cannot complete is left to apt, with a warning, if packages are to be installed; otherwise it is an error.
  - Sources that an earlier task of the same playbook run has written are not compared again. So the packages of several
    roles can be installed in one transaction first, and each role finds nothing left to do.
options:
  name:
    description: Packages, in the syntax of apt-get install, such as C(grafana) or C(grafana=12.*).
    type: list
    elements: str
    required: true
  sources:
    description: Files of apt sources and pins, as O(tig_pi.stack.tree#module:files) has them, with C(content) or C(absent).
    type: list
    elements: dict
    default: []
  allow_downgrade:
    description: Whether to replace an installed version with an older one.
    type: bool
    default: false
  lock_timeout:
    description: Seconds to wait for the lock of apt.
    type: int
    default: 300
attributes:
  check_mode:
    support: full
    description: A package that apt does not know yet, since its source was only to be written, is reported as changed.
  diff_mode:
    support: full
"""

EXAMPLES = r"""
- name: Install Grafana
  tig_pi.stack.apt_package:
    name: [grafana=12.*]
    sources: ["{{ lookup('tig_pi.stack.apt_source', grafana_repository, variable='grafana_repository') }}"]
  notify: Restart Grafana
"""

RETURN = r"""
changed:
  description: Whether a file was written or a package installed.
  type: bool
  returned: always
upgraded:
  description: Those of O(name) that were installed before, in another version.
  type: list
  elements: str
  returned: always
ansible_facts:
  description: The facts.
  type: dict
  returned: when O(sources) had to be compared
  contains:
    apt_sources:
      description: The O(sources) that this playbook run has written.
      type: dict
"""
