"""The device's MQTT client against brokers that misbehave, and the pauses between attempts."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import pytest
from chain import free_port
from firmware.network import Device, TimeServer, until

from firmware import evaluate

WELCOME = b"\x20\x02\x00\x00"
CLIENT = """
import time
from tig.mqtt import Client, MqttError
import socket
client = Client("me", "name", "hush", 60, "t/status", b"offline")
started = time.ticks_ms()
try:
    client.connect(socket.getaddrinfo("127.0.0.1", data["port"])[0][-1])
    while not client.ready:
        client.step()
    result = "welcome"
    if data["publish"]:
        client.publish("t/reading", b"x" * 200)
        while not client.step():
            time.sleep_ms(2)
        result = "arrived"
    if data["idle"]:
        while True:
            client.step()
            time.sleep_ms(100)
except MqttError as e:
    result = str(e)
except OSError as e:
    result = "OSError"
client.close()
result = [result, time.ticks_diff(time.ticks_ms(), started) // 1000]
"""


class Speaker:
    """A broker that says what it is told to: `answers` is sent at once, one item per packet that comes in."""

    def __init__(self, *answers: bytes, close: bool = False):
        self.answers, self.close_after = list(answers), close
        self.heard = b""
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        self.listener.settimeout(20)
        peer, _ = self.listener.accept()
        with peer:
            peer.settimeout(20)
            for answer in self.answers:
                self.heard += peer.recv(4096)
                with contextlib.suppress(OSError):  # who has heard enough may go
                    for i in range(0, len(answer), 3):  # in pieces, as TCP may
                        peer.sendall(answer[i : i + 3])
                        time.sleep(0.002)
            if not self.close_after:
                try:
                    while data := peer.recv(4096):
                        self.heard += data
                except OSError:
                    pass

    def play(self, publish=False, idle=False):
        try:
            return evaluate(CLIENT, {"port": self.port, "publish": publish, "idle": idle}, speed=20)
        finally:
            self.listener.close()
            self.thread.join(25)


def test_the_first_packet_is_as_the_standard_has_it():
    speaker = Speaker(WELCOME)
    assert speaker.play()[0] == "welcome"
    will = b"\x00\x08t/status" + b"\x00\x07offline"
    body = b"\x00\x04MQTT\x04\xec\x00\x3c" + b"\x00\x02me" + will + b"\x00\x04name" + b"\x00\x04hush"
    assert speaker.heard == b"\x10" + bytes([len(body)]) + body


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"\x20\x02\x00\x05", "refused: not authorised"),
        (b"\x20\x02\x00\x04", "refused: user name or password"),
        (b"\x20\x02\x00\x03", "refused: server unavailable"),
        (b"\x20\x02\x00\x77", "refused: code 119"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "not MQTT"),
        (b"\x40\x02\x00\x01", "not MQTT"),  # an acknowledgement before the welcome
        (b"\x20\xff\xff\xff\xff\x01", "not MQTT"),  # a length of more than four bytes
        (b"\x20\x80\x08" + bytes(1024), "not MQTT"),  # a length beyond all reason
    ],
)
def test_an_answer_that_is_no_welcome_is_an_error(answer, words):
    assert Speaker(answer).play()[0] == words


def test_a_broker_that_closes_is_noticed_at_once():
    found, seconds = Speaker(b"", close=True).play()
    assert found in ("closed by the broker", "OSError")
    assert seconds <= 3


def test_a_broker_that_never_answers_is_given_up():
    found, seconds = Speaker().play()
    assert found == "broker is silent"
    assert 10 <= seconds <= 13


def test_an_acknowledgement_for_another_message_is_none():
    found, seconds = Speaker(WELCOME, b"\x40\x02\x12\x34").play(publish=True)
    assert found == "broker is silent"
    assert 10 <= seconds <= 13


def test_publish_and_its_acknowledgement():
    speaker = Speaker(WELCOME, b"\x40\x02\x00\x01")
    assert speaker.play(publish=True)[0] == "arrived"
    assert speaker.heard.endswith(b"\x32\xd5\x01" + b"\x00\x09t/reading" + b"\x00\x01" + b"x" * 200)


def test_an_acknowledgement_that_is_late_is_waited_for_while_the_broker_answers_pings():
    answers = [WELCOME, b""] + [b"\xd0\x00"] * 4 + [b"\xd0\x00\x40\x02\x00\x01"]
    speaker = Speaker(*answers)
    found, seconds = speaker.play(publish=True)
    assert found == "arrived"
    assert seconds >= 25  # a ping every five seconds
    assert speaker.heard.count(b"\xc0\x00") == 5


PATIENCE = """
from tig import mqtt
now = 0
mqtt.time.ticks_ms = lambda: now

class Socket:
    def __getattr__(self, name):
        return lambda *_: None
    def send(self, data):
        sent.append(bytes(data[:1]))
        return len(data)
    def recv(self, size):
        if heard:
            return heard.pop(0)
        raise OSError(11)

class Sockets:
    AF_INET = SOCK_STREAM = 0
    def socket(self, *_):
        return Socket()

mqtt.socket = Sockets()
client = mqtt.Client("me", "", "", 60, "t", b"")
result = []
for seconds, answer in data:
    # a message to a broker that welcomes at once, and acknowledges after so long or never
    sent = []
    heard = [b"\\x20\\x02\\x00\\x00"]
    client.connect(None)
    client.step()
    client.publish("t", b"")
    started = now
    said = None
    while said is None:
        now += 100
        if answer and now - started >= seconds * 1000:
            heard.append(b"\\x40\\x02" + bytes([client.pending >> 8, client.pending & 255]))
        elif not answer and now - started >= seconds * 1000:
            heard.append(b"\\xd0\\x00")
        try:
            if client.step():
                said = "arrived"
        except mqtt.MqttError as e:
            said = str(e)
    result.append([said, (now - started) // 1000, sent.count(b"\\xc0")])
"""


def test_a_broker_that_answers_nothing_in_time_is_given_twice_as_much_the_next_time():
    answers = evaluate(PATIENCE, [[60, True]] * 5 + [[1, True], [999, True]])
    waited = [(said, seconds) for said, seconds, _ in answers]
    assert waited == [
        *[("broker is silent", seconds) for seconds in (10, 20, 40)],
        ("arrived", 60),
        ("arrived", 60),
        ("arrived", 1),
        ("broker is silent", 10),  # it is quick again
    ]
    assert all(pings <= 1 for _, _, pings in answers)  # one that is not answered is not followed by another


def test_patience_has_an_end():
    answers = evaluate(PATIENCE, [[9999, True]] * 7)
    assert [seconds for _, seconds, _ in answers] == [10, 20, 40, 80, 160, 160, 160]


def test_a_broker_that_answers_pings_and_never_acknowledges_is_given_up_too():
    assert evaluate(PATIENCE, [[0, False]])[0][:2] == ["no acknowledgement", 600]


def test_a_message_that_nobody_asked_for_is_passed_over():
    stray = b"\x30\x07\x00\x03t/xhi"
    assert Speaker(WELCOME, stray + b"\x40\x02\x00\x01").play(publish=True)[0] == "arrived"


def test_an_idle_connection_is_tried_by_ping_and_given_up_when_nothing_answers():
    speaker = Speaker(WELCOME)
    found, seconds = speaker.play(idle=True)
    assert found == "broker is silent"
    assert 40 <= seconds <= 44  # half the keep-alive, then the time for an answer
    assert speaker.heard.endswith(b"\xc0\x00")


def test_pauses_double_up_to_a_limit_and_are_never_in_step():
    code = """
from tig.backoff import Backoff
pause = Backoff(1000, 60000)
assert pause.due()
result = [pause.fail() for _ in range(12)]
assert not pause.due()
pause.reset()
assert pause.due()
"""
    runs = [evaluate(code) for _ in range(3)]
    for pauses in runs:
        for i, ms in enumerate(pauses):
            full = min(1000 * 2**i, 60000)
            assert 0.75 * full <= ms <= 1.25 * full
    assert runs[0] != runs[1] or runs[1] != runs[2]


def test_wifi_that_raises_is_tried_again_and_the_interface_restarted():
    code = """
import time
from tig.wifi import Wifi
class Board:
    calls = []
    def wifi_start(self):
        self.calls.append("start")
    def wifi_stop(self):
        self.calls.append("stop")
        raise OSError("stop failed")
    def wifi_connect(self, ssid, password, timeout):
        self.calls.append("connect")
        raise data_error
    def wifi_connected(self):
        return False
data_error = OSError("Wifi Internal Error")
wifi = Wifi(Board(), "home", "hush")
for _ in range(600 * 10):
    wifi.step()
    time.sleep_ms(100)
result = Board.calls
"""
    calls = evaluate(code, speed=0)
    assert calls[:6] == ["start", *["connect"] * 5]
    assert calls[6:8] == ["stop", "start"]
    assert calls.count("connect") >= 12  # at least one attempt a minute for ten minutes


def test_a_name_that_cannot_be_resolved_is_tried_again(tmp_path):
    time_server, device = TimeServer(), Device(tmp_path / "device")
    device.settings(free_port(), time_server.port)
    settings = device.folder / "a/settings.json"
    settings.write_text(settings.read_text().replace('"host": "127.0.0.1"', '"host": "broker.invalid"'))
    try:
        device.start()
        until(lambda: device.console.count("broker: ") >= 2, 30)
        assert device.process.poll() is None
    finally:
        device.stop()
        time_server.close()
