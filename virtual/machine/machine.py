#!/usr/bin/env python3
"""Boot a card in a virtual machine, and cut its power: qemu, with a kernel and a file system of its own, and SSH like a Pi.

Usage:

    machine.py image               build the image that is written to cards, and print its path
    machine.py create DIR          a machine in this state directory, off, with a blank card [--publish [HOST:]GUEST[/udp]]...
    machine.py on DIR              boot the card, and wait until everything has started
    machine.py cut DIR             cut the power
    machine.py remove DIR          cut the power, and remove the machine with its card

The state directory has the files of a virtual Pi's (see pi.py), for a Pi called `pi`, and

    image.img     the image for the card, with its hash in image.sha256
    card.img      the card, blank until the image is written to it
    console.log   what the kernel and systemd wrote to the console, of all boots

`pi.py gc` ends the machines whose owner, $TIG_PI_OWNER_PID, has ended.
"""

from __future__ import annotations

import argparse
import pathlib

from virtual_machine.image import ARCHITECTURE, RELEASE, CardImage
from virtual_machine.machine import Machine
from virtual_pi import run_command
from virtual_pi.host import cache_directory
from virtual_pi.podman import Podman
from virtual_pi.ports import parse_publish


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(
        prog="machine.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    commands = result.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("image", help="build the image that is written to cards, if it is missing, and print its path")
    for name, text in (
        ("create", "a machine that is off, with a blank card"),
        ("on", "boot the card, and wait until everything has started"),
        ("cut", "cut the power"),
        ("remove", "cut the power, and remove the machine with its card"),
    ):
        sub = commands.add_parser(name, help=text, description=text)
        sub.add_argument("state", type=lambda text: pathlib.Path(text).resolve(), metavar="DIR", help="state directory")
        if name == "create":
            sub.add_argument("--publish", action="append", default=[], type=parse_publish, metavar="[HOST:]GUEST[/udp]")
        if name == "on":
            sub.add_argument("--memory", type=int, default=768, metavar="MB", help="default: 768")
            sub.add_argument("--timeout", type=float, default=600, metavar="SECONDS", help="to boot; default: 600")
    return result


def main() -> None:
    options = parser().parse_args()
    cache = cache_directory()
    match options.command:
        case "image":
            print(CardImage(Podman(cache), cache).ensure())
        case "create":
            feed = cache / "feed" / f"{RELEASE}-{ARCHITECTURE}"
            Machine(options.state).create(CardImage(Podman(cache), cache), feed, options.publish)
        case "on":
            Machine(options.state).switch_on(options.memory, options.timeout)
        case "cut":
            Machine(options.state).cut()
        case "remove":
            Machine(options.state).remove()


if __name__ == "__main__":
    run_command("machine.py", main)
