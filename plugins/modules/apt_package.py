#!/usr/bin/python
"""Documentation of the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: apt_package
short_description: Install the wanted versions of packages
description:
  - Installs packages with M(ansible.builtin.apt), without recommended packages and without starting services.
  - It needs package facts. If they say that the wanted versions are installed, nothing runs on the host.
options:
  name:
    description: Packages, in the syntax of apt-get install, such as C(grafana) or C(grafana=12.*).
    type: list
    elements: str
    required: true
  allow_downgrade:
    description: Whether to replace an installed version with an older one.
    type: bool
    default: false
  cache_valid_time:
    description: Seconds after which the package lists are updated.
    type: int
    default: 0
  lock_timeout:
    description: Seconds to wait for the lock of apt.
    type: int
    default: 300
attributes:
  check_mode:
    support: full
    description: A package that apt does not know yet, since its source was only to be written, is reported as changed.
"""

EXAMPLES = r"""
- name: Install Grafana
  tig_pi.stack.apt_package:
    name: [grafana=12.*]
  notify: Restart Grafana
"""

RETURN = r"""
changed:
  description: Whether a package was installed.
  type: bool
  returned: always
"""
