"""A network of the test on loopback: a real Mosquitto, a time server, a connection to break, a device."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import paho.mqtt.client as mqtt

from chain import Program, free_port, libraries, program
from firmware import FIRMWARE, MICROPYTHON, write_loader
from firmware.board import Board

SECRETS = ("wifi-geheim", "broker-geheim")
NAME = "matslopy4"
COUNTER = '''"""Numbers the readings of a test, each of which takes "takes_ms"."""

import time

QUANTITIES = {"number": (0, 1000000, 0)}


class Sensor:
    number = 0

    def __init__(self, board, config):
        self._takes_ms = config.get("takes_ms", 0)

    def read(self):
        time.sleep_ms(self._takes_ms)
        Sensor.number += 1
        return {"number": Sensor.number - 1}
'''
COUNTING = [{"driver": "counter", "fields": {"number": "number"}}]


def until(condition: Callable, seconds: float = 20, what: str = ""):
    """Wait for a condition; its value."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds} s: {what or condition}")


class Broker:
    """A Mosquitto with accounts and an ACL as the project's own has them."""

    def __init__(self, folder: Path, persistent: bool = True):
        self.folder = folder
        self.port = free_port()
        folder.mkdir()
        folder.chmod(0o755)
        self.passwords = folder / "passwords"
        self.account(NAME, SECRETS[1])
        self.account("listener", "listener")
        self.account("operator", "operator")
        (folder / "acl").write_text(
            f"user {NAME}\n"
            f"topic write tig/{NAME}/reading\ntopic write tig/{NAME}/status\ntopic write tig/{NAME}/crash\n"
            f"topic write tig/{NAME}/answer\ntopic read tig/{NAME}/command\n"
            "user listener\ntopic read tig/#\n"
            "user operator\ntopic write tig/+/command\ntopic read tig/+/answer\ntopic read tig/+/status\n"
        )
        (folder / "mosquitto.conf").write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous false\nuser {os.environ.get('USER') or 'root'}\n"
            f"password_file {self.passwords}\nacl_file {folder}/acl\nmax_queued_messages 10000\n"
            f"persistence {str(persistent).lower()}\npersistence_location {folder}/\n"
            "autosave_on_changes true\nautosave_interval 1\n"
        )
        self.process = None

    def account(self, name: str, password: str) -> None:
        create = [] if self.passwords.exists() else ["-c"]
        command = [program("mosquitto_passwd", "mosquitto"), "-b", *create, str(self.passwords), name, password]
        subprocess.run(command, env={**os.environ, **libraries(command[0])}, check=True)

    def start(self) -> None:
        command = [program("mosquitto", "mosquitto"), "-c", str(self.folder / "mosquitto.conf")]
        broker = Program(command, self.folder / "log")
        broker.start()
        self.process = broker.process
        until(self._answers, what="mosquitto listens")

    def _answers(self) -> bool:
        assert self.process.poll() is None, (self.folder / "log").read_text()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False

    def reload(self) -> None:
        self.process.send_signal(signal.SIGHUP)

    def stop(self, kill: bool = False) -> None:
        if self.process:
            self.process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
            self.process.wait(10)
            self.process = None


class Listener:
    """What arrives at the broker."""

    def __init__(self, broker: Broker):
        self.messages: list[tuple[str, dict, bool]] = []
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="listener", clean_session=False)
        self.client.username_pw_set("listener", "listener")
        self.client.reconnect_delay_set(1, 1)
        ready = threading.Event()
        self.client.on_connect = lambda client, *_: client.subscribe("tig/#", qos=1)
        self.client.on_subscribe = lambda *_: ready.set()
        self.client.on_message = self._take
        self.client.connect("127.0.0.1", broker.port)
        self.client.loop_start()
        assert ready.wait(10)

    def _take(self, _client, _data, message) -> None:
        branch = message.topic.split("/", 2)[2]
        if branch == "command":
            return  # for the device, and not always JSON
        self.messages.append((branch, json.loads(message.payload), message.retain))

    def of(self, branch: str) -> list[dict]:
        return [message for kind, message, _ in list(self.messages) if kind == branch]

    @property
    def readings(self) -> list[dict]:
        return self.of("reading")

    @property
    def status(self) -> dict:
        found = self.of("status")
        return found[-1] if found else {}

    @property
    def numbers(self) -> list[int]:
        return [reading["number"] for reading in self.readings]

    def lost(self) -> set[int]:
        return set(range(max(self.numbers, default=-1) + 1)) - set(self.numbers)

    def duplicated(self) -> int:
        return sum(count - 1 for count in Counter(self.numbers).values())

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


