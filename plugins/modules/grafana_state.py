#!/usr/bin/python
"""Update what a running Grafana keeps in its database, and verify what was provisioned."""

from __future__ import annotations

DOCUMENTATION = r"""
module: grafana_state
short_description: Update a running Grafana, and verify what was provisioned
description:
  - Waits until Grafana is ready. If it ends instead, the module fails with the last lines of its log.
  - Sets the administrator's password if it differs. Grafana uses the one in its configuration only when it creates its
    database.
  - Makes Grafana read its provisioning files again if they are newer than the last time that it read them.
  - Removes alert rules and contact points that were provisioned and are in no file any more, since Grafana keeps them.
  - Fails if an expected data source, dashboard, rule or contact point is missing, since Grafana silently skips what it
    does not understand.
  - What people created by hand is neither changed nor removed.
options:
  url:
    description: URL of Grafana on this host.
    type: str
    default: http://127.0.0.1:3000
  admin_user:
    description: Name of the administrator.
    type: str
    default: admin
  admin_password_file:
    description: The file on this host that contains the password.
    type: path
    default: /etc/grafana/secrets/admin_password
  datasources:
    description: Uids of the provisioned data sources.
    type: list
    elements: str
    default: []
  dashboards:
    description: Uids of the provisioned dashboards.
    type: list
    elements: str
    default: []
  rules:
    description: Uids of the provisioned alert rules.
    type: list
    elements: str
    default: []
  contact_points:
    description: Uids of the provisioned contact points.
    type: list
    elements: str
    default: []
  timeout:
    description: Seconds to wait until Grafana is ready.
    type: int
    default: 180
attributes:
  check_mode:
    support: full
    description: If Grafana is not running yet, that is reported as a change.
"""

EXAMPLES = r"""
- name: Update Grafana's database and verify the provisioning
  tig_pi.stack.grafana_state:
    datasources: [influx]
    dashboards: [readings, pi]
"""

RETURN = r"""
done:
  description: What was changed, one sentence for each change.
  type: list
  elements: str
  returned: always
version:
  description: Grafana's version.
  type: str
  returned: when it runs
"""

import contextlib
import json
import os
import re
import time
from urllib.error import HTTPError, URLError

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.tig_pi.stack.plugins.module_utils.grafana import request

UNIT = "grafana-server.service"
CONFIGURATION = "/etc/grafana/grafana.ini"
HOME = "/usr/share/grafana"
PROVISIONING = "/etc/grafana/provisioning"
PROVISIONED = (PROVISIONING, "/etc/grafana/dashboards", "/etc/grafana/secrets/provisioning")
STAMP = "/var/lib/grafana/.provisioned"  # its time is that of the last reading of the provisioning files
LEFTOVERS = f"{PROVISIONING}/alerting/leftovers.yaml"
MESSAGE = re.compile(r'\b(?:msg|error|err)=("(?:[^"\\]|\\.)*"|\S+)')
INTERVAL = 0.2  # seconds between two requests
SEARCH_TIMEOUT = 15  # seconds until Grafana's search finds a dashboard that was just read


class Refused(Exception):
    """The login was refused."""


