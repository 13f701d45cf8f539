#!/usr/bin/env python3
"""Manage virtual Raspberry Pis: podman containers that run systemd as PID 1 and that Ansible reaches over SSH, like a Pi.

Usage:

    pi.py up NAME... [--release trixie] [--publish [HOST:]GUEST[/udp]]... [--state DIR] [--owner-pid PID]
    pi.py down NAME...          remove them, after copying their new .deb files to the cache
    pi.py reboot NAME...        shut down cleanly and start again
    pi.py power-cut NAME...     kill all their processes at once and start again; the file system stays
    pi.py isolate NAME...       leave them only this machine and their own network, until they start again
    pi.py harvest NAME...       copy their downloaded .deb files to the cache
    pi.py image                 build the image
    pi.py list [--format json]  list all of them
    pi.py gc                    remove those whose owner is dead

`up` writes what is needed to reach the Pi to the state directory:

    ssh_config     use as `ssh -F DIR/ssh_config NAME` or `ansible_ssh_common_args: -F DIR/ssh_config`
    <alias>.json   {"name", "alias", "hostname", "address", "ports": {"22": 40022, "123/udp": 40123}, "release",
                   "architecture", "image", "ssh_config"}; ports: port of the Pi → published port of this machine
    feed.asc       public key of the feed that is mounted in the Pi, if there is a feed
    feed.lock      list of its packages (feed.lock.json)

The Pis of one state directory share a network and reach each other by hostname.

Cache (`$TIG_PI_CACHE`, else `$XDG_CACHE_HOME/tig-pi`, else `~/.cache/tig-pi`):

    images/                        one image per release and architecture; its name has a hash of its inputs
    apt/<release>-<architecture>/  downloaded .deb files; every Pi has them in /var/cache/apt/archives
    feed/<release>-<architecture>/ the package feed, mounted read-only at /srv/tig-pi-feed
"""

from __future__ import annotations

import argparse
import os

from virtual_pi import run_command, say
from virtual_pi.commands import collect_garbage, show, up
from virtual_pi.container import Pi
from virtual_pi.files import lock
from virtual_pi.host import cache_directory
from virtual_pi.image import RELEASES, Image
from virtual_pi.podman import Podman
from virtual_pi.ports import parse_publish


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(
        prog="pi.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    commands = result.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str, names: bool = True) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        if names:
            sub.add_argument("names", nargs="+", metavar="NAME")
        return sub

    default_release = os.environ.get("RELEASE", RELEASES[0])
    sub = command("up", "create virtual Pis that do not exist, start them, and wait until they have booted")
    sub.add_argument("--release", default=default_release, choices=RELEASES, help=f"default: $RELEASE or {RELEASES[0]}")
    sub.add_argument(
        "--publish",
        action="append",
        default=[],
        type=parse_publish,
        metavar="[HOST:]GUEST[/udp]",
        help="publish a port of the Pi on 127.0.0.1, at port HOST if it is free, else at any free port",
    )
    sub.add_argument("--state", metavar="DIR", help="state directory; default: pis/ in the cache")
    sub.add_argument("--alias", default="", help="second name in ssh_config, and name of the .json file; default: NAME")
    sub.add_argument("--hostname", default="", help="default: NAME")
    sub.add_argument("--memory", default="", metavar="SIZE", help="memory limit, e.g. 1g for a Pi 3")
    sub.add_argument(
        "--owner-pid",
        type=int,
        default=os.environ.get("TIG_PI_OWNER_PID") or None,
        metavar="PID",
        help="process that owns the Pi: gc removes the Pi after its end; default: $TIG_PI_OWNER_PID, or none",
    )
    sub.add_argument("--timeout", type=float, default=120, metavar="SECONDS", help="to boot; default: 120")
    command("down", "remove virtual Pis")
    for name, text in (
        ("reboot", "shut down cleanly and start again"),
        ("power-cut", "kill all processes at once and start again; the file system stays"),
    ):
        command(name, text).add_argument("--timeout", type=float, default=120, metavar="SECONDS")
    command("isolate", "leave them only this machine and their own network, until they start again")
    command("harvest", "copy downloaded .deb files to the cache")
    sub = command("image", "build the image if it is missing", names=False)
    sub.add_argument("--release", default=default_release, choices=RELEASES)
    sub = command("list", "list the virtual Pis of this machine", names=False)
    sub.add_argument("--format", default="text", choices=("text", "json"))
    sub = command("gc", "remove virtual Pis whose owner is dead", names=False)
    sub.add_argument("--owned-by", type=int, metavar="PID", help="remove the Pis that this process owns, too")
    return result


def main() -> None:
    options = parser().parse_args()
    cache = cache_directory()
    podman = Podman(cache)
    match options.command:
        case "up":
            up(podman, cache, options)
        case "image":
            print(Image(podman, cache, options.release).ensure())
        case "list":
            show(podman, options.format == "json")
        case "gc":
            collect_garbage(podman, cache, options.owned_by)
        case _:
            pis = podman.pis()
            for name in options.names:
                if options.command == "down" and name not in pis:
                    continue  # already removed
                pi = Pi.existing(podman, cache, name, pis)
                match options.command:
                    case "down":
                        with lock(cache / "pis.lock", "another run that creates a Pi"):
                            pi.remove()
                    case "reboot":
                        pi.reboot(options.timeout)
                    case "power-cut":
                        pi.power_cut(options.timeout)
                    case "isolate":
                        pi.isolate()
                    case "harvest":
                        say(f"{name}: copied {pi.harvest()} new .deb files to the cache")


if __name__ == "__main__":
    run_command("pi.py", main)
