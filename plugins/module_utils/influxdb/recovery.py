"""Set the administrator's password if nobody can log in: a temporary server opens the accounts, without the points."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator

from ansible_collections.tig_pi.stack.plugins.module_utils.influxdb.client import InfluxError, Server
from ansible_collections.tig_pi.stack.plugins.module_utils.influxdb.influxql import name_of, text_of

# On loopback only, since it needs no password.
CONFIGURATION = """\
reporting-disabled = true
bind-address = "127.0.0.1:{rpc}"
[meta]
dir = "{meta}"
[data]
dir = "{scratch}/data"
wal-dir = "{scratch}/wal"
[retention]
enabled = false
[shard-precreation]
enabled = false
[continuous_queries]
enabled = false
[monitor]
store-enabled = false
[subscriber]
enabled = false
[http]
bind-address = "127.0.0.1:{http}"
auth-enabled = false
log-enabled = false
pprof-enabled = false
"""


def set_admin_password(admin: dict, influxd: str, configuration: str, timeout: float) -> None:
    """Create the administrator, or set the password of the existing one. The service must be stopped.

    Args:
        admin: name and password.
        influxd: path of the server.
        configuration: the service's, which names the directory of the accounts.
        timeout: seconds that the temporary server may take to start.

    Raises:
        InfluxError: the temporary server does not start, or refuses.
    """
    with _temporary_server(influxd, _meta_directory(configuration), timeout) as server:
        name, password = name_of(admin["name"]), text_of(admin["password"])
        if admin["name"] in {row["user"] for row in server.rows("SHOW USERS")}:
            server.query(f"SET PASSWORD FOR {name} = {password}")
            server.query(f"GRANT ALL PRIVILEGES TO {name}")
        else:
            server.query(f"CREATE USER {name} WITH PASSWORD {password} WITH ALL PRIVILEGES")


@contextlib.contextmanager
def _temporary_server(influxd: str, meta: str, timeout: float) -> Iterator[Server]:
    owner = pwd.getpwuid(os.stat(meta).st_uid)
    scratch = tempfile.mkdtemp(prefix="influxdb-schema-")
    process = None
    try:
        account = {}
        if os.geteuid() == 0:
            os.chown(scratch, owner.pw_uid, owner.pw_gid)
            account = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
        http, rpc = _free_port(), _free_port()
        configuration = os.path.join(scratch, "influxdb.conf")
        with open(configuration, "w", encoding="utf-8") as file:
            file.write(CONFIGURATION.format(meta=meta, scratch=scratch, http=http, rpc=rpc))
        os.chmod(configuration, 0o644)
        log = os.path.join(scratch, "log")
        with open(log, "wb") as output:
            process = subprocess.Popen(
                [influxd, "-config", configuration],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={"PATH": os.environ.get("PATH", ""), "HOME": scratch},
                cwd=scratch,
                **account,
            )
        server = Server("127.0.0.1", http)
        end = time.monotonic() + timeout
        while not server.answers():
            if process.poll() is not None or time.monotonic() > end:
                with open(log, encoding="utf-8", errors="replace") as file:
                    raise InfluxError(f"the temporary server does not start: {file.read()[-2000:]}")
            time.sleep(0.05)
        yield server
    finally:
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(scratch, ignore_errors=True)


def _meta_directory(configuration: str) -> str:
    """The directory of the accounts, as the configuration names it."""
    section = ""
    with open(configuration, encoding="utf-8") as file:
        for line in file:
            line = line.strip()
            if line.startswith("["):
                section = line.strip("[] ")
            elif section == "meta" and re.match(r"dir\s*=", line):
                return line.split("=", 1)[1].split("#")[0].strip().strip("\"'")
    return "/var/lib/influxdb/meta"


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