class Grafana:
    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.wanted = module.params
        self.done: list[str] = []
        self.version = None
        self.password = ""

    def fail(self, message: str) -> None:
        self.module.fail_json(msg=message, done=self.done, changed=bool(self.done))

    # --- requests

    def request(self, path: str, method: str = "GET"):
        """Grafana's answer, from JSON; raises Refused, HTTPError or OSError."""
        try:
            return request(self.wanted["url"] + path, self.wanted["admin_user"], self.password, method)
        except HTTPError as error:
            if error.code == 401:
                raise Refused from error
            raise

    def unit(self) -> dict[str, str]:
        properties = "ActiveState,SubState,NRestarts,ExecMainStartTimestamp"
        _, out, _ = self.module.run_command(["systemctl", "show", "--timestamp=unix", f"--property={properties}", UNIT])
        return dict(line.split("=", 1) for line in out.splitlines() if "=" in line)

    def log(self, count: int = 3) -> str:
        """The last warnings and errors in its log, each once, without the other fields of their lines."""
        _, out, _ = self.module.run_command(["journalctl", "--unit", UNIT, "--output=cat", "--no-pager", "--lines=300"])
        found: list[str] = []
        for line in reversed(out.splitlines()):
            if "level=error" in line or "level=warn" in line or line.startswith("Error"):
                told = ": ".join(part.strip('"').replace('\\"', '"') for part in MESSAGE.findall(line)) or line
                if told not in found:
                    found.append(told)
        return " | ".join(reversed(found[:count])) or "(no errors)"

    # --- until it is ready

    def wait(self) -> None:
        """Until the server answers, accepts its administrator and has provisioned the data sources."""
        end = time.monotonic() + self.wanted["timeout"]
        before = self.unit().get("NRestarts")
        tried = False
        while True:
            try:
                self.version = self.request("/api/health").get("version")
                self.request("/api/user")
                missing = self.missing_datasources()
                if not missing:
                    return
                state = f"the data source {missing[0]} is missing"
            except Refused:
                if tried:
                    self.fail(
                        f"Grafana refuses the login of {self.wanted['admin_user']}, although the password was just set. Its "
                        "administrator may have another name (grafana_admin_user has no effect once Grafana has created its "
                        "database), or too many failed logins have locked the account for five minutes."
                    )
                tried = True
                self.set_password()
                if self.module.check_mode:
                    return
                continue
            except (HTTPError, URLError, OSError, ValueError) as error:
                state = str(error)
            if self.module.check_mode:
                self.done.append(f"Grafana is not ready yet: {state}.")
                return
            unit = self.unit()
            if unit.get("ActiveState") in ("failed", "inactive") or unit.get("NRestarts") != before:
                self.fail(f"Grafana does not stay up ({unit.get('ActiveState')}). Its log says: {self.log()}")
            if time.monotonic() > end:
                self.fail(
                    f"Grafana was not ready after {self.wanted['timeout']} seconds: {state}. Its log says: {self.log()}"
                )
            time.sleep(INTERVAL)

    def missing_datasources(self) -> list[str]:
        there = {source["uid"] for source in self.request("/api/datasources")}
        return [uid for uid in self.wanted["datasources"] if uid not in there]

    def set_password(self) -> None:
        self.done.append("The administrator's password was set.")
        if self.module.check_mode:
            return
        # As the account of the service, which must own the files that are written.
        command = [
            "runuser",
            "-u",
            "grafana",
            "--",
            f"{HOME}/bin/grafana",
            "cli",
            "--homepath",
            HOME,
            "--config",
            CONFIGURATION,
        ]
        code, out, err = self.module.run_command(
            [*command, "admin", "reset-admin-password", "--password-from-stdin"], data=self.password, cwd=HOME
        )
        said = f"{out}\n{err}"
        # It may refuse a password with return code 0.
        if code != 0 or "Error:" in said or "✗" in said:
            words = [line for line in said.splitlines() if "Error" in line or "✗" in line] or said.split("\n")
            self.fail(f"Grafana refuses grafana_admin_password: {' '.join(words).strip()[:500]}")

    # --- provisioning

    def read_again(self) -> None:
        if newest(PROVISIONED) <= max(modified(STAMP), self.started()):
            return
        self.done.append("The provisioning files were read again.")
        if self.module.check_mode:
            return
        now = time.time()
        for what in ("datasources", "alerting", "dashboards"):
            self.reload(what)
        touch(STAMP, now)

    def reload(self, what: str) -> None:
        try:
            self.request(f"/api/admin/provisioning/{what}/reload", "POST")
        except HTTPError as error:
            self.fail(f"Grafana refuses its {what} files ({error.code}: {said_in(error)}). Its log says: {self.log()}")

    def started(self) -> float:
        """When the server was started, in whole seconds: files of the same second may be newer."""
        stamp = self.unit().get("ExecMainStartTimestamp", "").lstrip("@")
        return float(stamp) if stamp.isdigit() else 0.0

    def remove_leftovers(self) -> None:
        rules = self.leftovers("alert-rules", self.wanted["rules"])
        points = self.leftovers("contact-points", self.wanted["contact_points"])
        if not rules and not points:
            return
        self.done += [f"The alert rule {uid} was removed." for uid in rules]
        self.done += [f"The contact point {uid} was removed." for uid in points]
        if self.module.check_mode:
            return
        # What was provisioned from a file can only be deleted by a file.
        deletion = {
            "apiVersion": 1,
            "deleteRules": [{"orgId": 1, "uid": uid} for uid in rules],
            "deleteContactPoints": [{"orgId": 1, "uid": uid} for uid in points],
        }
        try:
            with open(LEFTOVERS, "w", encoding="utf-8") as file:
                json.dump(deletion, file)  # JSON is YAML
            os.chmod(LEFTOVERS, 0o644)
            self.reload("alerting")
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.remove(LEFTOVERS)
            touch(STAMP, time.time())

    def leftovers(self, what: str, wanted: list[str]) -> list[str]:
        there = self.request(f"/api/v1/provisioning/{what}")
        return sorted(one["uid"] for one in there if one.get("provenance") == "file" and one["uid"] not in wanted)

    def verify(self) -> None:
        end = time.monotonic() + SEARCH_TIMEOUT
        while missing := self.missing():
            if self.module.check_mode:
                return
            if time.monotonic() > end:
                self.fail(
                    f"Grafana has read its provisioning files, but there is no {', no '.join(missing)}. It skips what it "
                    f"does not understand. Its log says: {self.log()}"
                )
            time.sleep(INTERVAL)

    def missing(self) -> list[str]:
        there = {
            "data source": {one["uid"] for one in self.request("/api/datasources")},
            "dashboard": {one["uid"] for one in self.request("/api/search?type=dash-db&limit=5000")},
            "alert rule": {one["uid"] for one in self.request("/api/v1/provisioning/alert-rules")},
            "contact point": {one["uid"] for one in self.request("/api/v1/provisioning/contact-points")},
        }
        wanted = {
            "data source": self.wanted["datasources"],
            "dashboard": self.wanted["dashboards"],
            "alert rule": self.wanted["rules"],
            "contact point": self.wanted["contact_points"],
        }
        return [f"{kind} {uid}" for kind, uids in wanted.items() for uid in uids if uid not in there[kind]]

    def converge(self) -> None:
        if self.module.check_mode and self.unit().get("ActiveState") != "active":
            self.done.append("Grafana is not running yet.")
            return
        with open(self.wanted["admin_password_file"], encoding="utf-8") as file:
            self.password = file.read().strip()
        self.wait()
        if self.module.check_mode and self.done:
            return
        self.read_again()
        self.remove_leftovers()
        self.verify()


