#!/usr/bin/env python3
"""Virtual Raspberry Pis: podman containers in which systemd is PID 1 and Ansible comes in over SSH, as it does on a Pi.

Usage:

    pi.py up NAME... [--release trixie] [--publish [HOST:]GUEST[/udp]]... [--state DIR] [--owner-pid PID]
    pi.py down NAME...          remove them (their new .deb files go to the cache first)
    pi.py reboot NAME...        shut down cleanly and start again
    pi.py power-cut NAME...     kill everything in them at once and start again; the file system stays
    pi.py harvest NAME...       copy their downloaded .deb files to the cache now
    pi.py image                 build the image and stop there
    pi.py list [--format json]  list all of them
    pi.py gc                    remove those whose owner is dead

`up` writes to the state directory what is needed to reach the Pi:

    ssh_config     use as `ssh -F DIR/ssh_config NAME` or `ansible_ssh_common_args: -F DIR/ssh_config`
    <alias>.json   {"name", "alias", "hostname", "address", "ports": {"22": 40022, "123/udp": 40123}, "release",
                   "architecture", "image", "ssh_config"}; ports maps the port inside to the one published here
    feed.asc       the public key of the feed that is mounted in the Pi, if there is a feed
    feed.lock      its feed.lock.json, which lists its packages

The Pis of one state directory share a network of their own and reach each other by hostname.

Cache (`$TIG_PI_CACHE`, else `$XDG_CACHE_HOME/tig-pi`, else `~/.cache/tig-pi`):

    images/                        one image per release and architecture, named by a hash of its inputs
    apt/<release>-<architecture>/  downloaded .deb files, seen by every Pi in /var/cache/apt/archives
    feed/<release>-<architecture>/ the package feed, mounted read-only at /srv/tig-pi-feed
"""

from __future__ import annotations

import argparse
import os
import sys

from virtual_pi import Failure, say
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
    sub = command("up", "start virtual Pis, create those that are missing, and wait until they have booted")
    sub.add_argument("--release", default=default_release, choices=RELEASES, help=f"default: $RELEASE or {RELEASES[0]}")
    sub.add_argument(
        "--publish",
        action="append",
        default=[],
        type=parse_publish,
        metavar="[HOST:]GUEST[/udp]",
        help="publish a port on 127.0.0.1: HOST if it is free, else any free one",
    )
    sub.add_argument("--state", metavar="DIR", help="state directory; default: pis/ in the cache")
    sub.add_argument("--alias", default="", help="second name in ssh_config and name of the .json file; default: NAME")
    sub.add_argument("--hostname", default="", help="default: NAME")
    sub.add_argument("--memory", default="", metavar="SIZE", help="limit of memory, e.g. 1g for a Pi 3")
    sub.add_argument(
        "--owner-pid",
        type=int,
        default=os.environ.get("TIG_PI_OWNER_PID") or None,
        metavar="PID",
        help="process with whose end the Pi becomes a left-over (see gc); default: $TIG_PI_OWNER_PID, or none",
    )
    sub.add_argument("--timeout", type=float, default=120, metavar="SECONDS", help="for booting; default: 120")
    command("down", "remove virtual Pis")
    for name, text in (
        ("reboot", "shut down cleanly and start again"),
        ("power-cut", "kill everything at once and start again; the file system stays"),
    ):
        command(name, text).add_argument("--timeout", type=float, default=120, metavar="SECONDS")
    command("harvest", "copy downloaded .deb files to the cache")
    sub = command("image", "build the image if it is missing", names=False)
    sub.add_argument("--release", default=default_release, choices=RELEASES)
    sub = command("list", "show the virtual Pis of this machine", names=False)
    sub.add_argument("--format", default="text", choices=("text", "json"))
    sub = command("gc", "remove virtual Pis whose owner is dead", names=False)
    sub.add_argument("--owned-by", type=int, metavar="PID", help="and what this process owns")
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
                        with lock(cache / "pis.lock", "another run, which is making a Pi"):
                            pi.remove()
                    case "reboot":
                        pi.reboot(options.timeout)
                    case "power-cut":
                        pi.power_cut(options.timeout)
                    case "harvest":
                        say(f"{name}: {pi.harvest()} new .deb files in the cache")


if __name__ == "__main__":
    try:
        main()
    except Failure as failure:
        sys.exit(f"pi.py: {failure}")
    except KeyboardInterrupt:
        sys.exit(130)
