"""What follows from the description of a site: its devices, their fields, the broker's accounts, and what is wrong with it."""

from __future__ import annotations

import ast
import difflib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from zoneinfo import available_timezones

import yaml
from ansible.errors import AnsibleFilterError
from ansible.module_utils.parsing.convert_bool import BOOLEANS
from ansible_collections.tig_pi.stack.plugins.plugin_utils.contract import CONTRACT

REPOSITORY = Path(__file__).parents[2]
DRIVERS = REPOSITORY / "firmware" / "lib" / "tig" / "drivers"
WIRING = REPOSITORY / "playbooks/group_vars/all"

FUNCTIONS = ("brokers", "databases", "collectors", "dashboards", "flows")
BRANCHES = CONTRACT["branches"]
PROBE = CONTRACT["probe"]
PROGRAMS = (*CONTRACT["program_accounts"], PROBE)  # accounts of the stack's own programs
FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")  # one level of a topic, an account, a file name and a label alike
RESERVED_FIELDS = set(CONTRACT["reserved_fields"])
MEASUREMENT = re.compile(r"\w[\w.-]*( [\w.-]+)*", re.ASCII)
RESERVED_MEASUREMENTS = {PROBE, *CONTRACT["measurements"].values(), *CONTRACT["reserved_measurements"]}
NAME_BYTES = CONTRACT["name_bytes"]
DEVICE_NAME_BYTES = CONTRACT["settings"]["name"]["largest"]
SPECS = "roles/{}/meta/argument_specs.yml"
# How entries are written, for messages. Where there is no sample, the default is one.
SAMPLES = {
    "site_timezone": "Europe/Stockholm",
    "site_alert_topic": "tig-alert",
    "site_extra_topics": ["mats/test"],
    "site_accounts": [{"name": "mats", "publish": ["mats/test"], "subscribe": ["tig/#"]}],
    "site_readings": [
        {
            "field": "outsidetemp",
            "title": "Temperature",
            "unit": "celsius",
            "sensor": "dht11",
            "quantity": "temperature",
        }
    ],
    "site_contact_point": {"type": "webhook", "url": "https://ntfy.sh/your-topic"},
    "site_forward": {
        "host": "test.mosquitto.org",
        "topic": "mats/forwarded",
        "devices": ["matslopy4"],
        "fields": ["soilhumidity"],
    },
    "lopy4_sensors": [{"driver": "dht11", "pin": "P11", "fields": {"temperature": "outsidetemp"}}],
}
# What every driver takes; its own settings are checked by role lopy4.
SENSORS = {
    "type": "list",
    "elements": "dict",
    "options": {"driver": {"type": "str"}, "pin": {"type": "str"}, "fields": {"type": "dict"}},
}
# Types of argument_specs: what Python makes of them, and how messages call them.
TYPES = {
    "str": (str, "text"),
    "int": (int, "a whole number"),
    "float": ((int, float), "a number"),
    "bool": (bool, "true or false"),
    "list": (list, "a list"),
    "dict": (Mapping, "a dictionary"),
}
# Plugins that inventories name, without the collection.
SHORT_NAME = re.compile(r"(?:(?:lookup|query|q)\(\s*['\"]|\|\s*)(secret|repository_key|openpgp_fingerprint)\b")
# What Ansible reads of host_vars; editors and file managers leave other things there.
VARIABLE_FILES = ("", ".yml", ".yaml", ".json")


def drivers(*own: str) -> dict[str, tuple[str, ...]]:
    """The sensor drivers of the firmware, and those in directories of the site's own, each with the quantities that its file
    declares.

    Raises:
        AnsibleFilterError: a file can't be understood.
    """
    found = {}
    for path in (path for folder in (DRIVERS, *map(Path, own)) for path in sorted(folder.glob("*.py"))):
        try:
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "QUANTITIES":
                    found[path.stem] = tuple(ast.literal_eval(node.value))
        except (SyntaxError, TypeError, ValueError) as error:
            raise AnsibleFilterError(f"The driver {path} can't be understood: {error}.") from error
    return found


