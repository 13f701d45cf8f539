"""Every template, rendered for every inventory with the variables that a playbook hands over."""

from __future__ import annotations

import grp
import json
import os
import pwd
import shutil
import tomllib
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY
from test_repository import tasks

# roles/<role>/templates/… is a role's own, templates/<role>/… what the playbooks hand to it.
TEMPLATES = {
    str(path.relative_to(REPOSITORY))
    for pattern in ("templates/**/*.j2", "roles/*/templates/**/*.j2")
    for path in REPOSITORY.glob(pattern)
}
# What a task hands over beside the variables of its play and of its role.
VARIABLES = {
    "templates/lopy4/settings.json.j2": {"lopy4": "{{ __lopy4_rendered }}"},
    "roles/grafana/templates/provisioning.yaml.j2": {"document": "{{ __grafana_datasource_file }}"},
    "templates/lopy4/host_vars.yml.j2": {
        "__device": {"firmware": "MicroPython", "port": "/dev/ttyUSB0", "mac": "30:ae:a4:00:00:00"},
        "__device_sensors": ["- driver: dht11", "  pin: P11"],
    },
}
FILLED_IN = {
    "device_name": "greenhouse",
    "lopy4_broker_host": "192.0.2.4",  # the inventory's is a name that nobody here answers to
    "site_templates": str(REPOSITORY / "templates"),  # which stand beside the real playbooks
    "card_wifi": {"ssid": "Mats’ nät", "country": "SE"},
}
OWNER = {"owner": pwd.getpwuid(os.getuid()).pw_name, "group": grp.getgrgid(os.getgid()).gr_name}
# Words of people's own, beyond ASCII and beyond U+FFFF: two escapes for one character are JSON, and neither YAML nor TOML.
OWN_WORDS = {"site_name": "Zuhause 🏠", "site_topic_prefix": "häuschen🏡", "site_extra_topics": ["garten/🌱"]}


def strict_yaml(text: str):
    """As Grafana reads it: the escapes of a surrogate pair are an error."""
    return yaml.load(text, Loader=yaml.CSafeLoader)


PARSERS = {".json": json.loads, ".yml": strict_yaml, ".yaml": strict_yaml, "telegraf": tomllib.loads}


def roles_of(play: dict) -> list[str]:
    """The roles that a play runs, not those of which it only asks where their packages come from."""
    imports = [task["ansible.builtin.import_role"] for task in tasks([play]) if "ansible.builtin.import_role" in task]
    imported = [role["name"] for role in imports if role.get("tasks_from") in (None, "serial_host")]
    return list(dict.fromkeys([*play.get("roles", []), *imported]))


def renders(playbook: str, role: str, template: str) -> bool:
    """device.yml makes a description of a device, and nothing else does."""
    return template.split("/")[1] == role and (playbook == "device.yml") == template.endswith("host_vars.yml.j2")


def rendering(playbook: str, rendered: Path) -> list[dict]:
    """The plays of a playbook, which do no more than render the templates of their roles."""
    plays = []
    for play in yaml.safe_load((REPOSITORY / "playbooks" / playbook).read_text()):
        if "hosts" not in play:
            imported = play["ansible.builtin.import_playbook"]
            plays += rendering(imported, rendered) if imported.startswith("site_") else []
            continue
        work = []
        for role in [name.rpartition(".")[2] for name in roles_of(play)]:
            files = [
                {"dest": f"{rendered}/{name}", "template": f"{REPOSITORY}/{name}", "vars": VARIABLES.get(name, {})}
                for name in sorted(TEMPLATES)
                if renders(playbook, role, name)
            ]
            if files:
                preflight = yaml.safe_load((REPOSITORY / f"roles/{role}/tasks/preflight.yml").read_text())
                work += [task for task in preflight if "ansible.builtin.set_fact" in task]
                work.append(
                    {"tig_pi.stack.tree": {"files": [file | OWNER for file in files]}, "delegate_to": "localhost"}
                )
        plays.append(
            {
                "hosts": play["hosts"],
                "gather_facts": False,
                "vars": play.get("vars", {}),
                "roles": roles_of(play),
                "tasks": [task | {"tags": ["render"]} for task in work],
            }
        )
    return plays


@pytest.mark.parametrize("inventory", ["demo", "home"])
def test_every_template_is_rendered(ansible_playbook, tmp_path, inventory):
    site, rendered = tmp_path / "inventory", tmp_path / "rendered"
    shutil.copytree(REPOSITORY / "inventories" / inventory, site, ignore=shutil.ignore_patterns("secrets", ".virtual"))
    for name, content in (("secrets/wifi", "sesame"), (".virtual/pi.json", '{"ports": {"3000": 13000}}')):
        (site / name).parent.mkdir()
        (site / name).write_text(content)
    shutil.copytree(REPOSITORY / "playbooks/group_vars", tmp_path / "group_vars")
    description = yaml.safe_load((REPOSITORY / "inventories/home/group_vars/site/readings.yml").read_text())
    readings = [reading | {"title": f"{reading['title']} 🌡"} for reading in description["site_readings"]]
    plays = [play for name in ("site.yml", "flash.yml", "device.yml", "card.yml") for play in rendering(name, rendered)]
    # The roles' own tasks are for a host; their variables, filters and lookups count all the same.
    only = (
        "--tags=render",
        "--skip-tags=always",
        f"--extra-vars={json.dumps(FILLED_IN | OWN_WORDS | {'site_readings': readings})}",
    )
    result = ansible_playbook(yaml.safe_dump(plays), *only)
    assert result.returncode == 0, result.stdout + result.stderr
    found = {str(path.relative_to(rendered)): path.read_text() for path in rendered.rglob("*") if path.is_file()}
    assert set(found) == TEMPLATES
    for name, text in found.items():
        suffix = Path(name).with_suffix("").suffix
        PARSERS.get("telegraf" if name.startswith("templates/telegraf/") else suffix, str)(text)
