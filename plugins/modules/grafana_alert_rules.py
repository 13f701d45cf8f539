#!/usr/bin/python
"""Have Grafana evaluate alert rules at once, and report those that it lacks or cannot evaluate."""

from __future__ import annotations

DOCUMENTATION = r"""
module: grafana_alert_rules
short_description: Check that Grafana has alert rules and can evaluate them
description:
  - Has Grafana evaluate each rule now, with its own queries and expressions, as the preview in its editor does.
    The result is neither stored nor notified.
  - The health of a rule in Grafana says less. It is C(ok) until the first evaluation, which is up to an interval after the start
    of Grafana; an error stays until the next one; and it is never shown of a rule that keeps its last state on errors.
  - Fails with the title of each rule that is missing or has an error.
options:
  url:
    description: URL of Grafana.
    type: str
    required: true
  username:
    description: Account to log in with.
    type: str
    required: true
  password:
    description: Password of the account.
    type: str
    required: true
  rules:
    description: Titles of the rules.
    type: list
    elements: str
    required: true
attributes:
  check_mode:
    support: full
    description: Nothing is changed.
"""

EXAMPLES = r"""
- name: Check the alert rules
  tig_pi.stack.grafana_alert_rules:
    url: "{{ grafana_url }}"
    username: admin
    password: "{{ grafana_admin_password }}"
    rules: [The disk is nearly full]
"""

RETURN = r"""
problems:
  description: What is wrong, by title of the rule.
  type: dict
  returned: always
"""

import contextlib
import json
from concurrent.futures import ThreadPoolExecutor
from urllib.error import HTTPError

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.tig_pi.stack.plugins.module_utils.grafana import request

CONNECTIONS = 4  # a Pi has four cores


class Grafana:
    """Grafana's API."""

    def __init__(self, url: str, username: str, password: str) -> None:
        self.url, self.login = url, (username, password)

    def request(self, path: str, body: dict | None = None):
        """The answer, from JSON. Raises OSError, ValueError."""
        return request(self.url + path, *self.login, method="POST" if body else "GET", body=body)

    def error_of(self, rule: dict | None) -> str:
        """Why Grafana cannot evaluate a rule, or nothing."""
        if rule is None:
            return "Grafana does not have this rule"
        own = {key: rule[key] for key in ("title", "condition", "data")}
        body = {"rule": {"grafana_alert": own}, "folderUid": rule["folderUID"]}
        try:
            alerts = self.request("/api/v1/rule/test/grafana", body)
        except (OSError, ValueError) as error:
            return reason(error)
        return next((alert["annotations"]["Error"] for alert in alerts if "Error" in alert["annotations"]), "")

    def problems(self, titles: list[str]) -> dict[str, str]:
        """What is wrong with the rules that have a problem, by title. Raises OSError, ValueError."""
        rules = {rule["title"]: rule for rule in self.request("/api/v1/provisioning/alert-rules")}
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            found = pool.map(lambda title: self.error_of(rules.get(title)), titles)
            return {title: problem for title, problem in zip(titles, found, strict=True) if problem}


def reason(error: Exception) -> str:
    """The message of Grafana's refusal, or that of the error."""
    if not isinstance(error, HTTPError):
        return str(error)
    text = error.read().decode(errors="replace")
    with contextlib.suppress(ValueError, LookupError, TypeError):
        text = json.loads(text)["message"]
    return f"HTTP {error.code}: {text[:400]}"


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "username": {"type": "str", "required": True},
            "password": {"type": "str", "required": True, "no_log": True},
            "rules": {"type": "list", "elements": "str", "required": True},
        },
        supports_check_mode=True,
    )
    asked = module.params
    try:
        problems = Grafana(asked["url"], asked["username"], asked["password"]).problems(asked["rules"])
    except (OSError, ValueError) as error:
        module.fail_json(msg=f"Grafana does not list its alert rules: {reason(error)}", problems={})
    if problems:
        module.fail_json(msg="; ".join(f"{title}: {problem}" for title, problem in problems.items()), problems=problems)
    module.exit_json(changed=False, problems=problems)


if __name__ == "__main__":
    main()