def sensor_fields(sensor: Mapping, readings: list[Mapping]) -> dict[str, str]:
    """The fields that a sensor of a device fills, by quantity: its own `fields`, else all readings of its driver."""
    if sensor.get("fields"):
        return dict(sensor["fields"])
    return {r["quantity"]: r["field"] for r in readings if r.get("sensor") == sensor.get("driver") and "quantity" in r}


def site_sensors(sensors: list[Mapping], readings: list[Mapping]) -> list[dict]:
    """The sensors of a device as its settings have them: each with the fields that it fills."""
    return [{**sensor, "fields": sensor_fields(sensor, readings)} for sensor in sensors]


def site_devices(hosts: list[str], hostvars: Mapping, readings: list[Mapping], prefix: str) -> list[dict]:
    """The devices of the site: name, host, topic and the readings that each one sends, in the order of the list."""
    devices = []
    for host in hosts:
        variables = hostvars[host]
        name = variables.get("lopy4_name", host)
        measured = {
            field for sensor in variables.get("lopy4_sensors", []) for field in sensor_fields(sensor, readings).values()
        }
        devices.append(
            {
                "name": name,
                "host": host,
                "topic": f"{prefix}/{name}",
                "fields": [reading for reading in readings if reading["field"] in measured],
            }
        )
    return devices


def broker_accounts(
    devices: list[Mapping], people: list[Mapping], prefix: str, alert_topic: str, extra_topics: list[str]
) -> list[dict]:
    """Every account of the broker with the topics that it may read and write, and nothing else."""

    def account(name: str, *, read: list[str] = (), write: list[str] = (), both: list[str] = (), **more) -> dict:
        access = {"read": read, "write": write, "readwrite": both}
        topics = [{"topic": topic, "access": how} for how, topics in access.items() for topic in topics]
        return {"name": name, "topics": topics, **more}

    sent = [f"{prefix}/+/{BRANCHES[branch]}" for branch in ("reading", "status")]
    accounts = [
        account("telegraf", read=[*sent, *extra_topics, "$SYS/#"], collects=True),
        account("node_red", read=[f"{prefix}/#", *extra_topics], both=[f"{alert_topic}/#"]),
        account(PROBE, read=sent, write=[f"{prefix}/{PROBE}/{BRANCHES['reading']}"]),
    ]
    for device in devices:
        topic = device["topic"]
        own = [f"{topic}/{BRANCHES[branch]}" for branch in ("reading", "status", "crash")]
        # Programs that were put on a device before call themselves by the first sixteen letters of its name.
        before = {"client_ids": [device["name"][:16]]} if len(device["name"]) > 16 else {}
        accounts.append(account(device["name"], write=own, read=[f"{topic}/{BRANCHES['command']}"], **before))
    for person in people:
        write, read = (person.get(key) or [] for key in ("publish", "subscribe"))
        accounts.append(account(person["name"], write=write, read=read))
    return accounts


def with_passwords(accounts: list[Mapping], passwords: list[str]) -> list[dict]:
    """The accounts, each with its password; both lists in the same order."""
    return [{**account, "password": password} for account, password in zip(accounts, passwords, strict=True)]


def service_ports(services: list[Mapping]) -> list[dict]:
    """The ports of services, each with the unit that listens there."""
    return [{**port, "unit": service["unit"]} for service in services for port in service.get("ports", [])]


def service_address(hosts: list[str], hostvars: Mapping, here: str = "") -> str:
    """The address at which other hosts and devices reach the service on the first of these hosts; loopback if it runs `here`."""
    if not hosts or here in hosts:
        return "127.0.0.1"
    variables = hostvars[hosts[0]]
    return variables.get("site_address") or variables.get("ansible_host") or hosts[0]


