#!/usr/bin/python
"""Begin an upgrade of a host, end it, or roll it back."""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.tig_pi.stack.plugins.module_utils.upgrade.host import Upgrade
from ansible_collections.tig_pi.stack.plugins.module_utils.upgrade.packages import Failure

DOCUMENTATION = r"""
module: upgrade
short_description: Begin an upgrade of a host, end it, or roll it back
description:
  - >-
    V(begun) takes a snapshot of what an upgrade may change: the settings of the host, the data of its services, which pause for it, and
    each package before apt changes it. It is in C(/var/lib/tig-pi/upgrade), mostly as hard links, so that a rollback downloads nothing.
  - V(verified) removes the snapshot.
  - >-
    V(reverted) restores packages, settings and data, and adds the points that InfluxDB has received since the upgrade began. What it replaces
    is kept until the next upgrade. The services do not start, also after a reboot, until their data is restored.
  - Each may be repeated, also after a power cut. It continues where it was interrupted.
options:
  state:
    description: What is to be done; V(read) does nothing.
    choices: [read, begun, verified, reverted]
    default: read
    type: str
  id:
    description: Identifier of the upgrade, the same for all hosts of a site.
    type: str
    default: ""
  services:
    description: Services that pause while their data is copied or restored; for V(begun).
    type: list
    elements: dict
    default: []
    suboptions:
      unit:
        description: Its unit.
        type: str
        required: true
      data:
        description: Its directories.
        type: list
        elements: path
        default: []
      package:
        description: Package without a change of which the directories are not restored.
        type: str
        default: ""
  influxdb:
    description: The database of the host, if it has one; for V(reverted).
    type: dict
    suboptions:
      url:
        description: Where it answers.
        type: str
        required: true
      user:
        description: Administrator.
        type: str
        required: true
      password:
        description: Password of the administrator.
        type: str
        required: true
      data:
        description: Its directory.
        type: path
        default: /var/lib/influxdb
      ignored:
        description: Measurement whose points are not added.
        type: str
        default: ""
  managed_packages:
    description: Packages that an upgrade usually replaces, for which there must be room on the card; for V(begun).
    type: list
    elements: str
    default: []
  unmanaged_packages:
    description: Packages that are installed without apt; for V(begun).
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    support: none
"""

EXAMPLES = r"""
- name: Take a snapshot of the host
  tig_pi.stack.upgrade:
    state: begun
    id: "20260712T144039"
    services:
      - {unit: grafana-server.service, data: [/var/lib/grafana]}

- name: Roll the upgrade back
  tig_pi.stack.upgrade:
    state: reverted
    influxdb: {url: "{{ influxdb_url }}", user: admin, password: "{{ vault_influxdb }}"}
"""

RETURN = r"""
upgrade:
  description: C(state) of the last upgrade (C(none), C(begun), C(verified), C(reverting), C(reverted)), its C(id), what was done in C(lines), and C(problems) of the rollback.
  type: dict
  returned: success
"""


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"choices": ["read", "begun", "verified", "reverted"], "default": "read"},
            "id": {"type": "str", "default": ""},
            "services": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "unit": {"type": "str", "required": True},
                    "data": {"type": "list", "elements": "path", "default": []},
                    "package": {"type": "str", "default": ""},
                },
            },
            "influxdb": {
                "type": "dict",
                "options": {
                    "url": {"type": "str", "required": True},
                    "user": {"type": "str", "required": True},
                    "password": {"type": "str", "required": True, "no_log": True},
                    "data": {"type": "path", "default": "/var/lib/influxdb"},
                    "ignored": {"type": "str", "default": ""},
                },
            },
            "managed_packages": {"type": "list", "elements": "str", "default": []},
            "unmanaged_packages": {"type": "list", "elements": "str", "default": []},
        },
    )
    asked = module.params
    upgrade = Upgrade()
    try:
        with upgrade.alone():
            before = after = upgrade.read()
            match asked["state"]:
                case "begun":
                    after = upgrade.begin(
                        asked["id"], asked["services"], asked["unmanaged_packages"], asked["managed_packages"]
                    )
                case "verified":
                    after = upgrade.end()
                case "reverted":
                    after = upgrade.revert(asked["influxdb"] or {})
    except (Failure, OSError) as failure:
        module.fail_json(msg=str(failure), upgrade={"state": upgrade.read()["state"]})
    said = {key: value for key, value in after.items() if key not in ("packages", "changed", "services", "done")}
    module.exit_json(changed=before != after, upgrade=said)


if __name__ == "__main__":
    main()
