"""The few web pages: they say that this is a stand-in, and list the dashboards."""

import html
import urllib.parse

from . import HOME, NOTICE

TYPE = "text/html; charset=UTF-8"
_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:56rem;margin:2rem auto;padding:0 1rem;color:#222}"
    ".notice{background:#fff3cd;border:1px solid #e0c060;padding:.6rem 1rem;border-radius:4px}"
    "input{display:block;margin:.3rem 0 1rem;padding:.4rem;width:16rem}button{padding:.4rem 1.2rem}"
    ".wrong{color:#a00}.wide{max-width:none}.grid{display:grid;grid-template-columns:repeat(24,1fr);gap:.5rem}"
    "section{border:1px solid #ddd;border-radius:4px;padding:.3rem .6rem;overflow:auto;min-width:0}"
    "polyline{fill:none;stroke-width:2;vector-effect:non-scaling-stroke}h2,h3{margin:.2rem 0;font-size:1rem}svg{width:100%;height:8rem;display:block}p{margin:.3rem 0}"
    "td,th{text-align:left;padding:0 .8rem 0 0}@media(max-width:60rem){.grid>*{grid-column:span 24!important}}"
)


def _page(title: str, content: str, wide: bool = False) -> bytes:
    notice = html.escape(NOTICE).replace(HOME, f'<a href="{HOME}">{HOME}</a>')
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body{' class=wide' if wide else ''}><h1>{html.escape(title)}</h1>"
        f'<p class="notice">{notice} It has the data, the alerts and the HTTP API of Grafana, not its looks.</p>'
        f"{content}</body></html>"
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


def dashboard(title: str, drawing: str, seconds: int) -> bytes:
    """One dashboard, which the browser asks for again every so many seconds."""
    again = f'<meta http-equiv="refresh" content="{seconds}">'
    return _page(title, f'{again}<p><a href="/">All dashboards</a></p>{drawing}', wide=True)
