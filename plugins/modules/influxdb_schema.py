#!/usr/bin/python
"""Configure users, databases, retention policies and continuous queries of InfluxDB 1.x as declared."""

from __future__ import annotations

DOCUMENTATION = r"""
module: influxdb_schema
short_description: Configure users, databases, retention policies and continuous queries of InfluxDB 1.x
description:
  - Compares and changes everything in one call, over HTTP on the host of the database.
  - Passwords are compared by logging in with them. If the administrator's password differs and nobody can log in to
    change it, a temporary server is started with the accounts, without the points, on a loopback port, to change it; the
    database is down for about two seconds.
  - Points are not touched, unless a retention policy is shortened.
  - What is not declared is left alone, except for privileges of declared users.
options:
  port:
    description: Port of the database, on loopback unless O(listen) has another address.
    type: int
    default: 8086
  listen:
    description: >-
      Address and port to listen on beyond loopback, as InfluxDB's C(bind-address). It is written to O(listen_file)
      only when the administrator exists and a query without an account is refused. V("") is loopback.
    type: str
    default: ""
  listen_file:
    description: Environment file of the service that sets the address.
    type: path
    default: /var/lib/influxdb/listen.env
  admin:
    description: The administrator.
    type: dict
    required: true
    suboptions:
      name:
        description: Name.
        type: str
        required: true
      password:
        description: Password.
        type: str
        required: true
  databases:
    description: Databases.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name.
        type: str
        required: true
      retention_policies:
        description: How long points are kept. At most one is the default.
        type: list
        elements: dict
        default: []
        suboptions:
          name:
            description: Name; V(autogen) is the one that every new database has.
            type: str
            required: true
          duration:
            description: Duration, such as V(30d) or V(26w); V(0s) is forever.
            type: str
            required: true
          shard_duration:
            description: Duration of one shard; by default the server chooses it.
            type: str
          default:
            description: Whether points without a policy are written to this one.
            type: bool
            default: false
      continuous_queries:
        description: Queries that the server runs at intervals.
        type: list
        elements: dict
        default: []
        suboptions:
          name:
            description: Name.
            type: str
            required: true
          query:
            description: The SELECT … INTO … GROUP BY time(…).
            type: str
          resample:
            description: The RESAMPLE clause, such as C(EVERY 30m FOR 2h).
            type: str
            default: ""
          backfill:
            description: >-
              Whether to compute the query for all stored points when it is created or changed, or when the policy that it
              writes to is created or extended. Policies are shortened only after that.
            type: bool
            default: false
          state:
            description: Whether the query exists.
            type: str
            choices: [present, absent]
            default: present
      purge_continuous_queries:
        description: Pattern of names, such as V(averages_*). Continuous queries that match and are not declared are dropped.
        type: str
        default: ""
  users:
    description: Users besides the administrator, each with exactly the privileges that are listed.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name.
        type: str
        required: true
      password:
        description: Password.
        type: str
      grants:
        description: Privileges, one for each database.
        type: list
        elements: dict
        default: []
        suboptions:
          database:
            description: Name of the database.
            type: str
            required: true
          privilege:
            description: What the user may do there.
            type: str
            choices: [read, write, all]
            required: true
      state:
        description: Whether the user exists.
        type: str
        choices: [present, absent]
        default: present
  configuration:
    description: The server's configuration, which names the directory of the accounts.
    type: path
    default: /etc/influxdb/influxdb.conf
  timeout:
    description: Seconds to wait for the server.
    type: int
    default: 60
attributes:
  check_mode:
    support: full
    description: A server that is not running yet is treated as an empty one.
  diff_mode:
    support: full
"""

EXAMPLES = r"""
- name: Configure databases and users
  tig_pi.stack.influxdb_schema:
    admin: {name: admin, password: "{{ vault_admin }}"}
    databases:
      - name: iot
        retention_policies:
          - {name: autogen, duration: 52w, default: true}
    users:
      - name: telegraf
        password: "{{ vault_telegraf }}"
        grants: [{database: iot, privilege: write}]
"""