def said_in(error: HTTPError) -> str:
    with contextlib.suppress(ValueError, AttributeError, OSError):
        return json.loads(error.read())["message"]
    return error.reason


def modified(path: str) -> float:
    try:
        return os.stat(path).st_mtime
    except FileNotFoundError:
        return 0.0


def touch(path: str, when: float) -> None:
    with open(path, "a", encoding="ascii"):
        os.utime(path, (when, when))


def newest(folders: tuple[str, ...]) -> float:
    """When something in these folders was last written, added or removed."""
    paths = [
        path
        for folder in folders
        for root, _, names in os.walk(folder)
        for path in (root, *(f"{root}/{n}" for n in names))
    ]
    return max((modified(path) for path in paths), default=0.0)


def main() -> None:
    uids = {"type": "list", "elements": "str", "default": []}
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "default": "http://127.0.0.1:3000"},
            "admin_user": {"type": "str", "default": "admin"},
            "admin_password_file": {"type": "path", "default": "/etc/grafana/secrets/admin_password", "no_log": False},
            "datasources": uids,
            "dashboards": uids,
            "rules": uids,
            "contact_points": uids,
            "timeout": {"type": "int", "default": 180},
        },
        supports_check_mode=True,
    )
    grafana = Grafana(module)
    try:
        grafana.converge()
    except Refused:
        grafana.fail(
            f"Grafana refuses the login of {module.params['admin_user']}, which it accepted a moment ago. If somebody "
            "has just changed the password, run the playbook again."
        )
    except FileNotFoundError as error:
        grafana.fail(f"There is no {error.filename}: configure Grafana first (tag grafana_configure).")
    except (HTTPError, URLError, OSError) as error:
        grafana.fail(f"Grafana stopped answering: {error}. Its log says: {grafana.log()}")
    module.exit_json(changed=bool(grafana.done), done=grafana.done, version=grafana.version)


if __name__ == "__main__":
    main()
