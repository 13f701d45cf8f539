"""A small MQTT 3.1.1 client that publishes, and receives one topic: QoS 1 with one message under way, last will, keep-alive.

Nothing here waits forever. Sending and connecting have a time-out; receiving takes a few milliseconds and is repeated by the
caller; a broker that is silent for too long (half-open connection) is an error. After any error the connection is closed, and the
caller connects again and repeats the message that was under way, as a duplicate.

A broker may be slow but alive: while an acknowledgement is late, the client sends pings and waits as long as they are answered.
A broker that answers nothing meanwhile, because its card takes a minute to write, is given twice the time after each failure,
since repeating the message forever would get nowhere; after an acknowledgement it is given twice the time that this one took.

Receiving never uses a non-blocking socket: on Pycom that returns b"" both for "nothing yet" and for "closed".
"""

import socket
import struct
import time

from tig import log

IO_MS = 4000  # connecting, or sending one packet
ANSWER_MS = 10000  # any sign of life from a broker that owes an answer
PATIENCE_MS = 160000  # at most, from one that has been slow
ACKNOWLEDGE_MS = 600000  # the acknowledgement itself, from a broker that answers pings
LOOK_MS = 5
LARGEST = 512  # bytes of a packet that is accepted
_SUBSCRIBE = 65535  # packet id of the subscription

_REFUSALS = {
    1: "protocol version",
    2: "client id",
    3: "server unavailable",
    4: "user name or password",
    5: "not authorised",
}


class MqttError(Exception):
    pass


def text(value):
    """A UTF-8 string with its length, as MQTT writes it."""
    data = value if isinstance(value, bytes) else value.encode()
    return struct.pack(">H", len(data)) + data


def packet(kind, body):
    length = len(body)
    head = bytearray([kind])
    while True:
        head.append(length & 0x7F | (0x80 if length > 0x7F else 0))
        length >>= 7
        if not length:
            return bytes(head) + body


_Timeout = getattr(socket, "timeout", ())  # Pycom's TimeoutError


def _timed_out(error):
    # Elsewhere EAGAIN or ETIMEDOUT, whose number differs from port to port.
    return isinstance(error, _Timeout) or (error.args and error.args[0] in (11, 110, 116))


def _since(ticks):
    return time.ticks_diff(time.ticks_ms(), ticks)