def connect_address(hosts: list[str], hostvars: Mapping, port: int, by_people: bool = False) -> dict:
    """Host and port at which the controller, or people in the house, connect to the service on the first of these hosts."""
    host, port = hosts[0], int(port)
    variables = hostvars[host]
    published = variables.get("site_published_ports") or {}
    number = published.get(port, published.get(str(port)))
    if number:
        return {"host": "127.0.0.1", "port": int(number)}
    if variables.get("site_address"):
        return {"host": variables["site_address"], "port": port}
    local = variables.get("ansible_connection") == "local" and not by_people
    return {"host": "127.0.0.1" if local else variables.get("ansible_host", host), "port": port}


def site_problems(variables: Mapping, hostvars: Mapping, groups: Mapping, renamed: Mapping[str, str]) -> list[str]:
    """All that is wrong with the description of the site, a sentence each; an empty list if nothing is.

    `variables` are those of a host of the site, `renamed` the new names of variables by their old ones.
    """
    devices = groups.get("devices", [])
    old = [*_renamed(hostvars, groups, renamed), *_short_names(Path(variables["inventory_dir"]))]
    if old:
        return old
    # First, since all other checks rely on it.
    misshapen = list(_misshapen(variables, devices, hostvars))
    if misshapen:
        return misshapen
    folder = f"{variables['inventory_dir']}/drivers"
    catalogue = drivers(*{hostvars[host].get("lopy4_drivers_directory", folder): None for host in devices})
    checks = (
        _functions(groups),
        _strays(variables["inventory_dir"], groups),
        _outside(groups),
        _misspelt(hostvars, groups),
        _unverified_key(hostvars, groups),
        _incomplete(variables),
        _readings(variables["site_readings"], catalogue),
        _devices(devices, hostvars, variables["site_readings"], catalogue),
        _accounts(variables["site_accounts"], devices, hostvars),
        _topics(variables),
        _measurement(variables["site_measurement"]),
        _timezone(variables["site_timezone"]),
        _bounds(variables),
        _contact_point(variables["site_contact_point"]),
        _forward(variables, [str(hostvars[host].get("lopy4_name", host)) for host in devices]),
    )
    return [problem for check in checks for problem in check]


def _options(role: str) -> dict[str, dict]:
    """The variables that a role documents, as its argument_specs describe them."""
    specs = yaml.safe_load((REPOSITORY / SPECS.format(role)).read_text(encoding="utf-8"))["argument_specs"]
    return {name: option for entry in specs.values() for name, option in entry.get("options", {}).items()}


def _renamed(hostvars: Mapping, groups: Mapping, renamed: Mapping[str, str]) -> Iterator[str]:
    for old, new in renamed.items():
        for host in groups["all"]:
            if old in hostvars[host]:
                yield f"{old} (host {host}) is called {new} now; rename it in the inventory."
                break


def _short_names(inventory: Path) -> Iterator[str]:
    """Plugins that an inventory from before the collection names without it; Ansible would not find them."""
    files = [path for folder in ("group_vars", "host_vars") for path in sorted((inventory / folder).rglob("*.yml"))]
    for path in [*inventory.glob("hosts.yml"), *files]:
        text = re.sub(r"#.*", "", path.read_text(encoding="utf-8", errors="replace"))
        for name in dict.fromkeys(SHORT_NAME.findall(text)):
            yield f"{path.relative_to(inventory)}: the plugin {name} is called tig_pi.stack.{name} now; rename it there."


def _misshapen(variables: Mapping, devices: list[str], hostvars: Mapping) -> Iterator[str]:
    """What is of another type than it has to be. Ansible itself takes one word for a list, and the roles its letters."""
    for name, option in _options("validate").items():
        if name in variables:
            yield from _unlike(option, variables[name], name, SAMPLES.get(name, option.get("default")))
    for host in devices:
        sensors = hostvars[host].get("lopy4_sensors") or []
        yield from _unlike(SENSORS, sensors, f"host_vars/{host}.yml: lopy4_sensors", SAMPLES["lopy4_sensors"])


