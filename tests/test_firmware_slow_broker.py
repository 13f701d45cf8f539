"""A broker that takes its time: every message arrives, few of them twice, and a dead connection is still noticed."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
import time

import pytest
from firmware.network import Device, TimeServer, until

pytestmark = pytest.mark.slow

SPEED = 20
BUSY = 1  # connections that a busy machine may cost, on which a ping is answered late
CONNECT, PUBLISH, SUBSCRIBE, PINGREQ = 1, 3, 8, 12


class SlowBroker:
    """A broker that acknowledges a message `late` seconds of the device's clock after it came.

    `slow`: "puback", only that is late, as behind a bridge; "all", nothing is answered sooner, as on a card that takes so long
    to write. It may fall silent for good.
    """

    def __init__(self, late: float, slow: str):
        self.late, self.slow = late / SPEED, slow
        self.silent = False
        self.readings: list[int] = []  # as they came
        self.acknowledged: list[int] = []
        self.connections = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self.listener.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        stream = peer.makefile("rb")
        with contextlib.suppress(OSError, struct.error, IndexError):
            while True:
                kind = stream.read(1)[0]
                length = shift = 0
                while True:
                    byte = stream.read(1)[0]
                    length |= (byte & 0x7F) << shift
                    shift += 7
                    if byte < 0x80:
                        break
                self._answer(peer, kind >> 4, stream.read(length))

    def _answer(self, peer: socket.socket, kind: int, body: bytes) -> None:
        arrived: int | None = None
        answer = {
            CONNECT: b"\x20\x02\x00\x00",
            SUBSCRIBE: b"\x90\x03" + body[:2] + b"\x01",
            PINGREQ: b"\xd0\x00",
        }.get(kind)
        if kind == PUBLISH:
            end = 2 + struct.unpack(">H", body[:2])[0]
            answer = b"\x40\x02" + body[end : end + 2]
            if body[:end].endswith(b"/reading"):
                arrived = json.loads(body[end + 2 :])["number"]
                self.readings.append(arrived)

        def say() -> None:
            if self.silent:
                return
            with contextlib.suppress(OSError):
                peer.sendall(answer)
                if arrived is not None:
                    self.acknowledged.append(arrived)

        if kind == PUBLISH or self.slow == "all":
            threading.Timer(self.late, say).start()
        else:
            say()


@pytest.mark.parametrize("slow", ["puback", "all"])
@pytest.mark.parametrize("late", [11, 60])
def test_a_slow_broker_gets_every_message(tmp_path, late, slow):
    broker, time_server, device = SlowBroker(late, slow), TimeServer(), Device(tmp_path / "device", SPEED)
    try:
        # The status takes its turn with the readings, each in the time that the broker takes.
        device.settings(broker.port, time_server.port, interval=max(15, 3 * late))
        device.start()
        until(lambda: len(set(broker.acknowledged)) >= 3, 60, device.console)
        numbers = broker.readings
        assert sorted(set(numbers)) == list(range(max(numbers) + 1)), numbers  # none is missing
        # One that answers nothing is given up while it is not yet known how slow it is: after 10, 20 and 40 seconds.
        drops = BUSY + (3 if slow == "all" else 0)
        assert broker.connections <= 1 + drops, device.console
        assert len(numbers) - len(set(numbers)) <= drops
        before = broker.connections
        broker.silent = True
        started = time.monotonic()
        until(lambda: broker.connections > before, 30, device.console)
        assert (
            time.monotonic() - started
        ) * SPEED < 250  # twice what it took, half the keep-alive, a pause; a busy machine
    finally:
        device.close()
        broker.listener.close()
        time_server.close()


def test_a_broker_slower_than_the_interval_gets_readings_too_and_not_only_the_status(tmp_path):
    broker, time_server, device = SlowBroker(60, "puback"), TimeServer(), Device(tmp_path / "device", SPEED)
    try:
        device.settings(broker.port, time_server.port, interval=5, ring=3)
        device.start()
        until(lambda: len(set(broker.acknowledged)) >= 3, 40, device.console)
        assert broker.connections <= 1 + BUSY, device.console
        assert broker.acknowledged == sorted(broker.acknowledged)
    finally:
        device.close()
        broker.listener.close()
        time_server.close()