class Client:
    def __init__(self, client_id, user, password, keepalive, will_topic, will, topic=None, take=None):
        """keepalive in seconds; the will is published retained at QoS 1 by the broker when the connection breaks.

        take(payload, retained): called for each message on `topic`; payload None: it is larger than LARGEST.
        """
        flags = 0x2C  # will, QoS 1, retained; the session is kept
        payload = text(client_id) + text(will_topic) + text(will)
        if user:
            flags |= 0x80
            payload += text(user)
            if password:
                flags |= 0x40
                payload += text(password)
        self._hello = packet(0x10, b"\x00\x04MQTT\x04" + bytes([flags]) + struct.pack(">H", keepalive) + payload)
        self._topic = topic
        self._take_message = take
        self._keepalive_ms = keepalive * 1000
        self._socket = None
        self._id = 0
        self._patience = ANSWER_MS
        self.pending = 0  # packet id under way, 0: none
        self.ready = False  # logged in

    def connect(self, address):
        """Connect and begin to log in; `ready` turns true in a later step. Raises MqttError or OSError within 2 IO_MS."""
        self.close()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._received = b""
        self._skip = 0  # bytes of a message that is too large
        self._acknowledged = 0
        self._slowest = 0  # the longest silence while an answer was owed
        self._pinged = False
        self.pending = 0
        try:
            self._socket.settimeout(IO_MS / 1000)
            self._socket.connect(address)
            self._send(self._hello)
            self._silent_since = self._sent_at
        except Exception:
            self.close()
            raise

    def close(self):
        """Close without a farewell: the broker publishes the will."""
        if self._socket:
            try:
                self._socket.close()
            except OSError:
                pass
            self._socket = None
        self.ready = False

    def publish(self, topic, message, retain=False, again=False):
        """Send a message at QoS 1; `step` tells when it has arrived. `again`: it was under way when a connection broke."""
        if not again:
            self._id = self._id % (_SUBSCRIBE - 1) + 1
        self.pending = self._id
        body = text(topic) + struct.pack(">H", self.pending) + message
        self._send(packet(0x32 | (0x08 if again else 0) | (0x01 if retain else 0), body))
        self._published_at = self._sent_at
        self._slowest = 0
        if not self._pinged:
            self._silent_since = self._sent_at

    def step(self):
        """A look at what the broker sent. True when the message under way has arrived. Raises MqttError or OSError."""
        self._receive()
        if self.pending and self._acknowledged == self.pending:
            self.pending = 0
            self._patience = max(ANSWER_MS, min(PATIENCE_MS, 2 * self._slowest))
            return True
        self._check_silence()
        if self.ready and not self._pinged and (
            _since(self._sent_at) > self._keepalive_ms // 2
            or (self.pending and _since(self._silent_since) > ANSWER_MS // 2)
        ):
            self._send(b"\xc0\x00")
            self._pinged = True
            if not self.pending:
                self._silent_since = self._sent_at
        return False

    def _check_silence(self):
        if not self._owes():
            return
        if _since(self._silent_since) > self._patience:
            self._patience = min(PATIENCE_MS, 2 * self._patience)
            raise MqttError("broker is silent")
        if self.pending and _since(self._published_at) > ACKNOWLEDGE_MS:
            raise MqttError("no acknowledgement")

    def _owes(self):
        return self.pending or self._pinged or not self.ready

    def _send(self, data):
        self._socket.settimeout(IO_MS / 1000)
        started = time.ticks_ms()
        while data:
            sent = self._socket.send(data)
            data = data[sent:]
            if data and time.ticks_diff(time.ticks_ms(), started) > IO_MS:
                raise MqttError("broker takes nothing")
        self._sent_at = time.ticks_ms()

    def _receive(self):
        self._socket.settimeout(LOOK_MS / 1000)
        try:
            data = self._socket.recv(128)
        except OSError as e:
            if _timed_out(e):
                return
            raise
        if not data:
            raise MqttError("closed by the broker")
        if self._owes():
            took = _since(self._silent_since)
            self._slowest = max(self._slowest, took)
            self._patience = max(self._patience, min(PATIENCE_MS, 2 * took))
        self._silent_since = time.ticks_ms()
        self._received += data
        while self._take():
            pass

    def _take(self):
        """Handle one packet of what was received; False when it is not complete."""
        if self._skip:
            skipped = min(self._skip, len(self._received))
            self._skip -= skipped
            self._received = self._received[skipped:]
        data = self._received
        if data and not self.ready and data[0] != 0x20:
            raise MqttError("not MQTT")
        length = 0
        for i in range(1, 5):
            if len(data) <= i:
                return False
            length |= (data[i] & 0x7F) << 7 * (i - 1)
            if not data[i] & 0x80:
                break
        else:
            raise MqttError("not MQTT")
        kind = data[0] >> 4
        if length > LARGEST and kind != 3:
            raise MqttError("not MQTT")
        end = i + 1 + min(length, LARGEST)
        if len(data) < end:
            return False
        body = data[i + 1 : end]
        self._received = data[end:]
        if kind == 2 and length == 2 and not self.ready:
            if body[1]:
                raise MqttError("refused: " + _REFUSALS.get(body[1], "code %d" % body[1]))
            self.ready = True
            if self._topic:
                self._send(packet(0x82, struct.pack(">H", _SUBSCRIBE) + text(self._topic) + b"\x01"))
        elif kind == 4 and length == 2:
            self._acknowledged = body[0] << 8 | body[1]
        elif kind == 13:
            self._pinged = False
        elif kind == 3:
            self._skip = length - len(body)
            self._message(data[0], body)
        elif kind == 9:
            if body[-1:] == b"\x80":
                log.say("broker: refuses the subscription to %s" % self._topic)
        else:
            raise MqttError("not MQTT")
        return True

    def _message(self, flags, body):
        """Acknowledge and hand over a message; `body` is its beginning."""
        start = 2 + (body[0] << 8 | body[1]) if len(body) > 1 else LARGEST
        if start + 2 > len(body) and (start > len(body) or flags & 0x06):
            raise MqttError("not MQTT")
        topic = body[2:start]
        if flags & 0x06:
            self._send(b"\x40\x02" + body[start : start + 2])
            start += 2
        # Another topic is left over from another program's session.
        if self._topic and topic == self._topic.encode():
            self._take_message(None if self._skip else body[start:], bool(flags & 0x01))
