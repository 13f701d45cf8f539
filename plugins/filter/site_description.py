"""What follows from the description of a site (devices, fields, accounts of the broker), and its validation."""

from __future__ import annotations

import ast
import difflib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise, zip_longest
from pathlib import Path
from zoneinfo import available_timezones

from ansible.errors import AnsibleFilterError
from ansible.module_utils.common.yaml import yaml_load
from ansible.module_utils.parsing.convert_bool import BOOLEANS
from ansible_collections.tig_pi.stack.plugins.module_utils.influxdb.influxql import UNITS, nanoseconds
from ansible_collections.tig_pi.stack.plugins.plugin_utils.contract import CONTRACT
from ansible_collections.tig_pi.stack.plugins.plugin_utils.grafana.notifications import (
    KEYS,
    contact_point_problems,
    mail_server_problems,
)

REPOSITORY = Path(__file__).parents[2]
DRIVERS = REPOSITORY / "firmware" / "lib" / "tig" / "drivers"
WIRING = REPOSITORY / "playbooks/group_vars/all"

FUNCTIONS = ("brokers", "databases", "collectors", "dashboards", "flows")
BRANCHES = CONTRACT["branches"]
PROBE = CONTRACT["probe"]
OPERATOR = CONTRACT["operator"]
PROGRAMS = (*CONTRACT["program_accounts"], PROBE, OPERATOR)  # accounts of tig-pi's own programs
# What the names of the programs' accounts are reserved for.
RESERVED_FOR = {
    **dict.fromkeys(CONTRACT["program_accounts"], "a service of the Pi"),
    PROBE: "`make verify`",
    OPERATOR: "`make replay`",
}
FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")  # valid as a level of a topic, an account, a file name and a label
RESERVED_FIELDS = set(CONTRACT["reserved_fields"])
MEASUREMENT = re.compile(r"\w[\w.-]*( [\w.-]+)*", re.ASCII)
RESERVED_MEASUREMENTS = {PROBE, *CONTRACT["measurements"].values(), *CONTRACT["reserved_measurements"]}
NAME_BYTES = CONTRACT["name_bytes"]
SHORTEST_RETENTION = UNITS["h"]  # InfluxDB's minimum, in nanoseconds
LONGEST_WRITE_INTERVAL = 15  # seconds; `make verify` waits for 30
DEVICE_NAME_BYTES = CONTRACT["settings"]["name"]["largest"]
SPECS = "roles/{}/meta/argument_specs.yml"
# Examples for messages. A variable without one has its default as example.
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
# What every sensor may have; the settings of its driver are checked by role lopy4.
SENSORS = {
    "type": "list",
    "elements": "dict",
    "options": {"driver": {"type": "str"}, "pin": {"type": "str"}, "fields": {"type": "dict"}},
}
# Types of argument_specs: their types in Python, and their names in messages.
TYPES = {
    "str": (str, "text"),
    "int": (int, "a whole number"),
    "float": ((int, float), "a number"),
    "bool": (bool, "true or false"),
    "list": (list, "a list"),
    "dict": (Mapping, "a dictionary"),
}
# Plugins that inventories use, named without the collection.
SHORT_NAME = re.compile(r"(?:(?:lookup|query|q)\(\s*['\"]|\|\s*)(secret|repository_key|openpgp_fingerprint)\b")
# The files that Ansible reads in host_vars; editors and file managers leave others there.
VARIABLE_FILES = ("", ".yml", ".yaml", ".json")


def drivers(*own: str) -> dict[str, tuple[str, ...]]:
    """The quantities of each sensor driver: of the firmware's, and of those in the site's own directories.

    Raises:
        AnsibleFilterError: a file cannot be parsed.
    """
    found = {}
    for path in (path for folder in (DRIVERS, *map(Path, own)) for path in sorted(folder.glob("*.py"))):
        try:
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "QUANTITIES":
                    found[path.stem] = tuple(ast.literal_eval(node.value))
        except (SyntaxError, TypeError, ValueError) as error:
            raise AnsibleFilterError(f"The driver {path} cannot be parsed: {error}.") from error
    return found


