"""The command `grafana`: `server` and `cli admin reset-admin-password`."""

import argparse
import contextlib
import os
import signal
import sys
import threading
import time
from pathlib import Path

from . import NOTICE, VERSION, log, users
from .errors import StartError
from .settings import Settings

_log = log.Logger("server")
_HEAD_START = 0.5  # seconds; in Grafana one or two
_HOME = "/usr/share/grafana"
_CONFIG = "/etc/grafana/grafana.ini"


def _parser() -> argparse.ArgumentParser:
    shared = argparse.ArgumentParser(add_help=False)
    for name in ("--homepath", "--config", "--configOverrides", "--pluginsDir", "--pidfile", "--packaging"):
        shared.add_argument(name, default=argparse.SUPPRESS)
    parser = argparse.ArgumentParser(prog="grafana", description=NOTICE, parents=[shared])
    parser.add_argument("-v", "--version", action="version", version=f"grafana version {VERSION} (a stand-in)")
    commands = parser.add_subparsers(dest="command", required=True)
    server = commands.add_parser("server", parents=[shared], help="run the server")
    server.add_argument("-v", action="store_true", help="print the version and exit", dest="show_version")
    server.add_argument("overrides", nargs="*", help="cfg:section.key=value")
    cli = commands.add_parser("cli", parents=[shared], help="administration")
    admin = cli.add_subparsers(dest="topic", required=True).add_parser("admin", parents=[shared])
    reset = admin.add_subparsers(dest="action", required=True).add_parser("reset-admin-password", parents=[shared])
    reset.add_argument("--password-from-stdin", action="store_true")
    reset.add_argument("--user-id", type=int, default=1)
    reset.add_argument("password", nargs="?")
    return parser


def _settings(arguments: argparse.Namespace) -> Settings:
    overrides = list(getattr(arguments, "overrides", []))
    overrides += getattr(arguments, "configOverrides", "").split()
    home = Path(getattr(arguments, "homepath", _HOME)).resolve()
    return Settings(home, Path(getattr(arguments, "config", _CONFIG)), overrides)


def _serve(arguments: argparse.Namespace) -> None:
    from .application import Application
    from .server import Server

    _log.info("Starting Grafana", version=VERSION, note=NOTICE)
    settings = _settings(arguments)
    log.set_level(settings.text("log", "level", "info"))
    if pidfile := getattr(arguments, "pidfile", ""):
        Path(pidfile).parent.mkdir(parents=True, exist_ok=True)
        Path(pidfile).write_text(f"{os.getpid()}\n")
    application = Application(settings)
    server = Server(application)
    done = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: done.set())
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 3600}, daemon=True).start()
    log.Logger("http.server").info(
        "HTTP Server Listen", address=f"{server.server_address[0]}:{server.server_address[1]}"
    )
    # Like Grafana, the server answers requests such as /api/health while it still reads the provisioning files.
    time.sleep(_HEAD_START)
    application.provision()
    application.scheduler.start()
    done.wait()
    _log.info("Shutdown started", reason="System signal")
    server.socket.close()
    application.close()


def _reset_password(arguments: argparse.Namespace) -> None:
    from .application import open_store

    settings = _settings(arguments)
    password = sys.stdin.readline().rstrip("\r\n") if arguments.password_from_stdin else arguments.password or ""
    if users.is_too_short(password):
        raise StartError("the new password doesn't meet the password policy criteria")
    store = open_store(settings)
    users.create_administrator(store, settings)
    user = next((user for user in store.all("user") if user["login"]), None)
    if user is None:
        raise StartError("could not read user from database. Error: user not found")
    users.set_password(store, user, password)
    store.close()
    print("\nAdmin password changed successfully ✔")


def main() -> int:
    """Run the command and return its exit code."""
    arguments = _parser().parse_args()
    if getattr(arguments, "show_version", False):
        print(f"Version {VERSION} (a stand-in for Grafana)")
        return 0
    try:
        if arguments.command == "server":
            _serve(arguments)
        else:
            _reset_password(arguments)
    except StartError as error:
        if arguments.command == "server":
            with contextlib.suppress(OSError):
                log.Logger("server").error("Stopped reason", error=error)
        print(f"Error: ✗ {error}", file=sys.stderr if arguments.command == "server" else sys.stdout)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