RETURN = r"""
changes:
  description: The changes, one text each.
  type: list
  elements: str
  returned: always
listen_changed:
  description: Whether the service must be restarted to listen on another address.
  type: bool
  returned: always
"""

import fnmatch
import os
import tempfile
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.tig_pi.stack.plugins.module_utils.influxdb.backfill import backfill
from ansible_collections.tig_pi.stack.plugins.module_utils.influxdb.client import (
    InfluxError,
    NoAdmin,
    Server,
    Unauthorised,
    local_address,
)
from ansible_collections.tig_pi.stack.plugins.module_utils.influxdb.influxql import (
    in_words,
    name_of,
    nanoseconds,
    normal_query,
    qualified,
    target_policy,
    text_of,
    usual_shard,
)
from ansible_collections.tig_pi.stack.plugins.module_utils.influxdb.recovery import set_admin_password

CHECKED_AFTER = 2  # seconds, in which the server has checked a password also on a slow Pi
PRIVILEGES = {"read": "READ", "write": "WRITE", "all": "ALL PRIVILEGES"}


class Schema:
    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.wanted = module.params
        self.changes: list[str] = []
        self.before: dict[str, str] = {}
        self.after: dict[str, str] = {}
        self.server: Server | None = None  # None: not installed yet, in check mode
        self.listen_changed = False
        self.dropped: dict[tuple[str, str], str] = {}  # text of a continuous query by database and name

    # --- plumbing

    def fail(self, message: str) -> None:
        self.module.fail_json(msg=message, changes=self.changes)

    def change(self, what: str, before: str, after: str, statements: list[str] = (), secret: bool = False) -> None:
        """Record one change, and make it unless this is check mode."""
        self.changes.append(f"{what}: {before or '(none)'} -> {after or '(none)'}")
        self.before[what], self.after[what] = before, after
        if not self.module.check_mode:
            self.run(what, statements, secret)

    def run(self, what: str, statements: list[str], secret: bool = False) -> None:
        for statement in statements:
            try:
                self.server.query(statement)
            except InfluxError as error:
                shown = "" if secret else f" ({statement})"
                self.fail(f"{what}: the database refuses: {error}{shown}")

    def rows(self, statement: str) -> list[dict]:
        return self.server.rows(statement) if self.server else []

    # --- the server and its administrator

    def reach(self) -> None:
        """Find the server on loopback, on its new address, or on its old one."""
        addresses = [
            f"127.0.0.1:{self.wanted['port']}",
            self.wanted["listen"],
            self.listen_line().strip().partition("=")[2],
        ]
        candidates = list(dict.fromkeys(local_address(address) for address in addresses if address))
        end = time.monotonic() + (0 if self.module.check_mode else self.wanted["timeout"])
        while True:
            for host, port in candidates:
                server = Server(host, port)
                if server.answers():
                    self.server = server
                    return
            if time.monotonic() >= end:
                break
            time.sleep(0.1)
        if not self.module.check_mode:
            tried = " or ".join(f"{host}, port {port}" for host, port in candidates)
            self.fail(f"InfluxDB does not answer on {tried}; see `journalctl -u influxdb`.")

    def log_in(self) -> None:
        """Log in as the administrator, which is created, promoted or given the declared password if necessary."""
        admin = self.wanted["admin"]
        what = f"user {admin['name']}"
        name, password = name_of(admin["name"]), text_of(admin["password"])
        statement = f"CREATE USER {name} WITH PASSWORD {password} WITH ALL PRIVILEGES"
        if self.server is None:
            self.change(what, "", "all privileges")
            return
        self.server.credentials = (admin["name"], admin["password"])
        try:
            self.server.query("SHOW USERS")
            return
        except NoAdmin:
            self.server.credentials = None
            self.change(what, "", "all privileges", [statement], secret=True)
            self.server.credentials = (admin["name"], admin["password"])
        except Unauthorised:
            self.change(what, "(another password, or missing)", "all privileges")
            self.recover(admin)
        except InfluxError as error:  # the user exists and the password is right, but it is no administrator
            if "not authorized" not in str(error) and "admin" not in str(error):
                self.fail(f"{what}: the database refuses: {error}")
            self.change(what, "(not an administrator)", "all privileges")
            self.recover(admin)
        if self.module.check_mode:
            self.server = None  # nothing can be queried; all that follows is shown as new
            return
        try:
            self.server.query("SHOW USERS")
        except InfluxError as error:
            self.fail(f"{what}: cannot log in to the account that was just created: {error}")

    def recover(self, admin: dict) -> None:
        """Set the administrator's password if nobody can log in to do so."""
        if self.module.check_mode:
            return
        service = "influxdb.service"
        systemctl = self.module.get_bin_path("systemctl", required=True)
        self.module.run_command([systemctl, "stop", service], check_rc=True)
        try:
            set_admin_password(
                admin,
                self.module.get_bin_path("influxd", required=True),
                self.wanted["configuration"],
                self.wanted["timeout"],
            )
        except InfluxError as error:
            self.fail(f"user {admin['name']}: cannot set the password: {error}")
        finally:
            self.module.run_command([systemctl, "start", service], check_rc=True)
        self.reach()
        self.server.credentials = (admin["name"], admin["password"])

    # --- what is declared

    def databases(self) -> None:
        there = {row["name"] for row in self.rows("SHOW DATABASES")}
        for database in self.wanted["databases"]:
            name = database["name"]
            new = name not in there
            if new:
                self.change(f"database {name}", "", "exists", [f"CREATE DATABASE {name_of(name)}"])
            empty = new and (self.module.check_mode or self.server is None)
            self.drop_outdated_queries(database, empty)
            self.retention_policies(database, empty, shortened=False)
            self.continuous_queries(database, empty)
            self.retention_policies(database, empty, shortened=True)

    def retention_policies(self, database: dict, empty: bool, shortened: bool) -> None:
        """Create and change policies. Those that are shortened come last, when nothing more is computed from their points."""
        name = name_of(database["name"])
        there = self.present_policies(database, empty)
        # The default policy last, so that there is always one.
        for policy in sorted(database["retention_policies"], key=lambda policy: policy["default"]):
            what = f"database {database['name']}, retention policy {policy['name']}"
            duration = self.duration(what, policy["duration"])
            shard = self.duration(what, policy["shard_duration"]) if policy["shard_duration"] else None
            found = there.get(policy["name"])
            if shortened != (found is not None and is_shorter(duration, nanoseconds(found["duration"]))):
                continue
            clauses = [f"DURATION {in_words(duration)}", "REPLICATION 1"]
            if found is None:
                if shard:
                    clauses.append(f"SHARD DURATION {in_words(shard)}")
                verb = "CREATE"
            else:
                old_duration, old_shard = nanoseconds(found["duration"]), nanoseconds(found["shardGroupDuration"])
                if duration != old_duration and not shard:
                    shard = usual_shard(duration)
                clauses = [f"DURATION {in_words(duration)}"] if duration != old_duration else []
                if shard and shard != old_shard:
                    clauses.append(f"SHARD DURATION {in_words(shard)}")
                verb = "ALTER"
                if not clauses and (found["default"] or not policy["default"]):
                    continue
            if policy["default"]:
                clauses.append("DEFAULT")
            statement = f"{verb} RETENTION POLICY {name_of(policy['name'])} ON {name} {' '.join(clauses)}"
            self.change(what, self.policy_in_words(found), self.policy_as_wanted(policy, duration, shard), [statement])

    def duration(self, what: str, text: str) -> int:
        try:
            return nanoseconds(text)
        except ValueError as error:
            self.fail(f"{what}: {error}.")

    def present_policies(self, database: dict, empty: bool) -> dict[str, dict]:
        if empty:  # created by CREATE DATABASE
            return {"autogen": {"duration": "0s", "shardGroupDuration": "168h0m0s", "default": True}}
        statement = f"SHOW RETENTION POLICIES ON {name_of(database['name'])}"
        return {row["name"]: row for row in self.rows(statement)}

    @staticmethod
    def policy_in_words(found: dict | None) -> str:
        if found is None:
            return ""
        duration, shard = nanoseconds(found["duration"]), nanoseconds(found["shardGroupDuration"])
        return f"{in_words(duration)}, shards of {in_words(shard)}{', default' if found['default'] else ''}"

    @staticmethod
    def policy_as_wanted(policy: dict, duration: int, shard: int | None) -> str:
        shards = in_words(shard or usual_shard(duration))
        return f"{in_words(duration)}, shards of {shards}{', default' if policy['default'] else ''}"

    def drop_outdated_queries(self, database: dict, empty: bool) -> None:
        """Drop the queries whose policy is extended: they are created again once it is filled. If the run is interrupted
        in between, the missing query makes the next run fill it."""
        there = self.present_policies(database, empty)
        declared = {
            policy["name"]: self.duration(
                f"database {database['name']}, retention policy {policy['name']}", policy["duration"]
            )
            for policy in database["retention_policies"]
        }
        found = self.present_queries(database, empty)
        default = self.default_policy(database, empty)
        for query in database["continuous_queries"]:
            if query["backfill"] and query["state"] == "present" and query["name"] in found:
                policy = target_policy(query["query"], database["name"], default)
                present = there.get(policy)
                if policy in declared and (
                    present is None or is_shorter(nanoseconds(present["duration"]), declared[policy])
                ):
                    self.drop_query(database["name"], query["name"], found[query["name"]])

    def drop_query(self, database: str, name: str, text: str) -> None:
        statement = f"DROP CONTINUOUS QUERY {name_of(name)} ON {name_of(database)}"
        if not self.module.check_mode:
            self.run(f"database {database}, continuous query {name}", [statement])
        self.dropped[database, name] = text

    def present_queries(self, database: dict, empty: bool) -> dict[str, str]:
        """The continuous queries, without those that were just dropped, also in check mode."""
        if not self.server or empty:
            return {}
        return {
            row[0]: row[1]
            for series in self.server.query("SHOW CONTINUOUS QUERIES")
            for row in series.get("values", [])
            if series.get("name") == database["name"] and (database["name"], row[0]) not in self.dropped
        }

    def continuous_queries(self, database: dict, empty: bool) -> None:
        there = self.present_queries(database, empty)
        on = f"ON {name_of(database['name'])}"
        policy = self.default_policy(database, empty)
        declared = {query["name"] for query in database["continuous_queries"]}
        for name in fnmatch.filter(sorted(there.keys() - declared), database["purge_continuous_queries"]):
            self.change(f"database {database['name']}, continuous query {name}", there[name], "")
            self.drop_query(database["name"], name, there[name])
        for query in database["continuous_queries"]:
            what = f"database {database['name']}, continuous query {query['name']}"
            found = there.get(query["name"])
            if query["state"] == "absent":
                if found:
                    self.change(what, found, "")
                    self.drop_query(database["name"], query["name"], found)
                continue
            resample = f" RESAMPLE {query['resample']}" if query["resample"] else ""
            body = " ".join(query["query"].split()).rstrip(";")
            create = f"CREATE CONTINUOUS QUERY {name_of(query['name'])} {on}{resample} BEGIN {body} END"
            kept = qualified(create, database["name"], policy)
            if found and normal_query(found) == normal_query(kept):
                continue
            if found:
                self.drop_query(database["name"], query["name"], found)
            if query["backfill"] and not self.module.check_mode:
                self.backfill(what, database, body, policy)
            before = self.dropped.get((database["name"], query["name"]), "")
            self.change(what, before, create, [create])
            if not self.module.check_mode and before:
                self.warn_of_permanent_change(database["name"], query["name"], kept)

    def backfill(self, what: str, database: dict, body: str, default: str) -> None:
        target = self.present_policies(database, False)[target_policy(body, database["name"], default)]
        query = qualified(body, name_of(database["name"]), name_of(default))
        try:
            backfill(self.server, query, nanoseconds(target["duration"]))
        except (InfluxError, OSError) as error:
            self.fail(f"{what}: it cannot be computed for the stored points: {error}")

    def default_policy(self, database: dict, empty: bool) -> str:
        """The policy of points and queries that name none, once the declared policies exist."""
        declared = [policy["name"] for policy in database["retention_policies"] if policy["default"]]
        there = [] if empty else self.rows(f"SHOW RETENTION POLICIES ON {name_of(database['name'])}")
        return (declared + [row["name"] for row in there if row["default"]] + ["autogen"])[0]

    def warn_of_permanent_change(self, database: str, name: str, create: str) -> None:
        """Texts are compared: warn if the server stores the query in another form."""
        for series in self.server.query("SHOW CONTINUOUS QUERIES"):
            for row in series.get("values", []) if series.get("name") == database else []:
                if row[0] == name and normal_query(row[1]) != normal_query(create):
                    self.module.warn(
                        f"database {database}, continuous query {name}: every run will replace it, since the server "
                        f"stores it as {row[1]!r}. Declare it in this form."
                    )

    def users(self) -> None:
        there = {row["user"]: row["admin"] for row in self.rows("SHOW USERS")}
        declared = {user["name"] for user in self.wanted["users"]} | {self.wanted["admin"]["name"]}
        reset = []
        for user in self.wanted["users"]:
            what, name = f"user {user['name']}", name_of(user["name"])
            if user["state"] == "absent":
                if user["name"] in there:
                    self.change(what, "exists", "", [f"DROP USER {name}"])
                continue
            password = text_of(user["password"])
            if user["name"] not in there:
                self.change(what, "", "exists", [f"CREATE USER {name} WITH PASSWORD {password}"], secret=True)
            else:
                if not self.server.can_log_in(user["name"], user["password"]):
                    statement = f"SET PASSWORD FOR {name} = {password}"
                    self.change(f"{what}, password", "(secret)", "(secret, changed)", [statement], secret=True)
                    reset.append((f"{what}, password", statement))
                if there[user["name"]]:
                    statement = f"REVOKE ALL PRIVILEGES FROM {name}"
                    self.change(f"{what}, administrator", "yes", "no", [statement])
            self.grants(user, user["name"] in there)
        self.forget_old_passwords(reset)
        for name in sorted(name for name, is_admin in there.items() if is_admin and name not in declared):
            self.module.warn(f"The database has an undeclared administrator: {name}.")

    def forget_old_passwords(self, reset: list[tuple[str, str]]) -> None:
        """Set passwords a second time. The server caches a password when it has checked it: one whose check began before the
        change would be accepted until the next restart. Setting a password empties the cache.

        Args:
            reset: what was changed, and the statement of each.
        """
        if reset and not self.module.check_mode:
            time.sleep(CHECKED_AFTER)
            for what, statement in reset:
                self.run(what, [statement], secret=True)

    def grants(self, user: dict, exists: bool) -> None:
        name = name_of(user["name"])
        there = {}
        if self.server and exists:
            there = {row["database"]: row["privilege"] for row in self.rows(f"SHOW GRANTS FOR {name}")}
        wanted = {grant["database"]: PRIVILEGES[grant["privilege"]] for grant in user["grants"]}
        for database in sorted({*there, *wanted}):
            before, after = there.get(database, "NO PRIVILEGES"), wanted.get(database, "NO PRIVILEGES")
            if before == after:
                continue
            what = f"user {user['name']}, database {database}"
            if database not in wanted:
                statement = f"REVOKE ALL PRIVILEGES ON {name_of(database)} FROM {name}"
            else:
                statement = f"GRANT {after.removesuffix(' PRIVILEGES')} ON {name_of(database)} TO {name}"
            self.change(what, before.lower(), after.lower(), [statement])

    # --- the address

    def listen_line(self) -> str:
        """The line that sets an address beyond loopback; "" if there is none."""
        try:
            with open(self.wanted["listen_file"], encoding="utf-8") as file:
                return file.read()
        except FileNotFoundError:
            return ""

    def set_address(self) -> None:
        """Let the service listen beyond loopback once it refuses queries without an account."""
        path, listen = self.wanted["listen_file"], self.wanted["listen"]
        wanted = f"INFLUXDB_HTTP_BIND_ADDRESS={listen}\n" if listen else ""
        found = self.listen_line()
        if found == wanted:
            return
        if wanted and not self.module.check_mode:
            try:
                self.server.credentials = None
                self.server.query("SHOW DATABASES")
            except InfluxError:
                pass
            else:
                self.fail(
                    f"The database accepts queries without an account, so it will not listen on {listen}: set auth-enabled."
                )
        local = f"127.0.0.1:{self.wanted['port']}"
        self.change("address", found.strip().partition("=")[2] or local, listen or local)
        self.listen_changed = True
        if self.module.check_mode:
            return
        if not wanted:
            os.remove(path)
            return
        handle, temporary = tempfile.mkstemp(dir=os.path.dirname(path))
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(wanted)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)

    def converge(self) -> dict:
        self.reach()
        self.log_in()
        self.databases()
        self.users()
        self.set_address()
        return {
            "changed": bool(self.changes),
            "changes": self.changes,
            "listen_changed": self.listen_changed,
            "diff": {"before": listing(self.before), "after": listing(self.after)},
        }