def sensor_fields(sensor: Mapping, readings: list[Mapping]) -> dict[str, str]:
    """The fields that a sensor fills, by quantity: its own `fields`, or else all readings of its driver."""
    if sensor.get("fields"):
        return dict(sensor["fields"])
    return {r["quantity"]: r["field"] for r in readings if r.get("sensor") == sensor.get("driver") and "quantity" in r}


def site_devices(hosts: list[str], hostvars: Mapping, readings: list[Mapping], prefix: str) -> list[dict]:
    """The devices of the site: name, host, topic, interval, sensors (each with the fields that it fills), and the readings that
    each one sends, in the order of site_readings."""
    devices = []
    for host in hosts:
        variables = hostvars[host]
        name = variables.get("lopy4_name", host)
        sensors = [
            {**sensor, "fields": sensor_fields(sensor, readings)} for sensor in variables.get("lopy4_sensors", [])
        ]
        measured = {field for sensor in sensors for field in sensor["fields"].values()}
        devices.append(
            {
                "name": name,
                "host": host,
                "topic": f"{prefix}/{name}",
                "interval": int(variables.get("lopy4_interval", CONTRACT["settings"]["interval"]["default"])),
                "sensors": sensors,
                "fields": [reading for reading in readings if reading["field"] in measured],
            }
        )
    return devices


def broker_accounts(
    devices: list[Mapping], people: list[Mapping], prefix: str, alert_topic: str, extra_topics: list[str]
) -> list[dict]:
    """Every account of the broker with the topics that it may read and write."""

    def account(name: str, *, read: list[str] = (), write: list[str] = (), both: list[str] = (), **more) -> dict:
        access = {"read": read, "write": write, "readwrite": both}
        topics = [{"topic": topic, "access": how} for how, topics in access.items() for topic in topics]
        return {"name": name, "topics": topics, **more}

    sent = [f"{prefix}/+/{BRANCHES[branch]}" for branch in ("reading", "status")]
    accounts = [
        account("telegraf", read=[*sent, *extra_topics, "$SYS/#"], keeps_session=True),
        account("node_red", read=[f"{prefix}/#", *extra_topics], both=[f"{alert_topic}/#"]),
        account(PROBE, read=sent, write=[f"{prefix}/{PROBE}/{BRANCHES['reading']}"]),
        account(
            OPERATOR,
            read=[f"{prefix}/+/{BRANCHES[branch]}" for branch in ("answer", "status")],
            write=[f"{prefix}/+/{BRANCHES['command']}"],
        ),
    ]
    for device in devices:
        topic = device["topic"]
        own = [f"{topic}/{BRANCHES[branch]}" for branch in ("reading", "status", "crash", "answer")]
        # Older programs on a device use the first sixteen letters of its name as client id.
        before = {"client_ids": [device["name"][:16]]} if len(device["name"]) > 16 else {}
        accounts.append(account(device["name"], write=own, read=[f"{topic}/{BRANCHES['command']}"], **before))
    for person in people:
        write, read = (person.get(key) or [] for key in ("publish", "subscribe"))
        accounts.append(account(person["name"], write=write, read=read))
    return accounts


def with_passwords(accounts: list[Mapping], passwords: list[str]) -> list[dict]:
    """The accounts, each with its password. Both lists have the same order."""
    return [{**account, "password": password} for account, password in zip(accounts, passwords, strict=True)]