def _unlike(option: Mapping, value, where: str, sample=None) -> Iterator[str]:
    if option["type"] == "raw":
        return
    kind, called = TYPES[option["type"]]
    if option["type"] == "bool" and value in BOOLEANS:  # --extra-vars has no other than words
        return
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        yield f"{where} is {value!r}; " + (f"write it like {sample!r}." if sample else f"{called} is wanted.")
        return
    entries = [(f"{where}: entry {place}", entry) for place, entry in enumerate(value, 1)] if kind is list else []
    for place, entry in entries:
        yield from _unlike({**option, "type": option["elements"]}, entry, place, sample[0] if sample else None)
    if kind is Mapping:
        for key, part in option.get("options", {}).items():
            if value.get(key) is not None:
                yield from _unlike(part, value[key], f"{where}: {key}", (sample or {}).get(key))


def _incomplete(variables: Mapping) -> Iterator[str]:
    """Keys that no entry has, and entries without a key that they need."""
    for name, option in _options("validate").items():
        keys = option.get("options")
        if not keys:
            continue
        first = next(iter(keys))  # what an entry is known by
        entries = variables[name] if option["type"] == "list" else [variables[name]]
        for place, entry in enumerate(entries, 1):
            where = f"{name}: {entry.get(first) or f'entry {place}'}" if option["type"] == "list" else name
            for key in sorted(set(entry) - set(keys)):
                yield f"{where}: there is no key {key}.{_perhaps(key, keys) or f' There are {_list(keys)}.'}"
            for key, part in keys.items():
                if part.get("required") and not entry.get(key):
                    yield f"{where} has no {key}."
                if "choices" in part and key in entry and entry[key] not in part["choices"]:
                    yield f"{where}: {key} is {entry[key]!r}; there are {_list(part['choices'])}."


def _functions(groups: Mapping) -> Iterator[str]:
    for function in FUNCTIONS:
        hosts = groups.get(function, [])
        if len(hosts) != 1:
            named = ", ".join(hosts) or "none"
            yield f"hosts.yml: group {function} needs exactly one host, and has {named}."


def _strays(inventory: str, groups: Mapping) -> Iterator[str]:
    for path in sorted(Path(inventory, "host_vars").glob("[!.]*")):
        is_read = path.suffix in VARIABLE_FILES and not path.name.endswith("~")
        if is_read and path.stem not in groups["all"] and path.name not in groups["all"]:
            yield f"host_vars/{path.name}: there is no host {path.stem} in hosts.yml.{_perhaps(path.stem, groups['all'])}"


def _outside(groups: Mapping) -> Iterator[str]:
    """Hosts that would not get what group_vars/site sets."""
    members = {host for group in (*FUNCTIONS, "devices") for host in groups.get(group, [])}
    for host in sorted(members.difference(groups.get("site", members))):
        yield f"hosts.yml: {host} is not in group site, whose variables describe the site; put it below `site:`."


def _misspelt(hostvars: Mapping, groups: Mapping) -> Iterator[str]:
    """Variables that carry a role's prefix and that nothing knows."""
    known: dict[str, set[str]] = {}
    for path in sorted(REPOSITORY.glob(SPECS.format("*"))):
        role = path.parts[-3]
        known["site" if role == "validate" else role] = set(_options(role))
    for path in sorted(WIRING.glob("*.yml")):
        for name in yaml.safe_load(path.read_text(encoding="utf-8")):
            if role := _prefix(name, known):
                known[role].add(name)
    found = {}
    for host in groups["all"]:
        for name in hostvars[host]:
            role = _prefix(name, known)
            if role and name not in known[role]:
                found.setdefault(name, (host, known[role]))
    for name, (host, names) in sorted(found.items()):
        yield f"{name} (host {host}): there is no such variable.{_perhaps(name, names)}"


def _prefix(name: str, roles: Iterable[str]) -> str | None:
    return max((role for role in roles if name.startswith(role + "_")), key=len, default=None)


