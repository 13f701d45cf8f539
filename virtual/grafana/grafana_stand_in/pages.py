"""The answer to a browser: a note that this is a stand-in without web pages."""

import html
import urllib.parse

from . import HOME, NOTICE

TYPE = "text/html; charset=UTF-8"


def notice() -> bytes:
    text = html.escape(NOTICE).replace(HOME, f'<a href="{HOME}">{HOME}</a>')
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>Grafana stand-in</title></head><body>'
        f"<h1>Grafana stand-in</h1><p>{text}</p><p>It has the data, the alerts and the HTTP API of Grafana, but no pages.</p>"
        "</body></html>"
    ).encode()


def redirect_to_login(path: str) -> tuple[int, bytes, str, list[tuple[str, str]]]:
    """Status, body, type and headers of the answer to a request without a login."""
    target = "/login" if path == "/" else "/login?redirectTo=" + urllib.parse.quote(path, safe="")
    return 302, f'<a href="{target}">Found</a>.\n\n'.encode(), TYPE.lower(), [("Location", target)]