def service_ports(services: list[Mapping]) -> list[dict]:
    """The ports of services, each with the unit that listens on it."""
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
    """The errors in the description of the site, one sentence each.

    Args:
        variables: those of a host of the site.
        hostvars: those of all hosts.
        groups: Ansible's groups.
        renamed: the new names of variables by their old ones.
    """
    devices = groups.get("devices", [])
    old_names = [*_renamed(hostvars, groups, renamed), *_short_plugin_names(Path(variables["inventory_dir"]))]
    if old_names:
        return old_names
    # All other checks rely on correct types.
    wrong_types = list(_wrong_types(variables, devices, hostvars))
    if wrong_types:
        return wrong_types
    folder = f"{variables['inventory_dir']}/drivers"
    catalogue = drivers(*{hostvars[host].get("lopy4_drivers_directory", folder): None for host in devices})
    checks = (
        _function_groups(groups),
        _unused_host_vars(variables["inventory_dir"], groups),
        _hosts_outside_site(groups),
        _unknown_variables(hostvars, groups),
        _unverified_key(hostvars, groups),
        _keys(variables),
        _readings(variables["site_readings"], catalogue),
        _devices(devices, hostvars, variables["site_readings"], catalogue),
        _accounts(variables["site_accounts"], devices, hostvars),
        _commands(variables["site_accounts"], variables["site_topic_prefix"]),
        _topics(variables),
        _measurement(variables["site_measurement"]),
        _timezone(variables["site_timezone"]),
        _bounds(variables),
        _notifications(variables["site_contact_point"], variables["site_mail_server"]),
        _forward(variables, [str(hostvars[host].get("lopy4_name", host)) for host in devices]),
    )
    return [problem for check in checks for problem in check]


def _options(role: str) -> dict[str, dict]:
    """The variables that a role documents, as its argument_specs describe them."""
    specs = yaml_load((REPOSITORY / SPECS.format(role)).read_text(encoding="utf-8"))["argument_specs"]
    return {name: option for entry in specs.values() for name, option in entry.get("options", {}).items()}


def _renamed(hostvars: Mapping, groups: Mapping, renamed: Mapping[str, str]) -> Iterator[str]:
    for old, new in renamed.items():
        for host in groups["all"]:
            if old in hostvars[host]:
                yield f"{old} (host {host}) was renamed to {new}; rename it in the inventory."
                break


def _short_plugin_names(inventory: Path) -> Iterator[str]:
    """Plugins that an older inventory names without the collection; Ansible does not find them."""
    files = [path for folder in ("group_vars", "host_vars") for path in sorted((inventory / folder).rglob("*.yml"))]
    for path in [*inventory.glob("hosts.yml"), *files]:
        text = re.sub(r"#.*", "", path.read_text(encoding="utf-8", errors="replace"))
        for name in dict.fromkeys(SHORT_NAME.findall(text)):
            yield f"{path.relative_to(inventory)}: the plugin {name} was renamed to tig_pi.stack.{name}; rename it there."


def _wrong_types(variables: Mapping, devices: list[str], hostvars: Mapping) -> Iterator[str]:
    """Values of the wrong type. Ansible itself accepts a text for a list, of which the roles would use each letter."""
    for name, option in _options("validate").items():
        if name in variables:
            yield from _wrong_type(option, variables[name], name, SAMPLES.get(name, option.get("default")))
    for host in devices:
        sensors = hostvars[host].get("lopy4_sensors") or []
        yield from _wrong_type(SENSORS, sensors, f"host_vars/{host}.yml: lopy4_sensors", SAMPLES["lopy4_sensors"])


def _wrong_type(option: Mapping, value, where: str, sample=None) -> Iterator[str]:
    if option["type"] == "raw":
        return
    kind, called = TYPES[option["type"]]
    if option["type"] == "bool" and value in BOOLEANS:  # --extra-vars has texts only
        return
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        yield f"{where} is {value!r}; " + (f"write it like {sample!r}." if sample else f"it must be {called}.")
        return
    entries = [(f"{where}: entry {place}", entry) for place, entry in enumerate(value, 1)] if kind is list else []
    for place, entry in entries:
        yield from _wrong_type({**option, "type": option["elements"]}, entry, place, sample[0] if sample else None)
    if kind is Mapping:
        for key, part in option.get("options", {}).items():
            if value.get(key) is not None:
                yield from _wrong_type(part, value[key], f"{where}: {key}", (sample or {}).get(key))


