#!/usr/bin/env python3
"""A LoPy4 made of software on a pseudo-terminal: run one, control a running one, make firmware files.

lopy4.py run --dir STATE [--profile pycom|mainline] [--link PATH] [--baud 115200] [--unpaced] [--setting NAME=VALUE …]
lopy4.py ctl STATE status
lopy4.py ctl STATE sensor dht11 fault=checksum
lopy4.py ctl STATE set outsidetemp=25
lopy4.py ctl STATE wifi down     (ntp down, unplug [after_bytes=N], plug, power-cut [at_block_write=N], reset, …)
lopy4.py image --profile pycom --release 1.20.2.r6 FILE
"""

import argparse
import json
import os
import signal
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from virtual_lopy4 import Control, Device, flash
from virtual_lopy4.control import COMMANDS

# Commands whose first argument may be given without its name.
FIRST = {
    "sensor": "name",
    "wifi": "state",
    "ntp": "state",
    "speed": "factor",
}


def value(text):
    """A number where it looks like one, else the text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def settings(words):
    found = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            raise SystemExit(f"lopy4.py: say NAME=VALUE, not '{word}'")
        found[name] = text if name in ("wifi_ssid", "wifi_password", "mac", "release", "name") else value(text)
    return found


def run(arguments):
    chosen = {}
    if arguments.settings and os.path.exists(arguments.settings):
        with open(arguments.settings, encoding="utf-8") as file:
            chosen = json.load(file)
    chosen.update(settings(arguments.setting))
    if arguments.speed is not None:
        chosen["speed"] = arguments.speed
    device = Device(
        arguments.dir,
        profile=arguments.profile,
        paced=not arguments.unpaced,
        baud=arguments.baud,
        link=arguments.link,
        micropython=arguments.micropython,
        **chosen,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: device.quit())
    notify(device)
    device.run()


def notify(device):
    """Notify systemd (Type=notify) when the port is there."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    import socket
    import threading

    def wait():
        device.ready.wait()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"READY=1", "\0" + address[1:] if address[0] == "@" else address)

    threading.Thread(target=wait, daemon=True).start()


def ctl(arguments):
    if arguments.command not in COMMANDS:
        raise SystemExit(
            "lopy4.py: there is no command '{}'; available: {}".format(arguments.command, ", ".join(COMMANDS))
        )
    given = {}
    for index, word in enumerate(arguments.words):
        name, equals, text = word.partition("=")
        if equals:
            given[name.lstrip("-").replace("-", "_")] = text if arguments.command == "wifi" else value(text)
        elif index == 0 and arguments.command in FIRST:
            given[FIRST[arguments.command]] = word
        else:
            raise SystemExit(f"lopy4.py: say NAME=VALUE, not '{word}'")
    try:
        control = Control(arguments.dir)
        answer = control(arguments.command, **given)
    except OSError:
        raise SystemExit(f"lopy4.py: no virtual LoPy4 runs with its state in {arguments.dir}") from None
    except ValueError as error:
        raise SystemExit(f"lopy4.py: {error}") from None
    if isinstance(answer, str):
        print(answer, end="")
    elif answer is not None:
        print(json.dumps(answer, indent=2))


def image(arguments):
    data = flash.archive(arguments.release) if arguments.profile == "pycom" else flash.mainline_image(arguments.release)
    with open(arguments.file, "wb") as file:
        file.write(data)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("run", help="run a device until it is ended")
    command.add_argument("--dir", required=True, help="directory of its state: flash.bin, control, port, log")
    command.add_argument("--profile", choices=("pycom", "mainline"), default="pycom", help="firmware of a new device")
    command.add_argument("--link", help="symbolic link to the port")
    command.add_argument("--baud", type=int, default=115200)
    command.add_argument("--unpaced", action="store_true", help="the serial line takes no time")
    command.add_argument("--speed", type=float, help="device seconds per second; 0: sleeping takes no time")
    command.add_argument("--micropython", help="shared library of MicroPython (default: the installed wheel's)")
    command.add_argument("--setting", action="append", default=[], metavar="NAME=VALUE", help="see README.md")
    command.add_argument(
        "--settings", metavar="FILE", help="the same as JSON, where nobody reads them in the process list"
    )
    command.set_defaults(function=run)
    command = commands.add_parser("ctl", help="do something to a running device")
    command.add_argument("dir")
    command.add_argument("command")
    command.add_argument("words", nargs="*", metavar="NAME=VALUE")
    command.set_defaults(function=ctl)
    command = commands.add_parser("image", help="write a placeholder for a firmware release")
    command.add_argument("--profile", choices=("pycom", "mainline"), default="pycom")
    command.add_argument("--release")
    command.add_argument("file", help="Pycom's archive (.tar.gz), or the combined image (.bin)")
    command.set_defaults(function=image)
    arguments = parser.parse_args()
    arguments.function(arguments)


if __name__ == "__main__":
    main()
