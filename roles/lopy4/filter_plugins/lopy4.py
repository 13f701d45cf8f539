"""Settings of a sensor node: what is wrong with them, and what the controller works out for them."""

from __future__ import annotations

import ast
import difflib
import ipaddress
import os
import re
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from zoneinfo import TZPATH

import yaml
from ansible.errors import AnsibleFilterError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,62})(\.[A-Za-z0-9]([A-Za-z0-9-]{0,62}))*\.?")
MAC = re.compile(r"[0-9A-Fa-f]{2}([:-]?[0-9A-Fa-f]{2}){5}")
PIN = re.compile(r"P\d{1,2}")
PINS = {f"P{number}" for number in range(24)}
INPUTS = {f"P{number}" for number in range(13, 19)}  # GPIO 34 to 39 have no output
ANALOGUE = {f"P{number}" for number in range(13, 21)}  # ADC1; the other converter does not work beside Wi-Fi
TAKEN = {"P0": "the serial port", "P1": "the serial port", "P2": "the LED", "P12": "the choice of the aerial"}
LIMITS = {
    "interval": (2, 86400),
    "ring": (1, 20000),
    "watchdog": (90, 3600),  # an attempt to get into the Wi-Fi and to the broker takes its time
    "broker_port": (1, 65535),
    "broker_keepalive": (10, 3600),
}
TOPIC_BYTES, PASSWORD_BYTES, NAME_BYTES = 200, 256, 64  # what the program takes (its settings.py)
LOOK_UP_S = 70  # the name server, the time server and the broker may keep the program so long after a reading
PING_S = 5  # a broker hears of the device so long after the sensors have been read
COMMON = {"driver", "fields", "name"}
RESERVED = {"device", "sensortime", "time"}  # in a reading already
TEXT = "a text (quote a number) without line ends, other control characters and lone surrogates"
I2C_BUSES = 2  # controllers of the ESP32
SETTING = {
    *(
        "kind",
        "about",
        "default",
        "optional",
        "direction",
        "bus",
        "smallest",
        "largest",
        "choices",
        "apart",
        "takes_ms",
        "with",
    ),
}