def _keys(variables: Mapping) -> Iterator[str]:
    """Unknown and missing keys of entries, and values that are not among the choices."""
    for name, option in _options("validate").items():
        keys = option.get("options")
        if not keys:
            continue
        first = next(iter(keys))  # identifies an entry
        entries = variables[name] if option["type"] == "list" else [variables[name]] if variables[name] else []
        for place, entry in enumerate(entries, 1):
            where = f"{name}: {entry.get(first) or f'entry {place}'}" if option["type"] == "list" else name
            for key in sorted(set(entry) - set(keys)):
                yield f"{where}: unknown key {key}.{_suggestion(key, keys) or f' The keys are {_list(keys)}.'}"
            for key, part in keys.items():
                if part.get("required") and not entry.get(key):
                    yield f"{where} has no {key}."
                if "choices" in part and key in entry and entry[key] not in part["choices"]:
                    yield f"{where}: {key} is {entry[key]!r}; use one of {_list(part['choices'])}."


def _function_groups(groups: Mapping) -> Iterator[str]:
    for function in FUNCTIONS:
        hosts = groups.get(function, [])
        if len(hosts) != 1:
            members = ", ".join(hosts) or "none"
            yield f"hosts.yml: group {function} must have exactly one host; it has {members}."


def _unused_host_vars(inventory: str, groups: Mapping) -> Iterator[str]:
    for path in sorted(Path(inventory, "host_vars").glob("[!.]*")):
        is_read = path.suffix in VARIABLE_FILES and not path.name.endswith("~")
        if is_read and path.stem not in groups["all"] and path.name not in groups["all"]:
            yield f"host_vars/{path.name}: there is no host {path.stem} in hosts.yml.{_suggestion(path.stem, groups['all'])}"


def _hosts_outside_site(groups: Mapping) -> Iterator[str]:
    """Hosts to which the variables of group_vars/site would not apply."""
    members = {host for group in (*FUNCTIONS, "devices") for host in groups.get(group, [])}
    for host in sorted(members.difference(groups.get("site", members))):
        yield f"hosts.yml: {host} is not in group site, whose variables describe the site; move it below `site:`."


def _unknown_variables(hostvars: Mapping, groups: Mapping) -> Iterator[str]:
    """Variables with the prefix of a role that no role and no playbook uses."""
    known: dict[str, set[str]] = {}
    for path in sorted(REPOSITORY.glob(SPECS.format("*"))):
        role = path.parts[-3]
        known["site" if role == "validate" else role] = set(_options(role))
    for path in sorted(WIRING.glob("*.yml")):
        for name in yaml_load(path.read_text(encoding="utf-8")):
            if role := _prefix(name, known):
                known[role].add(name)
    found = {}
    for host in groups["all"]:
        for name in hostvars[host]:
            role = _prefix(name, known)
            if role and name not in known[role]:
                found.setdefault(name, (host, known[role]))
    for name, (host, names) in sorted(found.items()):
        yield f"{name} (host {host}): unknown variable.{_suggestion(name, names)}"


def _prefix(name: str, roles: Iterable[str]) -> str | None:
    return max((role for role in roles if name.startswith(role + "_")), key=len, default=None)


def _unverified_key(hostvars: Mapping, groups: Mapping) -> Iterator[str]:
    """Reported before anything is installed."""
    for host in groups.get("dashboards", []):
        if hostvars[host].get("grafana_repository", {}).get("fingerprint", "the role's") == "":
            yield (
                "grafana_repository.fingerprint is empty, and an unverified key is not used. Remove the line from the inventory: "
                "role grafana has the fingerprint of Grafana Labs' key. For another repository, set the fingerprint of its key."
            )


def _readings(readings: list[Mapping], catalogue: Mapping) -> Iterator[str]:
    names = [reading.get("field") for reading in readings]
    for field, count in Counter(names).items():
        if count > 1:
            yield f"site_readings: {field} is declared {count} times; keep one entry."
    for reading in readings:
        field = reading.get("field")
        if not field:
            continue
        where = f"site_readings: {field}"
        if not FIELD.fullmatch(str(field)) or field in RESERVED_FIELDS or len(field) > NAME_BYTES:
            yield (
                f"{where} is not a valid name of a field; use letters, digits and '_', at most {NAME_BYTES} characters, "
                f"and none of {_list(RESERVED_FIELDS)}."
            )
        yield from _limits(where, reading)
        yield from _measured_by(where, reading, catalogue)


