"""Contact points and the mail server: what a schema cannot express. The roles grafana and validate have the same keys."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

# The keys of a contact point besides name and type.
KEYS = {"email": {"addresses"}, "webhook": {"url", "user", "password"}}
ADDRESS = re.compile(r"[^@\s;,]+@[^@\s;,]+")


def addresses(point: Mapping) -> list[str]:
    """The recipients of a contact point, which may be one text or a list."""
    given = point.get("addresses") or []
    return re.split(r"[;,\s]+", given.strip()) if isinstance(given, str) else [str(one) for one in given]


def contact_point_problems(where: str, point: Mapping, server: Mapping, server_variable: str) -> Iterator[str]:
    """What is wrong with a contact point whose keys and type are known ones.

    Args:
        where: the variable, and the entry if there may be several.
        point: the contact point.
        server: the mail server.
        server_variable: the variable that it is from.
    """
    kind = point["type"]
    for key in sorted(set(point) & set().union(*KEYS.values()) - KEYS[kind]):
        yield f"{where}: {key} is not used with type {kind}, which has {', '.join(sorted(KEYS[kind]))}."
    if kind == "webhook" and not str(point.get("url") or "").startswith(("http://", "https://")):
        yield f"{where}: a webhook needs a url that begins with http:// or https://."
    if kind == "email":
        recipients = addresses(point)
        if not recipients or not all(ADDRESS.fullmatch(recipient) for recipient in recipients):
            yield f"{where}: addresses must be an e-mail address or a list of them."
        if not server.get("host"):
            yield f"{where} has type email, but {server_variable} has no mail server (host, port, user, …)."


def mail_server_problems(variable: str, server: Mapping) -> Iterator[str]:
    if server.get("host") and not ADDRESS.fullmatch(str(server.get("from") or "")):
        yield f"{variable}: from must be an e-mail address; a mail server refuses mail without a sender."
