"""The few web pages: they say that this is a stand-in, and list the dashboards."""

import html
import json
import urllib.parse

from . import HOME, NOTICE

TYPE = "text/html; charset=UTF-8"
_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:56rem;margin:2rem auto;padding:0 1rem;color:#222}"
    ".notice{background:#fff3cd;border:1px solid #e0c060;padding:.6rem 1rem;border-radius:4px}"
    "input{display:block;margin:.3rem 0 1rem;padding:.4rem;width:16rem}button{padding:.4rem 1.2rem}"
    ".wrong{color:#a00}pre{background:#f4f4f4;padding:.6rem;overflow:auto}"
)


def _page(title: str, content: str) -> bytes:
    notice = html.escape(NOTICE).replace(HOME, f'<a href="{HOME}">{HOME}</a>')
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{html.escape(title)}</h1>"
        f'<p class="notice">{notice} It keeps the data source, the dashboards and the alert rules, and answers the'
        f" HTTP API, but draws no charts.</p>{content}</body></html>"
    ).encode()


def redirect_to_login(path: str) -> tuple[int, bytes, str, list[tuple[str, str]]]:
    """Status, body, type and headers of the answer to somebody who is not logged in."""
    target = "/login" if path == "/" else "/login?redirectTo=" + urllib.parse.quote(path, safe="")
    return 302, f'<a href="{target}">Found</a>.\n\n'.encode(), TYPE.lower(), [("Location", target)]


def not_found() -> bytes:
    return _page("Grafana stand-in", "<p>There is no such page.</p>")


def login(complaint: str = "") -> bytes:
    wrong = f'<p class="wrong">{html.escape(complaint)}</p>' if complaint else ""
    return _page(
        "Grafana stand-in",
        f'{wrong}<form method="post" action="/login"><label>User<input name="user" autofocus></label>'
        '<label>Password<input name="password" type="password"></label><button>Log in</button></form>',
    )


def home(dashboards: list[dict]) -> bytes:
    items = "".join(
        f'<li><a href="{html.escape(hit["url"])}">{html.escape(hit["title"])}</a>'
        f"{' in ' + html.escape(hit['folderTitle']) if hit.get('folderTitle') else ''}</li>"
        for hit in dashboards
    )
    return _page("Grafana stand-in", f'<h2>Dashboards</h2><ul>{items}</ul><p><a href="/logout">Log out</a></p>')


def dashboard(model: dict) -> bytes:
    """Panels with their queries, as text."""
    parts = []
    for panel in model.get("panels") or []:
        parts.append(f"<h3>{html.escape(str(panel.get('title') or panel.get('type') or ''))}</h3>")
        for target in panel.get("targets") or []:
            parts.append(f"<pre>{html.escape(str(target.get('query') or json.dumps(target)))}</pre>")
    return _page(str(model.get("title")), '<p><a href="/">All dashboards</a></p>' + "".join(parts))
