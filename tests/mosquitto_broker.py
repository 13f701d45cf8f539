"""A broker on a private loopback port, with the role's own configuration, accounts and topics, and clients that talk to it."""

from __future__ import annotations

import os
import queue
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import paho.mqtt.client as mqtt
import yaml
from ansible_collections.tig_pi.stack.plugins.filter import mosquitto as filters
from chain import Program, _reachable, _user, free_port, program, render, wait_until
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from project import REPOSITORY

ROLE = REPOSITORY / "roles/mosquitto"


def compile_plugin(plugin: Path, compiler: str) -> None:
    """The role's plugin, made by the role's program, which finds this compiler and no other."""
    only = plugin.parent / compiler
    only.mkdir()
    (only / compiler).symlink_to(program(compiler, compiler))
    others = os.environ["PATH"] if compiler == "gcc" else ""  # gcc calls others, tcc does not
    command = [sys.executable, ROLE / "files/mosquitto-plugin", ROLE / "files/mosquitto-accounts.c", plugin]
    subprocess.run(command, env={**os.environ, "PATH": f"{only}:{others}"}, check=True)


class Broker:
    """Mosquitto as the role configures it, except for where it listens and where its files are."""

    def __init__(self, directory: Path, accounts: list[dict], **variables) -> None:
        self.directory = directory
        self.port = free_port()
        self.variables = {
            **yaml.safe_load((ROLE / "defaults/main.yml").read_text(encoding="utf-8")),
            "ansible_managed": "Ansible managed",
            "__mosquitto_password_file": str(directory / "passwd"),
            "__mosquitto_acl_file": str(directory / "acl"),
            "__mosquitto_accounts_file": str(directory / "accounts"),
            "__mosquitto_plugin": str(directory / "accounts.so"),
            "mosquitto_listeners": [{"port": self.port, "address": "127.0.0.1"}],
            "mosquitto_password_iterations": 1,
            **variables,
        }
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "store").mkdir()
        compile_plugin(directory / "accounts.so", "gcc" if shutil.which("gcc") else "tcc")
        self.configure(accounts)
        text = render(ROLE / "templates/mosquitto.conf.j2", self.variables)
        text = text.replace("/var/lib/mosquitto/", f"{directory}/store/").replace("/run/mosquitto/", f"{directory}/")
        (directory / "mosquitto.conf").write_text(f"{text}user {_user()}\n")
        self.process = Program(
            [program("mosquitto", "mosquitto"), "-c", f"{directory}/mosquitto.conf"], directory / "mosquitto.log"
        )

    def configure(self, accounts: list[dict]) -> None:
        """Write the files that a reload reads. An account's password is its name."""
        accounts = [{"password": account["name"], **account} for account in accounts]
        for name, content in (
            ("passwd", filters.mosquitto_password_file(accounts, "here", 1)),
            ("acl", filters.mosquitto_acl_file(accounts)),
            ("accounts", filters.mosquitto_accounts_file(accounts, "here", 1)),
        ):
            (self.directory / name).write_text(content)
            (self.directory / name).chmod(0o600)

    def log(self) -> str:
        return (self.directory / "mosquitto.log").read_text(errors="replace")

    def start(self) -> None:
        self.process.start()
        wait_until(lambda: _reachable(self.port), f"the broker runs ({self.log()[-300:]})")

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        self.process.stop(how)

    def restart(self) -> None:
        self.stop()
        self.start()

    def reload(self) -> None:
        self.process.process.send_signal(signal.SIGHUP)
        self.settle()

    def save(self) -> None:
        """Have it write its store now, as it does every autosave_interval seconds."""
        self.process.process.send_signal(signal.SIGUSR1)
        self.settle()

    def settle(self) -> None:
        """Wait until it has been round its loop, its signals and its sessions that are due: it looks for them once a second."""
        time.sleep(1.1)


class Client:
    """One MQTT client: what it was told at the connect, and what it has received since."""

    def __init__(
        self,
        broker: Broker,
        account: str,
        client_id: str = "",
        persistent: bool = False,
        version: int = mqtt.MQTTv311,
        expiry: int = 0xFFFFFFFF,
        password: str | None = None,
    ) -> None:
        self.received: queue.Queue = queue.Queue()
        self.answers: queue.Queue = queue.Queue()
        options, connect = {}, {}
        if version == mqtt.MQTTv5:
            connect["clean_start"] = not persistent
            if persistent:
                connect["properties"] = Properties(PacketTypes.CONNECT)
                connect["properties"].SessionExpiryInterval = expiry
        else:
            options["clean_session"] = not persistent
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id, protocol=version, **options)
        self.client.username_pw_set(account, password or account)
        self.client.on_connect = lambda _c, _u, flags, reason, _p: self.answers.put(
            (str(reason), flags.session_present)
        )
        self.client.on_subscribe = lambda _c, _u, _m, reasons, _p: self.answers.put(
            ("subscribed", [*map(str, reasons)])
        )
        self.client.on_message = lambda _c, _u, message: self.received.put((message.topic, message.payload.decode()))
        self.client.on_disconnect = lambda *_: setattr(self, "put_out", True)
        self.put_out = False
        self.client.connect("127.0.0.1", broker.port, keepalive=30, **connect)
        self.client.loop_start()
        self.answer, self.session_present = self.answers.get(timeout=10)

    def subscribe(self, topic: str) -> Client:
        self.client.subscribe(topic, qos=1)
        assert self.answers.get(timeout=10)[0] == "subscribed"
        return self

    def granted(self) -> list[str]:
        """What the broker has answered to a subscribe, topic by topic."""
        return self.answers.get(timeout=10)[1]

    def publish(self, topic: str, *payloads: str, retain: bool = False) -> list[str]:
        """Publish at QoS 1; what was acknowledged."""
        sent = [(payload, self.client.publish(topic, payload, qos=1, retain=retain)) for payload in payloads]
        for _, message in sent:
            message.wait_for_publish(10)
        return [payload for payload, message in sent if message.is_published()]

    def payloads(self, seconds: float = 0.5) -> list[str]:
        """All that has come, once nothing more comes."""
        found = []
        while True:
            try:
                found.append(self.received.get(timeout=seconds)[1])
            except queue.Empty:
                return found

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def vanish(self) -> None:
        """Go as one whose power was cut: the broker is not told."""
        self.client.loop_stop()
        self.client.socket().close()