def _limits(where: str, reading: Mapping) -> Iterator[str]:
    limits = [(key, reading[key]) for key in ("minimum", "low", "high", "maximum") if reading.get(key) is not None]
    for (low, low_value), (high, high_value) in pairwise(limits):
        if low_value >= high_value:
            yield f"{where}: {low} ({low_value}) must be less than {high} ({high_value})."


def _measured_by(where: str, reading: Mapping, catalogue: Mapping) -> Iterator[str]:
    sensor = reading.get("sensor")
    if sensor is None:
        return
    if sensor not in catalogue:
        yield f"{where}: unknown sensor {sensor}; the drivers are {_list(catalogue)}.{_suggestion(sensor, catalogue)}"
    elif reading.get("quantity") not in catalogue[sensor]:
        yield f"{where}: {sensor} measures {_list(catalogue[sensor])}; quantity is {reading.get('quantity')!r}."


def _devices(hosts: list[str], hostvars: Mapping, readings: list[Mapping], catalogue: Mapping) -> Iterator[str]:
    fields = {reading.get("field") for reading in readings}
    names = Counter(str(hostvars[host].get("lopy4_name", host)) for host in hosts)
    for name, count in names.items():
        if count > 1:
            yield f"devices: {count} devices have the name {name}; set a different lopy4_name for each."
        if not NAME.fullmatch(name) or len(name) > DEVICE_NAME_BYTES:
            yield (
                f"devices: {name!r} is not a valid name of a device; use letters, digits, '-' and '_', "
                f"at most {DEVICE_NAME_BYTES} characters."
            )
        if name in PROGRAMS:
            yield f"devices: {name} is reserved for {RESERVED_FOR[name]}; choose another name."
    for host in hosts:
        sensors = hostvars[host].get("lopy4_sensors")
        if not sensors:
            yield f"host_vars/{host}.yml: lopy4_sensors is missing or empty; list the sensors that are connected to the device."
            continue
        filled: Counter = Counter()
        for sensor in sensors:
            driver = sensor.get("driver")
            where = f"host_vars/{host}.yml: lopy4_sensors"
            if driver not in catalogue:
                yield f"{where}: unknown driver {driver}; the drivers are {_list(catalogue)}.{_suggestion(driver, catalogue)}"
                continue
            mapping = sensor_fields(sensor, readings)
            if not mapping:
                yield f"{where}: no entry of site_readings has `sensor: {driver}`; add one."
            for quantity, field in ((quantity, str(field)) for quantity, field in mapping.items()):
                filled[field] += 1
                if quantity not in catalogue[driver]:
                    yield f"{where}: {driver} does not measure {quantity}; it measures {_list(catalogue[driver])}."
                if field not in fields:
                    yield f"{where}: there is no field {field} in site_readings.{_suggestion(field, fields)}"
        for field, count in filled.items():
            if count > 1:
                yield f"host_vars/{host}.yml: {count} sensors fill the field {field}; set `fields` of one of them."


def _accounts(people: list[Mapping], hosts: list[str], hostvars: Mapping) -> Iterator[str]:
    taken = {*PROGRAMS, *(str(hostvars[host].get("lopy4_name", host)) for host in hosts)}
    for person in people:
        name = str(person.get("name", ""))
        if not NAME.fullmatch(name):
            yield f"site_accounts: {name!r} is not a valid name of an account; use letters, digits, '-' and '_'."
        elif name in taken:
            yield f"site_accounts: the account {name} exists already; choose another name."
        taken.add(name)


def _commands(people: list[Mapping], prefix: str) -> Iterator[str]:
    """Accounts that could send commands to the devices, although the site does not say so."""
    commands = f"{prefix}/+/{BRANCHES['command']}"
    for person in people:
        allowed = person.get("sends_commands")
        for topic in person.get("publish") or []:
            if not allowed and topics_overlap(topic, commands):
                yield (
                    f"site_accounts: {person.get('name')} could send commands to the devices: publish has {topic}, which includes"
                    f" {commands}. Name narrower topics, or set `sends_commands: true` to allow it."
                )


