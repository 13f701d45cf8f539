"""How a device is told where and when: addresses that it can reach, and the rule of its time zone."""

from __future__ import annotations

import ipaddress
import re
import socket
from importlib import resources
from pathlib import Path
from zoneinfo import TZPATH

from ansible.errors import AnsibleFilterError


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
