"""Accounts of the broker: their validation, their password file and their ACL file."""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import re
from collections.abc import Mapping

NAME = re.compile(r"[A-Za-z0-9._@-]+\Z")
CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def mosquitto_problems(accounts: list[Mapping], listeners: list[Mapping]) -> list[str]:
    """What the broker could not use and argument_specs cannot express, one sentence each."""
    return [*_listener_problems(listeners), *_account_problems(accounts)]


def _listener_problems(listeners: list[Mapping]) -> list[str]:
    if not listeners:
        return ["mosquitto_listeners is empty: the broker would not listen on any port. Add one."]
    problems = []
    seen = set()
    for listener in listeners:
        port, address = int(listener["port"]), listener.get("address") or ""
        if not 0 < port < 65536:
            problems.append(f"mosquitto_listeners: port {port!r} is not between 1 and 65535.")
            continue
        if address:
            try:
                ipaddress.ip_address(address)
            except ValueError:
                problems.append(f"mosquitto_listeners: {address!r} is not an address (port {port}).")
        if (port, address) in seen or (port, "") in seen:
            problems.append(f"mosquitto_listeners: port {port} is declared twice.")
        seen.add((port, address))
    return problems


def _account_problems(accounts: list[Mapping]) -> list[str]:
    problems = []
    seen = set()
    for account in accounts:
        name = account["name"]
        where = f"mosquitto_accounts: account {name!r}"
        if not isinstance(name, str) or not NAME.match(name):
            problems.append(f"{where}: a name consists of letters, digits and . _ @ - (quote a number).")
        if name in seen:
            problems.append(f"{where} is declared twice; keep one entry.")
        seen.add(name)
        password = account.get("password")
        if not isinstance(password, str) or not password:
            problems.append(f"{where} has no password (a string; quote a number).")
        elif CONTROL.search(password) or len(password.encode()) > 1024:
            problems.append(
                f"{where}: a password must not contain line breaks or control characters, and has at most 1024 bytes."
            )
        for entry in account.get("topics") or []:
            problem = _topic_problem(entry["topic"])
            if problem:
                problems.append(f"{where}: topic {entry['topic']!r} {problem}")
    return problems


def _topic_problem(topic: object) -> str:
    """Why MQTT or the ACL file does not allow a topic filter; "" if it is allowed."""
    if not isinstance(topic, str) or not topic:
        return "is empty."
    if topic != topic.strip() or CONTROL.search(topic):
        return "begins or ends with a space, or contains a control character."
    levels = topic.split("/")
    if any("#" in level for level in levels[:-1]) or ("#" in levels[-1] and levels[-1] != "#"):
        return "has a # that is not its whole last level."
    if any("+" in level and level != "+" for level in levels):
        return "has a + that is not a whole level."
    return ""


def mosquitto_password_file(accounts: list[Mapping], host: str, iterations: int) -> str:
    """The broker's password file: PBKDF2-HMAC-SHA512 (`$7$`), the same for the same input.

    The salt has 12 bytes, as in Mosquitto 2.0. It is derived from host and account, so that the hashes of equal passwords
    differ and a run that changes nothing writes nothing.
    """
    lines = []
    for account in sorted(accounts, key=lambda account: account["name"]):
        salt = hashlib.sha256(f"{host}:{account['name']}".encode()).digest()[:12]
        digest = hashlib.pbkdf2_hmac("sha512", account["password"].encode(), salt, int(iterations))
        encoded = (base64.b64encode(part).decode() for part in (salt, digest))
        lines.append(f"{account['name']}:$7${int(iterations)}${'$'.join(encoded)}\n")
    return "".join(lines)


def mosquitto_acl_file(accounts: list[Mapping]) -> str:
    """The broker's ACL file: each account and its topics."""
    lines = ["#\n# Ansible managed\n#\n"]
    for account in sorted(accounts, key=lambda account: account["name"]):
        lines.append(f"\nuser {account['name']}\n")
        lines += [f"topic {entry['access']} {entry['topic']}\n" for entry in account.get("topics") or []]
    return "".join(lines)


def mosquitto_accounts_file(accounts: list[Mapping], host: str, iterations: int) -> str:
    """The file for the broker's plugin: fingerprints of passwords, client ids, and the topics of accounts that keep their session."""
    # Shows that the three files are complete and from the same run.
    others = mosquitto_password_file(accounts, host, iterations) + mosquitto_acl_file(accounts)
    lines = [f"files - {hashlib.sha256(others.encode()).hexdigest()}\n"]
    for account in sorted(accounts, key=lambda account: account["name"]):
        name = account["name"]
        fingerprint = hashlib.sha256(mosquitto_password_file([account], host, iterations).encode()).hexdigest()[:16]
        lines.append(f"account {name} {fingerprint}\n")
        lines += [f"id {name} {prefix}\n" for prefix in [name, *(account.get("client_ids") or [])]]
        if account.get("keeps_session"):
            readable = [entry["topic"] for entry in account.get("topics") or [] if "read" in entry["access"]]
            lines += [f"collect {name} {topic}\n" for topic in readable]
    return "".join(lines)


class FilterModule:
    def filters(self) -> dict:
        return {
            "mosquitto_accounts_file": mosquitto_accounts_file,
            "mosquitto_acl_file": mosquitto_acl_file,
            "mosquitto_password_file": mosquitto_password_file,
            "mosquitto_problems": mosquitto_problems,
        }
