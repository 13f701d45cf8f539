"""Requests to Grafana's API."""

from __future__ import annotations

import json

from ansible.module_utils.urls import open_url

TIMEOUT = 30  # seconds, as Grafana's own for the evaluation of an alert rule


def request(url: str, username: str, password: str, method: str = "GET", body: dict | None = None):
    """The answer, from JSON; None if it is empty. Raises OSError (HTTPError for a refusal), ValueError."""
    answer = open_url(
        url,
        method=method,
        data=None if body is None else json.dumps(body),
        headers={"Accept": "application/json"} | ({"Content-Type": "application/json"} if body is not None else {}),
        url_username=username,
        url_password=password,
        force_basic_auth=True,
        use_proxy=False,
        timeout=TIMEOUT,
    )
    return json.loads(answer.read() or b"null")