class TimeServer(threading.Thread):
    """An NTP server: `mode` is ok, silent, unsynchronised (leap indicator 3), unset (a transmit time of 0) or ancient (1970).

    Its time passes `speed` times as fast, as that of a device may; otherwise a device that starts again would be in the past.
    """

    def __init__(self, mode: str = "ok", speed: float = 1):
        super().__init__(daemon=True)
        self.mode = mode
        self.set_speed(speed)
        self.asked = 0
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.start()

    def set_speed(self, speed: float) -> None:
        now = self.now() if hasattr(self, "speed") else time.time()
        self.since, self.then, self.speed = time.time(), now, speed

    def now(self) -> float:
        return self.then + (time.time() - self.since) * self.speed

    def run(self) -> None:
        while True:
            try:
                question, sender = self.socket.recvfrom(100)
            except OSError:
                return
            if not question:
                return
            self.asked += 1
            if self.mode == "silent":
                continue
            now = (0 if self.mode == "ancient" else self.now()) + 2208988800
            first = 0xE4 if self.mode == "unsynchronised" else 0x24
            stamp = bytes(8) if self.mode == "unset" else struct.pack(">II", int(now), int(now % 1 * 2**32))
            answer = struct.pack(">BBbb12x", first, 2, 0, -20) + stamp + question[40:48] + stamp + stamp
            self.socket.sendto(answer, sender)

    def close(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.sendto(b"", ("127.0.0.1", self.port))
        self.join(5)
        self.socket.close()


class Path2Broker(threading.Thread):
    """A TCP relay in the device's way to the broker.

    `mode`: "pass"; "swallow" (both ends stay open, nothing gets through: half-open); "deaf" (what the broker answers is
    lost). `cut_after` closes a connection after that many bytes of the device's.
    """

    def __init__(self, port: int):
        super().__init__(daemon=True)
        self.target = port
        self.mode = "pass"
        self.cut_after: int | None = None
        self.sent: list[bytearray] = []  # per connection, what the device sent
        self.sockets: list[socket.socket] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.start()

    def run(self) -> None:
        while True:
            try:
                device, _ = self.listener.accept()
            except OSError:
                return
            try:
                broker = socket.create_connection(("127.0.0.1", self.target), timeout=5)
            except OSError:
                device.close()
                continue
            self.sockets += [device, broker]
            record = bytearray()
            self.sent.append(record)
            threading.Thread(target=self._relay, args=(device, broker, record), daemon=True).start()
            threading.Thread(target=self._relay, args=(broker, device, None), daemon=True).start()

    def _relay(self, source, target, record) -> None:
        try:
            while data := source.recv(4096):
                if record is not None and self.cut_after is not None and len(record) + len(data) >= self.cut_after:
                    target.sendall(data[: self.cut_after - len(record)])
                    break
                if record is not None:
                    record += data
                if self.mode == "pass" or (self.mode == "deaf" and record is not None):
                    target.sendall(data)
                elif self.mode == "swallow":
                    time.sleep(0.01)
        except OSError:
            pass
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def break_all(self) -> None:
        for end in self.sockets:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.break_all()
        for end in self.sockets:
            end.close()


class Device:
    """The program on a MicroPython with the virtual board's hardware; its clock runs `speed` times as fast."""

    def __init__(self, folder: Path, speed: float = 20, profile: str = "pycom"):
        self.folder = folder
        self.speed = speed
        self.board = Board(profile, speed)
        folder.mkdir()
        write_loader(folder)
        shutil.copytree(FIRMWARE / "lib", folder / "a" / "lib", ignore=shutil.ignore_patterns("__pycache__"))
        (folder / "a/lib/tig/drivers/counter.py").write_text(COUNTER)
        (folder / "a/manifest.json").write_text('{"version": "1.0.0", "files": {}}')
        self.process = None

    def settings(self, broker_port: int, time_port: int, sensors=COUNTING, **more) -> None:
        settings = {
            "name": NAME,
            "topic": f"tig/{NAME}",
            "interval": 15,
            "send_delay": 0,
            "ring": 500,
            "watchdog": 120,
            "wifi": {"ssid": "home", "password": SECRETS[0]},
            "broker": {"host": "127.0.0.1", "port": broker_port, "user": NAME, "password": SECRETS[1]},
            "time": {"server": "127.0.0.1", "port": time_port, "zone": "CET-1CEST,M3.5.0,M10.5.0/3"},
            "sensors": sensors,
            **more,
        }
        (self.folder / "a/settings.json").write_text(json.dumps(settings))

    def start(self) -> None:
        with (self.folder / "console").open("ab") as console:
            self.process = subprocess.Popen(
                [MICROPYTHON, "main.py"],
                cwd=self.folder,
                env=self.board.environment(),
                stdout=console,
                stderr=console,
            )

    def wrote(self) -> bool:
        """Whether readings are in the flash: those of the first ten minutes at least."""
        return any(page.stat().st_size for page in self.folder.glob("readings/*/*"))

    @property
    def console(self) -> str:
        file = self.folder / "console"
        return file.read_text(errors="replace") if file.exists() else ""

    def stop(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait(10)
            self.process = None
            self.board.next_reset = "power_on"
        for secret in SECRETS:
            assert secret not in self.console

    def close(self) -> None:
        try:
            self.stop()
        finally:
            self.board.close()