def is_shorter(duration: int, other: int) -> bool:
    """Whether a policy with this duration keeps less than the other; 0 is forever."""
    return duration != 0 and (other == 0 or duration < other)


def listing(state: dict[str, str]) -> str:
    return "".join(f"{what}: {value or '(none)'}\n" for what, value in sorted(state.items()))


def main() -> None:
    retention_policy = {
        "name": {"type": "str", "required": True},
        "duration": {"type": "str", "required": True},
        "shard_duration": {"type": "str"},
        "default": {"type": "bool", "default": False},
    }
    continuous_query = {
        "name": {"type": "str", "required": True},
        "query": {"type": "str"},
        "resample": {"type": "str", "default": ""},
        "backfill": {"type": "bool", "default": False},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    }
    grant = {
        "database": {"type": "str", "required": True},
        "privilege": {"type": "str", "choices": list(PRIVILEGES), "required": True},
    }
    module = AnsibleModule(
        argument_spec={
            "port": {"type": "int", "default": 8086},
            "listen": {"type": "str", "default": ""},
            "listen_file": {"type": "path", "default": "/var/lib/influxdb/listen.env"},
            "configuration": {"type": "path", "default": "/etc/influxdb/influxdb.conf"},
            "timeout": {"type": "int", "default": 60},
            "admin": {
                "type": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "password": {"type": "str", "required": True, "no_log": True},
                },
            },
            "databases": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "name": {"type": "str", "required": True},
                    "retention_policies": {
                        "type": "list",
                        "elements": "dict",
                        "default": [],
                        "options": retention_policy,
                    },
                    "continuous_queries": {
                        "type": "list",
                        "elements": "dict",
                        "default": [],
                        "options": continuous_query,
                    },
                    "purge_continuous_queries": {"type": "str", "default": ""},
                },
            },
            "users": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "name": {"type": "str", "required": True},
                    "password": {"type": "str", "no_log": True},
                    "grants": {"type": "list", "elements": "dict", "default": [], "options": grant},
                    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
                },
            },
        },
        supports_check_mode=True,
    )
    module.exit_json(**Schema(module).converge())


if __name__ == "__main__":
    main()
