"""The first-boot files of a card: which variables are wrong, and who the host is."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
import zoneinfo
from collections.abc import Iterable, Mapping

KEY_TYPES = "ssh-ed25519, ssh-rsa, ecdsa-sha2-nistp256/384/521, sk-ssh-ed25519@openssh.com or sk-ecdsa-sha2-nistp256@openssh.com"


def card_problems(card: Mapping) -> list[str]:
    """What is wrong in the variables of role card, without the values of secrets.

    Args:
        card: the variables by name, without the prefix card_.
    """
    return [problem for check in CHECKS for problem in check(card)]


def _path(card: Mapping) -> Iterable[str]:
    if not card["path"]:
        yield "card_path is empty: name the card, make card CARD=/dev/sdX. `lsblk` lists the disks of this computer."
    if card["image"] and not re.fullmatch(r"[0-9a-fA-F]{64}", card["image_sha256"]):
        yield (
            "card_image_sha256 is not a SHA-256 of 64 hexadecimal digits: copy it from the page from which you downloaded the "
            "image, make card SHA256=…"
        )
    if card["image_sha256"] and not card["image"]:
        yield "card_image_sha256 is set, but card_image is not: name the image, make card IMAGE=…"


def _host(card: Mapping) -> Iterable[str]:
    if not re.fullmatch(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)", card["hostname"]):
        yield f"card_hostname is {card['hostname']!r}: it consists of at most 63 letters, digits and '-'."
    if card["timezone"] not in zoneinfo.available_timezones():
        yield f"card_timezone is {card['timezone']!r}, which is no time zone: Europe/Stockholm, for example (site_timezone)."
    if not re.fullmatch(r"([a-z]{2,3}_[A-Z]{2}|C)\.UTF-8", card["locale"]):
        yield f"card_locale is {card['locale']!r}: use a locale with UTF-8, such as en_GB.UTF-8."


def _account(card: Mapping) -> Iterable[str]:
    if card["user"] == "root" or not re.fullmatch(r"[a-z_][a-z0-9_-]{0,31}", card["user"]):
        yield f"card_user is {card['user']!r}: it consists of small letters, digits, '_' and '-', and is not root (ansible_user)."
    if not card["authorized_keys"]:
        yield (
            "card_authorized_keys is empty, so nobody could log in: run ssh-keygen -t ed25519, which creates a key in the default "
            "place, or set card_authorized_keys to the lines of your public keys."
        )
    for number, key in enumerate(card["authorized_keys"], 1):
        if not _is_public_key(key):
            yield f"card_authorized_keys: entry {number} is not a public SSH key. It begins with {KEY_TYPES}."


def _is_public_key(line: str) -> bool:
    """Whether it is a line with type, key and perhaps a comment. A private key must not get onto a card."""
    words = line.split()
    if "\n" in line.strip() or len(words) < 2:
        return False
    kind = words[0].encode()
    try:
        blob = base64.b64decode(words[1], validate=True)
    except binascii.Error:
        return False
    return re.fullmatch(rb"(sk-)?(ssh|ecdsa)-[a-z0-9@.-]+", kind) is not None and blob[4 : 4 + len(kind)] == kind


def _wifi(card: Mapping) -> Iterable[str]:
    wifi = card["wifi"]
    if not wifi:
        return
    if not 1 <= len(str(wifi.get("ssid", "")).encode()) <= 32:
        yield "card_wifi.ssid is the name of the network; it has 1 to 32 bytes."
    if not re.fullmatch(r"[A-Z]{2}", str(wifi.get("country", ""))):
        yield "card_wifi.country is the country in which the Pi is, two capital letters such as SE: each has its own channels."
    password = card["wifi_password"]
    is_passphrase = re.fullmatch(r"[\x20-\x7e]{8,63}", password)
    if not is_passphrase and not re.fullmatch(r"[0-9a-fA-F]{64}", password):
        yield (
            f"card_wifi_password has {len(password)} characters. A password of a Wi-Fi (WPA) has 8 to 63 characters of ASCII; "
            "correct secrets/wifi."
        )


def _release(card: Mapping) -> Iterable[str]:
    if card["release"] != "trixie" and card["user_data"]:
        yield f"card_user_data is for cloud-init, which {card['release']} does not have: remove it, or use trixie (card_release)."


CHECKS = (_path, _host, _account, _wifi, _release)


def card_hostname(address: str, name: str) -> str:
    """The name of a host that is reached as raspberrypi.local: raspberrypi. One that is reached by its IP address has its
    name in the inventory.
    """
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return address.partition(".")[0]
    return name.replace("_", "-")


def self_problems(about: Mapping) -> Iterable[str]:
    """Why the Pi of a card cannot set itself up.

    Args:
        about: setup: the value of SELF; hosts: those of the site; targets: of its backups; has_key: whether their recovery key is here.
    """
    if about["setup"] not in SETUPS:
        yield f"SELF is {about['setup']!r}: it is 1 to restore the newest backup, or new for a site without one."
    if len(about["hosts"]) > 1:
        yield (
            f"SELF is for a site of one host, and this one has {len(about['hosts'])}, {', '.join(sorted(about['hosts']))}, of which none "
            "reaches the others. Write the cards without SELF, and run make rebuild."
        )
    if about["setup"] == "new" or not about["targets"]:
        return
    if all(target["kind"] == "controller" for target in about["targets"]):
        yield (
            "SELF restores backups that the Pi reaches, and all of site_backup_targets are on this computer (kind: controller). Add a USB stick "
            "(kind: disk) or another host (kind: ssh), write the card without SELF, or use SELF=new to restore nothing."
        )
    if not about["has_key"]:
        yield (
            "The recovery key is missing, so the Pi could not read the backups: write it to secrets/backup/recovery_key, or use SELF=new "
            "for a site that has no backup yet."
        )


# The values of SELF.
SETUPS = ("1", "yes", "new")


class FilterModule:
    def filters(self) -> dict:
        return {
            "card_hostname": card_hostname,
            "card_problems": card_problems,
            "self_problems": lambda about: list(self_problems(about)),
        }