def topics_overlap(one: str, other: str) -> bool:
    """Whether there is a topic that both topic filters match."""
    for left, right in zip_longest(one.split("/"), other.split("/")):
        if "#" in (left, right):
            return True
        if left is None or right is None or (left != right and "+" not in (left, right)):
            return False
    return True


def _topics(variables: Mapping) -> Iterator[str]:
    prefix, alert = variables["site_topic_prefix"], variables["site_alert_topic"]
    for name, topic in (("site_topic_prefix", prefix), ("site_alert_topic", alert)):
        if not re.fullmatch(r"[^/+#$\s][^+#\s]*(?<!/)", topic):
            yield f"{name}: {topic!r} is not a valid prefix of topics; it must not contain '+', '#' or spaces, nor begin with '$', nor begin or end with '/'."
    if f"{alert}/".startswith(f"{prefix}/"):
        yield f"site_alert_topic: {alert} is below {prefix}, the prefix of the devices' topics; choose another topic."
    for topic in variables["site_extra_topics"]:
        if f"{topic}/".startswith(f"{prefix}/") or topic.startswith(("#", "+", "$")):
            yield f"site_extra_topics: {topic} overlaps the devices' topics below {prefix}; remove it."


def _measurement(name: str) -> Iterator[str]:
    if not MEASUREMENT.fullmatch(name):
        yield f"site_measurement: {name!r} is not a valid name of a measurement; use letters, digits, '_', '-', '.' and single spaces."
    elif name in RESERVED_MEASUREMENTS:
        yield f"site_measurement: {name} is used for other data; choose another name."


def _bounds(variables: Mapping) -> Iterator[str]:
    durations = {name: variables[name] for name in ("site_readings_retention", "site_host_retention")}
    averages = [entry for entry in variables["site_averages"] if {"interval", "retention"} <= entry.keys()]
    durations |= {f"site_averages: {entry['interval']}": entry["retention"] for entry in averages}
    for where, duration in durations.items():
        try:
            too_short = 0 < nanoseconds(duration) < SHORTEST_RETENTION
        except ValueError as error:
            yield f"{where}: {error}."
        else:
            if too_short:
                yield f"{where}: {duration} is too short; the minimum is 1h."
    intervals = [entry["interval"] for entry in averages]
    for interval, count in Counter(intervals).items():
        if not re.fullmatch(r"[1-9]\d*[smhdw]", interval):
            yield f"site_averages: {interval!r} is not an interval; write it like 30s, 5m, 1h or 1d."
        if count > 1:
            yield f"site_averages: {count} entries have the interval {interval}; keep one."
    if not 1 <= variables["site_write_interval_seconds"] <= LONGEST_WRITE_INTERVAL:
        yield (
            f"site_write_interval_seconds: {variables['site_write_interval_seconds']} is out of range; use 1 to {LONGEST_WRITE_INTERVAL}."
        )
    for name in ("site_clock_tolerance_minutes", "site_new_names_per_day"):
        if variables[name] < 0:
            yield f"{name}: {variables[name]} is negative; use 0 or more."


def _timezone(zone: str) -> Iterator[str]:
    zones = available_timezones()
    if zone not in zones:
        yield f"site_timezone: unknown time zone {zone!r}.{_suggestion(zone, zones)}"


def _notifications(contact: Mapping, server: Mapping) -> Iterator[str]:
    if contact.get("type") in KEYS:  # otherwise _keys names it
        yield from contact_point_problems("site_contact_point", contact, server, "site_mail_server")
    yield from mail_server_problems("site_mail_server", server)


def _forward(variables: Mapping, devices: list[str]) -> Iterator[str]:
    forward = variables["site_forward"]
    fields = [reading.get("field") for reading in variables["site_readings"]]
    for key, known in (("devices", devices), ("fields", fields)):
        for name in forward.get(key) or []:
            if name not in known:
                yield f"site_forward: {key}: the site has no {name}.{_suggestion(name, known)}"


def _suggestion(word: str, words) -> str:
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
            "with_passwords": with_passwords,
        }