def _unverified_key(hostvars: Mapping, groups: Mapping) -> Iterator[str]:
    """Told now rather than when four services are installed."""
    for host in groups.get("dashboards", []):
        if hostvars[host].get("grafana_repository", {}).get("fingerprint", "the role's") == "":
            yield (
                "grafana_repository.fingerprint is empty, and a key that nobody has verified is not used. Take the line out "
                "of the inventory: role grafana knows Grafana Labs' key. For another repository, record the fingerprint of its key."
            )


def _readings(readings: list[Mapping], catalogue: Mapping) -> Iterator[str]:
    names = [reading.get("field") for reading in readings]
    for field, count in Counter(names).items():
        if count > 1:
            yield f"site_readings: {field} stands there {count} times; a field has one entry."
    for reading in readings:
        field = reading.get("field")
        if not field:
            continue
        where = f"site_readings: {field}"
        if not FIELD.fullmatch(str(field)) or field in RESERVED_FIELDS or len(field) > NAME_BYTES:
            yield (
                f"{where} can't be the name of a field; use letters, digits and '_', at most {NAME_BYTES} characters, "
                f"and none of {_list(RESERVED_FIELDS)}."
            )
        yield from _limits(where, reading)
        yield from _measured_by(where, reading, catalogue)


def _limits(where: str, reading: Mapping) -> Iterator[str]:
    limits = [(key, reading[key]) for key in ("minimum", "low", "high", "maximum") if reading.get(key) is not None]
    for (low, low_value), (high, high_value) in pairwise(limits):
        if low_value >= high_value:
            yield f"{where}: {low} ({low_value}) has to be below {high} ({high_value})."


def _measured_by(where: str, reading: Mapping, catalogue: Mapping) -> Iterator[str]:
    sensor = reading.get("sensor")
    if sensor is None:
        return
    if sensor not in catalogue:
        yield f"{where}: there is no sensor type {sensor}; there are {_list(catalogue)}.{_perhaps(sensor, catalogue)}"
    elif reading.get("quantity") not in catalogue[sensor]:
        yield f"{where}: {sensor} measures {_list(catalogue[sensor])}; quantity is {reading.get('quantity')!r}."


def _devices(hosts: list[str], hostvars: Mapping, readings: list[Mapping], catalogue: Mapping) -> Iterator[str]:
    fields = {reading.get("field") for reading in readings}
    names = Counter(str(hostvars[host].get("lopy4_name", host)) for host in hosts)
    for name, count in names.items():
        if count > 1:
            yield f"devices: {count} devices are called {name}; give each a lopy4_name of its own."
        if not NAME.fullmatch(name) or len(name) > DEVICE_NAME_BYTES:
            yield (
                f"devices: {name!r} can't be a device's name; use letters, digits, '-' and '_', "
                f"at most {DEVICE_NAME_BYTES} characters."
            )
        if name == PROBE:
            yield f"devices: {name} is the name of the probe that verifies the site; choose another."
    for host in hosts:
        sensors = hostvars[host].get("lopy4_sensors")
        if not sensors:
            yield f"host_vars/{host}.yml: lopy4_sensors is missing or empty; list what is wired to the device."
            continue
        filled: Counter = Counter()
        for sensor in sensors:
            driver = sensor.get("driver")
            where = f"host_vars/{host}.yml: lopy4_sensors"
            if driver not in catalogue:
                yield f"{where}: there is no sensor type {driver}; there are {_list(catalogue)}.{_perhaps(driver, catalogue)}"
                continue
            mapping = sensor_fields(sensor, readings)
            if not mapping:
                yield f"{where}: no reading of the site names sensor {driver}; add one to site_readings."
            for quantity, field in ((quantity, str(field)) for quantity, field in mapping.items()):
                filled[field] += 1
                if quantity not in catalogue[driver]:
                    yield f"{where}: {driver} has no {quantity}; it measures {_list(catalogue[driver])}."
                if field not in fields:
                    yield f"{where}: there is no reading {field} in site_readings.{_perhaps(field, fields)}"
        for field, count in filled.items():
            if count > 1:
                yield f"host_vars/{host}.yml: {count} sensors fill {field}; give one of them fields of its own."


