"""What may be wrong with the settings of a device."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping

from ansible.errors import AnsibleFilterError
from ansible_collections.tig_pi.stack.plugins.module_utils.lopy4.ports import BY_ID
from ansible_collections.tig_pi.stack.plugins.plugin_utils.contract import CONTRACT
from ansible_collections.tig_pi.stack.plugins.plugin_utils.lopy4.drivers import drivers
from ansible_collections.tig_pi.stack.plugins.plugin_utils.lopy4.network import lopy4_address, posix_timezone
from ansible_collections.tig_pi.stack.plugins.plugin_utils.lopy4.sensors import bus_problems, sensor_problems
from ansible_collections.tig_pi.stack.plugins.plugin_utils.lopy4.text import TEXT, byte_size

HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,62})(\.[A-Za-z0-9]([A-Za-z0-9-]{0,62}))*\.?")
MAC = re.compile(r"[0-9A-Fa-f]{2}([:-]?[0-9A-Fa-f]{2}){5}")
# What the program accepts: numbers, and bytes of texts.
LIMITS = {name: (setting["smallest"], setting["largest"]) for name, setting in CONTRACT["settings"].items()}
NUMBERS = ("interval", "send_delay", "ring", "watchdog", "broker_port", "broker_keepalive")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
LOOK_UP_S = 70  # the name server, the time server and the broker may keep the program so long after a reading
PING_S = 5  # a broker hears of the device so long after the sensors have been read


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
        sensor_problems(settings["sensors"], catalogue),
        bus_problems(settings["sensors"], catalogue),
        _duration(settings["sensors"], settings["interval"], catalogue),
        _patience(settings, catalogue),
    )
    return [f"{settings['name']}: {problem}" for check in checks for problem in check]


def _plain(settings: Mapping) -> Iterator[str]:
    longest = LIMITS["name"][1]
    if not NAME.fullmatch(str(settings["name"])) or len(str(settings["name"])) > longest:
        yield f"lopy4_name must consist of letters, digits, '-' and '_', at most {longest}."
    if not settings["port"] and not settings["mac"]:
        yield (
            "lopy4_port and lopy4_mac are both missing: one of them has to say which device it is. On the serial host "
            f"`ls {BY_ID}` lists the ports."
        )
    if settings["mac"] and not MAC.fullmatch(str(settings["mac"])):
        yield f'lopy4_mac: {settings["mac"]!r} is not a MAC address; quote it, such as "24:0a:c4:00:00:00".'
    for key in NUMBERS:
        value, (low, high) = settings[key], LIMITS[key]
        if isinstance(value, bool) or not str(value).isdigit() or not low <= int(value) <= high:
            yield f"lopy4_{key}: {value!r} is not a number from {low} to {high}."
    topic = byte_size(settings["topic"])
    if not topic or re.search(r"[+#\s]", settings["topic"]):
        yield f"lopy4_topic: {settings['topic']!r} is not a topic to publish to."
    elif topic > LIMITS["topic"][1]:
        yield f"lopy4_topic is {topic} bytes long; {LIMITS['topic'][1]} is the most."
    password = settings["broker_password"]
    if password == "":
        yield "lopy4_broker_password is missing: the device's password at the broker."
    elif not byte_size(password) or byte_size(password) > LIMITS["broker_password"][1]:
        yield f"lopy4_broker_password must be {TEXT}, at most {LIMITS['broker_password'][1]} bytes."


def _wifi(settings: Mapping) -> Iterator[str]:
    ssid, password = byte_size(settings["wifi_ssid"]), settings["wifi_password"]
    low, high = LIMITS["wifi_ssid"]
    if ssid is None or not low <= ssid <= high:
        yield f"lopy4_wifi_ssid must be {TEXT}, {low} to {high} bytes, of which an umlaut takes two and an emoji four."
    if password == "":
        return
    size = byte_size(password)
    if size is None or not (8 <= size <= 63 or re.fullmatch(r"[0-9A-Fa-f]{64}", password)):
        yield f'lopy4_wifi_password must be {TEXT}, 8 to 63 bytes or a key of 64 hexadecimal digits; "" is an open network.'


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