def posix_timezone(zone: str) -> str:
    """The POSIX TZ string of an IANA zone (RFC 8536, 3.3): what holds from now on, summer time included.

    Raises:
        AnsibleFilterError: there is no such zone, or it has no such string.
    """
    data = None
    for directory in TZPATH:
        path = Path(directory, zone)
        if re.fullmatch(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*", zone) and path.is_file():
            data = path.read_bytes()
            break
    else:
        try:
            data = resources.files("tzdata.zoneinfo").joinpath(*zone.split("/")).read_bytes()
        except (ModuleNotFoundError, FileNotFoundError, IsADirectoryError, ValueError):
            raise AnsibleFilterError(
                f"lopy4_timezone: there is no time zone {zone!r}; `timedatectl list-timezones` lists them."
            ) from None
    footer = data.rstrip(b"\n").rpartition(b"\n")[2].decode("ascii", "replace")
    if not data.startswith(b"TZif") or not footer or len(footer) > 64:
        raise AnsibleFilterError(f"lopy4_timezone: {zone} has no rule for the years to come; choose another zone.")
    return footer


def lopy4_address(host: str) -> str:
    """The address by which a device reaches a host: a `.local` name is resolved here, because devices can't.

    Raises:
        AnsibleFilterError: nobody answers to the name, or only the controller itself by an address that nobody else can reach.
    """
    if not host.rstrip(".").lower().endswith(".local"):
        return host
    try:
        found = socket.getaddrinfo(host, None, socket.AF_INET, socket.SOCK_STREAM)
    except OSError:
        raise AnsibleFilterError(
            f"{host} can't be resolved here, and devices can't resolve .local names at all: give the host's IPv4 address "
            "(lopy4_broker_host, or site_address of the host)."
        ) from None
    addresses = [entry[4][0] for entry in found]
    outside = [address for address in addresses if not _here(address)]
    if not outside:
        # Debian's /etc/hosts gives a host's own name 127.0.1.1.
        raise AnsibleFilterError(
            f"{host} is {addresses[0]} here, which to the device is the device itself: give the host's IPv4 address "
            "(lopy4_broker_host, or site_address of the host)."
        )
    return outside[0]


def _here(address: str) -> bool:
    parsed = ipaddress.ip_address(address)
    return parsed.is_loopback or parsed.is_unspecified


@dataclass(frozen=True)
class Driver:
    """What a driver's file declares (lib/tig/drivers/__init__.py describes it)."""

    quantities: tuple[str, ...]
    settings: Mapping[str, Mapping]
    takes_ms: int = 0  # that a reading may take, beside what its settings say
    address: int | None = None  # on the I2C bus, where it is fixed

    def complete(self, sensor: Mapping) -> dict:
        """A sensor's entry with the driver's defaults."""
        defaults = {name: setting["default"] for name, setting in self.settings.items() if "default" in setting}
        return defaults | {key: value for key, value in sensor.items() if value is not None}

    def needs(self) -> set[str]:
        return {name for name, setting in self.settings.items() if not setting.keys() & {"default", "optional"}}

    def reading_ms(self, sensor: Mapping) -> int:
        """How long its settings make a reading; what is wrong in them counts for nothing."""
        entry = self.complete(sensor)
        return sum(
            setting["takes_ms"] * entry[name]
            for name, setting in self.settings.items()
            if "takes_ms" in setting
            and _fits(entry.get(name), setting)
            and entry.get(setting.get("with", name)) is not None
        )


def drivers(program: str, own: str = "") -> dict[str, Driver]:
    """The sensor drivers by name: those of a program, and those in a directory of the site's own.

    Raises:
        AnsibleFilterError: a file can't be understood.
    """
    found = {}
    folders = [Path(program, "lib", "tig", "drivers"), *([Path(own)] if own else [])]
    for path in (path for folder in folders for path in sorted(folder.glob("*.py"))):
        try:
            driver = _driver(ast.parse(path.read_text(encoding="utf-8")))
        except (SyntaxError, TypeError, ValueError) as error:
            line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
            raise AnsibleFilterError(f"The driver {path}{line} can't be understood: {error}.") from error
        if driver:
            found[path.stem] = driver
    return found


def _driver(module: ast.Module) -> Driver | None:
    """What is declared in a driver's file; None if that is none."""
    found = {}
    for node in module.body:
        name = getattr(node.targets[0], "id", "") if isinstance(node, ast.Assign) else ""
        if name in ("QUANTITIES", "SETTINGS", "TAKES_MS", "ADDRESS"):
            found[name] = ast.literal_eval(node.value)
    settings, takes_ms = found.get("SETTINGS", {}), int(found.get("TAKES_MS", 0))
    if not found.get("QUANTITIES"):
        return None
    for name, setting in settings.items():
        if setting.get("kind") not in ("pin", "integer", "number", "text") or set(setting) - SETTING:
            raise ValueError(f"SETTINGS[{name!r}] is not as lib/tig/drivers/__init__.py describes it")
    return Driver(tuple(found["QUANTITIES"]), settings, takes_ms, found.get("ADDRESS"))


def lopy4_problems(settings: Mapping, program: str, own_drivers: str = "") -> list[str]:
    """All that is wrong with a device's settings, a sentence each.

    Args:
        settings: the role's variables without their prefix.
        program: directory of the program.
        own_drivers: directory of the site's own drivers; it may be absent.
    """
    catalogue = drivers(program, own_drivers)
    checks = (
        _plain(settings),
        _wifi(settings),
        _hosts(settings),
        _resolved(settings),
        _sensors(settings["sensors"], catalogue),
        _buses(settings["sensors"], catalogue),
        _duration(settings["sensors"], settings["interval"], catalogue),
        _patience(settings, catalogue),
    )
    return [f"{settings['name']}: {problem}" for check in checks for problem in check]


def lopy4_shared(host: str, hostvars: Mapping, port: str, mac: str, where: str) -> list[str]:
    """What other hosts of the inventory claim of this one's: its port, or its chip.

    Args:
        host: the device.
        hostvars: the variables of all hosts.
        port, mac, where: the device's, as it is going to be flashed.
    """

    def same_place(other: Mapping) -> bool:
        there = other.get("__lopy4_where") or other.get("lopy4_serial_host")
        return there == where or not (there or hostvars[host].get("lopy4_serial_host"))

    def real(path: str) -> str:
        return os.path.realpath(path) if where == "localhost" else os.path.normpath(path)

    problems = []
    for name in hostvars:
        other = hostvars[name]
        if name == host:
            continue
        if port and other.get("lopy4_port") and real(str(other["lopy4_port"])) == real(port) and same_place(other):
            problems.append(
                f"{host}: lopy4_port: {name} has {other['lopy4_port']} of {where}, too. Which of them is plugged in there? Correct the "
                "other one; `make device` lists the ports."
            )
        if mac and _digits(other.get("lopy4_mac")) == _digits(mac):
            problems.append(
                f"{host}: lopy4_mac: {name} has the chip {mac}, too. Correct one of them, or take the host that is no longer there out "
                "of the inventory."
            )
    return problems


def _digits(mac: object) -> str:
    return re.sub(r"[^0-9a-f]", "", str(mac or "").lower())


def _plain(settings: Mapping) -> Iterator[str]:
    if not NAME.fullmatch(str(settings["name"])):
        yield "lopy4_name has to be letters, digits, '-' and '_', 64 at the most."
    if not settings["port"] and not settings["mac"]:
        yield "lopy4_port and lopy4_mac are both missing: one of them has to say which device it is. `make device` lists the ports."
    if settings["mac"] and not MAC.fullmatch(str(settings["mac"])):
        yield f'lopy4_mac: {settings["mac"]!r} is no MAC; quote it, such as "24:0a:c4:00:00:00".'
    for key, (low, high) in LIMITS.items():
        value = settings[key]
        if isinstance(value, bool) or not str(value).isdigit() or not low <= int(value) <= high:
            yield f"lopy4_{key}: {value!r} is not a number from {low} to {high}."
    topic = _size(settings["topic"])
    if not topic or re.search(r"[+#\s]", settings["topic"]):
        yield f"lopy4_topic: {settings['topic']!r} is no topic to publish to."
    elif topic > TOPIC_BYTES:
        yield f"lopy4_topic is {topic} bytes long; {TOPIC_BYTES} is the most."
    password = settings["broker_password"]
    if password == "":
        yield "lopy4_broker_password is missing: the device's password at the broker."
    elif not _size(password) or _size(password) > PASSWORD_BYTES:
        yield f"lopy4_broker_password has to be {TEXT}, {PASSWORD_BYTES} bytes at the most."


def _wifi(settings: Mapping) -> Iterator[str]:
    ssid, password = _size(settings["wifi_ssid"]), settings["wifi_password"]
    if ssid is None or not 1 <= ssid <= 32:
        yield f"lopy4_wifi_ssid has to be {TEXT}, 1 to 32 bytes, of which an umlaut takes two and an emoji four."
    if password == "":
        return
    size = _size(password)
    if size is None or not (8 <= size <= 63 or re.fullmatch(r"[0-9A-Fa-f]{64}", password)):
        yield f'lopy4_wifi_password has to be {TEXT}, 8 to 63 bytes or a key of 64 hexadecimal digits; "" is an open network.'


def _size(text: object) -> int | None:
    """Bytes of a text as the device gets it; None where it cannot get it."""
    if not isinstance(text, str) or re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", text):
        return None
    return len(text.encode())


def _resolved(settings: Mapping) -> Iterator[str]:
    for work_out, key in ((posix_timezone, "timezone"), (lopy4_address, "broker_host"), (lopy4_address, "time_server")):
        try:
            work_out(str(settings[key]))
        except AnsibleFilterError as error:
            yield str(error.message)


def _hosts(settings: Mapping) -> Iterator[str]:
    for key, real in (
        ("broker_host", "site_address of the broker's host"),
        ("time_server", "the address of a time server"),
    ):
        host = str(settings[key])
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            address = None
        if host.lower() in ("localhost", "localhost.localdomain") or (
            address and (address.is_loopback or address.is_unspecified)
        ):
            yield f"lopy4_{key}: {host} is the device itself. Set lopy4_{key}, or {real}, to what the device can reach."
        elif address and address.version == 6:
            yield f"lopy4_{key}: {host} is IPv6, which the device does not speak. Give an IPv4 address or a name."
        elif not address and (len(host) > 253 or not HOST.fullmatch(host)):
            yield f"lopy4_{key}: {host!r} is neither an IPv4 address nor a name."


def _sensors(sensors: list, catalogue: Mapping) -> Iterator[str]:
    used: dict[str, str] = {}
    fields: dict[str, str] = {}
    if not sensors:
        yield "lopy4_sensors is empty: list what is wired to the device."
    for place, sensor in enumerate(sensors, start=1):
        driver = sensor.get("driver")
        where = f"lopy4_sensors, entry {place} ({driver})"
        if driver not in catalogue:
            yield f"{where}: there is no such driver; there are {', '.join(sorted(catalogue))}.{_perhaps(driver, catalogue)}"
            continue
        for quantity, field in (sensor.get("fields") or {}).items():
            if quantity not in catalogue[driver].quantities:
                yield f"{where}: it does not measure {quantity}; it measures {', '.join(catalogue[driver].quantities)}."
            if not _size(field) or field in RESERVED:
                yield f"{where}: {field!r} can't be the name of a field."
            if field in fields:
                yield f"{where}: {field} is filled by {fields[field]} already."
            fields[field] = driver
        if "name" in sensor and not 1 <= (_size(sensor["name"]) or 0) <= NAME_BYTES:
            yield f"{where}: name is {sensor['name']!r}; it has to be a text of {NAME_BYTES} bytes at the most."
        if not sensor.get("fields"):
            yield f"{where}: fields is missing: which quantity fills which field."
        yield from _wiring(where, sensor, catalogue[driver], used)
        yield from _keys(where, sensor, catalogue[driver])
        yield from _values(where, sensor, catalogue[driver])


def _wiring(where: str, sensor: Mapping, driver: Driver, used: dict[str, str]) -> Iterator[str]:
    entry = driver.complete(sensor)
    for key, setting in driver.settings.items():
        pin = entry.get(key)
        if setting["kind"] != "pin" or pin is None:
            continue
        if pin not in PINS:
            yield f"{where}: {key} is {pin!r}; pins are P0 to P23."
        elif pin in TAKEN:
            yield f"{where}: {key}: {pin} is used by {TAKEN[pin]}."
        elif setting.get("direction") in ("output", "both") and pin in INPUTS:
            yield f"{where}: {key}: {pin} is an input only; take a pin that can also be an output."
        elif setting.get("direction") == "analogue" and pin not in ANALOGUE:
            yield f"{where}: {key}: {pin} has no analogue converter that works beside Wi-Fi; take P13 to P20."
        # Several sensors may share a bus; everything else has its pin for itself.
        use = f"{setting['bus']} {key}" if "bus" in setting else where
        if pin in used and used[pin] != use:
            yield f"{where}: {key}: {pin} is used by another sensor."
        used[pin] = use


def _buses(sensors: list, catalogue: Mapping) -> Iterator[str]:
    """I2C: a pair of pins is a bus, on which each sensor has an address of its own; the chip has two controllers."""
    found: dict[tuple, dict[object, int]] = {}
    for place, sensor in enumerate(sensors, start=1):
        driver = catalogue.get(sensor.get("driver"))
        if not driver or "i2c" not in [setting.get("bus") for setting in driver.settings.values()]:
            continue
        entry = driver.complete(sensor)
        where, pair = f"lopy4_sensors, entry {place} ({sensor['driver']})", (entry.get("sda"), entry.get("scl"))
        address = entry.get("address", driver.address)
        other = found.get(pair, {}).get(address)
        if other:
            choice = "another address, or other pins" if "address" in driver.settings else "other pins"
            yield f"{where}: entry {other} is on {pair[0]} and {pair[1]}, too, and has the same I2C address; take {choice}."
        elif any(pair != bus and set(pair) & set(bus) for bus in found):
            yield f"{where}: {pair[0]} or {pair[1]} belongs to the I2C bus of another sensor; take two other pins."
        found.setdefault(pair, {}).setdefault(address, place)
    if len(found) > I2C_BUSES:
        yield f"lopy4_sensors: {len(found)} pairs of sda and scl, and the chip has {I2C_BUSES} I2C controllers."


def _duration(sensors: list, interval: object, catalogue: Mapping) -> Iterator[str]:
    """Whether a round of readings fits into the interval."""
    known = [(catalogue[sensor["driver"]], sensor) for sensor in sensors if sensor.get("driver") in catalogue]
    milliseconds = sum(driver.reading_ms(sensor) or 50 for driver, sensor in known)
    low, _ = LIMITS["interval"]
    if str(interval).isdigit() and int(interval) >= low and milliseconds >= 1000 * int(interval):
        yield (
            f"lopy4_sensors: to read them all takes {milliseconds / 1000:.1f} s, and lopy4_interval is {interval}: make it longer, or "
            "settle_ms and samples smaller."
        )


def _patience(settings: Mapping, catalogue: Mapping) -> Iterator[str]:
    """Whether the broker and the watchdog wait for as long as the sensors may take."""
    known = [
        (catalogue[sensor["driver"]], sensor) for sensor in settings["sensors"] if sensor.get("driver") in catalogue
    ]
    milliseconds = sum(driver.reading_ms(sensor) + driver.takes_ms for driver, sensor in known)
    for key, more, meanwhile in (
        ("broker_keepalive", PING_S, "in which the broker hears nothing of the device"),
        ("watchdog", LOOK_UP_S, f"and a name server that is silent {LOOK_UP_S} s more"),
    ):
        least = -(-milliseconds // 1000) + more
        if str(settings[key]).isdigit() and LIMITS[key][0] <= int(settings[key]) < least:
            yield (
                f"lopy4_{key}: {settings[key]} is too short: to read the sensors may take {milliseconds / 1000:.1f} s, {meanwhile}. "
                f"Set it to {least} or more."
            )


def _keys(where: str, sensor: Mapping, driver: Driver) -> Iterator[str]:
    takes = COMMON | set(driver.settings)
    for key in sorted(driver.needs() - {key for key, value in sensor.items() if value is not None}):
        yield f"{where}: {key} is missing."
    for key in sorted(set(sensor) - takes):
        yield f"{where}: there is no key {key}; there are {', '.join(sorted(takes))}.{_perhaps(key, takes)}"


def _fits(value: object, setting: Mapping) -> bool:
    """Whether a value is of a setting's kind and within its limits."""
    if setting["kind"] == "pin":
        return True  # see _wiring
    if setting["kind"] == "text":
        return bool(_size(value))
    kinds = (int, float) if setting["kind"] == "number" else int
    if isinstance(value, bool) or not isinstance(value, kinds):
        return False
    if "choices" in setting:
        return value in setting["choices"]
    return setting.get("smallest", value) <= value <= setting.get("largest", value)


def _range(setting: Mapping) -> str:
    if "choices" in setting:
        return " or ".join(
            hex(choice) if setting["kind"] == "integer" else str(choice) for choice in setting["choices"]
        )
    if "smallest" in setting:
        return f"{setting['smallest']} to {setting['largest']}"
    return {"integer": "a whole number", "number": "a number", "text": TEXT}[setting["kind"]]


def _values(where: str, sensor: Mapping, driver: Driver) -> Iterator[str]:
    good = {}
    for key, setting in driver.settings.items():
        if key not in sensor:
            continue
        if not _fits(sensor[key], setting):
            yield f"{where}: {key} is {sensor[key]!r}; it is {setting.get('about', key)}, {_range(setting)}."
        else:
            good[key] = sensor[key]
    for key, value in good.items():
        for other, least in driver.settings[key].get("apart", {}).items():
            if other in good and abs(value - good[other]) < least:
                yield f"{where}: {key} and {other} are (nearly) the same; measure both again."


def _perhaps(word: object, words) -> str:
    near = difflib.get_close_matches(str(word), list(words), n=1)
    return f" Did you mean {near[0]}?" if near else ""


def lopy4_summary(hosts: list[str], hostvars: Mapping, left: list[str]) -> list[str]:
    """One line a device: what was done to it, or what went wrong and what to try.

    Args:
        hosts: all devices of the play.
        hostvars: their variables.
        left: those that are in the play still; the others have become unreachable.
    """
    lines = []
    for host in hosts:
        done, failure = hostvars[host].get("__lopy4_program") or {}, hostvars[host].get("__lopy4_failure")
        if failure:
            sentences = " ".join(failure) if isinstance(failure, list) else str(failure)
            sentences = sentences.removeprefix(host + ": ").replace("DEVICE=…", f"DEVICE={host}")
            lines.append(f"{host}: FAILED. {sentences.strip()}")
        elif done.get("changed") and "files" in done:
            before = done["previous_version"]
            lines.append(
                f"{host}: version {done['version']}{f' in place of {before}' if before else ''}, {len(done['files']['sent'])} files "
                f"sent and {len(done['files']['copied'])} copied on the device, {done['seconds']} s"
                + (
                    f"; repaired what was damaged or missing: {', '.join(done['repaired'])}"
                    if done.get("repaired")
                    else ""
                )
                + ("; it has not reached the broker yet" if done.get("waits") else "")
                + (
                    f", and if it does not in ten minutes it goes back to {before}"
                    if done.get("waits") and before
                    else ""
                )
            )
        elif "version" in done:
            lines.append(f"{host}: version {done['version']} as declared, nothing written, {done['seconds']} s")
        elif host not in left:
            lines.append(
                f"{host}: FAILED. The connection to {hostvars[host].get('__lopy4_where', 'the host that it is plugged into')} broke "
                "while it was at work: see to its power and network, and run again. Whatever was under way, a whole program starts."
            )
        else:
            lines.append(f"{host}: not looked at")
    return lines


def lopy4_choice(found: list[Mapping], port: str, known: list[str]) -> dict:
    """The new device among the ports that were found: the one on `port`, or the only one that is not known yet.

    Returns:
        Its entry; with the key `problem` if there is none, or more than one: a sentence that lists what is on each port.
    """
    listed = "; ".join(
        f"{entry['port']}: {entry.get('problem') or entry['firmware'] + ', chip ' + entry['mac']}" for entry in found
    )
    if port:
        chosen = [entry for entry in found if entry["port"] == port]
        return (
            dict(chosen[0]) if chosen else {"problem": f"There is no port {port}. There is: {listed or 'none at all'}."}
        )
    new = [entry for entry in found if "mac" in entry and entry["mac"] not in known]
    if not new:
        return {"problem": f"No new device is plugged in. On the ports: {listed or 'there are none at all'}."}
    if len(new) > 1:
        return {"problem": f"There are several new devices; say which one with PORT=…: {listed}."}
    return dict(new[0])


def lopy4_with_host(text: str, name: str) -> str:
    """The text of hosts.yml with one more host in group `devices`; everything else in it stays as it is.

    Raises:
        AnsibleFilterError: the group is written in a way that is not understood.
    """
    before = yaml.safe_load(text)
    path = _devices_of(before)
    if path is not None and name in (path.get("hosts") or {}):
        return text
    more = _with_line(text.splitlines(), name)
    expected = yaml.safe_load(text)
    group = _devices_of(expected)
    if group is not None:
        group["hosts"] = {**(group.get("hosts") or {}), name: None}
        if yaml.safe_load(more) == expected:
            return more
    raise AnsibleFilterError(
        f"hosts.yml is written in a way that is not understood here: add {name} to its group devices by hand."
    )


def _with_line(lines: list[str], name: str) -> str:
    """The lines with one for the host, behind the last one below `devices:` and `hosts:`; unchanged where they are not found."""

    def depth(line: str) -> int:
        return len(line) - len(line.lstrip())

    def below(top: int) -> list[int]:
        """Numbers of the lines that belong to the one at `top`."""
        found = []
        for number in range(top + 1, len(lines)):
            if lines[number].strip():
                if depth(lines[number]) <= depth(lines[top]):
                    break
                found.append(number)
        return found

    for top, line in enumerate(lines):
        if re.fullmatch(r" *devices: *(#.*)?", line):
            for hosts in below(top):
                if re.fullmatch(r" *hosts: *(\{ *\})? *(#.*)?", lines[hosts]):
                    members = below(hosts)
                    indent = depth(lines[members[0]]) if members else 2 * depth(lines[hosts]) - depth(line)
                    lines[hosts] = re.sub(r" *\{ *\}", "", lines[hosts])
                    lines.insert(members[-1] + 1 if members else hosts + 1, f"{' ' * indent}{name}:")
                    return "\n".join(lines) + "\n"
    return "\n".join(lines) + "\n"


def _devices_of(hosts: object) -> dict | None:
    """The group `devices` in a parsed inventory."""
    if isinstance(hosts, dict):
        if isinstance(hosts.get("devices"), dict):
            return hosts["devices"]
        for value in hosts.values():
            found = _devices_of(value)
            if found is not None:
                return found
    return None


class FilterModule:
    def filters(self):
        return {
            "lopy4_address": lopy4_address,
            "lopy4_choice": lopy4_choice,
            "lopy4_problems": lopy4_problems,
            "lopy4_shared": lopy4_shared,
            "lopy4_summary": lopy4_summary,
            "lopy4_with_host": lopy4_with_host,
            "posix_timezone": posix_timezone,
        }