def _accounts(people: list[Mapping], hosts: list[str], hostvars: Mapping) -> Iterator[str]:
    taken = {*PROGRAMS, *(str(hostvars[host].get("lopy4_name", host)) for host in hosts)}
    for person in people:
        name = str(person.get("name", ""))
        if not NAME.fullmatch(name):
            yield f"site_accounts: {name!r} can't be the name of an account; use letters, digits, '-' and '_'."
        elif name in taken:
            yield f"site_accounts: there is an account {name} already; choose another name."
        taken.add(name)


def _topics(variables: Mapping) -> Iterator[str]:
    prefix, alert = variables["site_topic_prefix"], variables["site_alert_topic"]
    for name, topic in (("site_topic_prefix", prefix), ("site_alert_topic", alert)):
        if not re.fullmatch(r"[^/+#$\s][^+#\s]*(?<!/)", topic):
            yield f"{name}: {topic!r} can't begin topics: no '+', '#' or blank, and no '/' at either end."
    if f"{alert}/".startswith(f"{prefix}/"):
        yield f"site_alert_topic: {alert} lies below {prefix}, so that alerts would be taken for readings; choose another."
    for topic in variables["site_extra_topics"]:
        if f"{topic}/".startswith(f"{prefix}/") or topic.startswith(("#", "+", "$")):
            yield f"site_extra_topics: {topic} overlaps the devices' own topics below {prefix}; leave it out."


def _measurement(name: str) -> Iterator[str]:
    if not MEASUREMENT.fullmatch(name):
        yield f"site_measurement: {name!r} can't be the name of a measurement; use letters, digits, '_', '-', '.' and single spaces."
    elif name in RESERVED_MEASUREMENTS:
        yield f"site_measurement: {name} is reserved: tig-pi stores something else under this name. Choose another name."


def _bounds(variables: Mapping) -> Iterator[str]:
    interval = variables["site_averages_interval"]
    if not re.fullmatch(r"[1-9]\d*[smhdw]", interval):
        yield f"site_averages_interval: {interval!r} is no interval; write it like 30s, 10m, 1h or 1d."
    for name in ("site_clock_tolerance_minutes", "site_new_names_per_day"):
        if variables[name] < 0:
            yield f"{name}: {variables[name]} is no number from 0 on."


def _timezone(zone: str) -> Iterator[str]:
    zones = available_timezones()
    if zone not in zones:
        yield f"site_timezone: there is no time zone {zone!r}.{_perhaps(zone, zones)}"


def _contact_point(contact: Mapping) -> Iterator[str]:
    wanted = {"email": "addresses", "webhook": "url"}
    if contact and (contact.get("type") not in wanted or not contact.get(wanted[contact["type"]])):
        yield "site_contact_point needs type: email and addresses, or type: webhook and url; {} is none."


def _forward(variables: Mapping, devices: list[str]) -> Iterator[str]:
    forward = variables["site_forward"]
    if not forward:
        return
    for key in ("host", "topic"):
        if not forward.get(key):
            yield f"site_forward has no {key}; {{}} forwards nothing."
    fields = [reading.get("field") for reading in variables["site_readings"]]
    for key, known in (("devices", devices), ("fields", fields)):
        for name in forward.get(key) or []:
            if name not in known:
                yield f"site_forward: {key}: there is no {name} in this site.{_perhaps(name, known)}"


def _perhaps(word: str, words) -> str:
    near = difflib.get_close_matches(str(word), [str(w) for w in words], n=1)
    return f" Did you mean {near[0]}?" if near else ""


def _list(words) -> str:
    return ", ".join(sorted(words)) or "none"


class FilterModule:
    def filters(self):
        return {
            "broker_accounts": broker_accounts,
            "connect_address": connect_address,
            "service_address": service_address,
            "service_ports": service_ports,
            "site_devices": site_devices,
            "site_problems": site_problems,
            "site_sensors": site_sensors,
            "with_passwords": with_passwords,
        }
