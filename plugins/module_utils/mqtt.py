"""A client of an MQTT broker, for modules with the options host, port, username, password and client_id."""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Iterator

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

try:
    import paho.mqtt.client as mqtt
    from paho.mqtt.enums import CallbackAPIVersion

    PAHO = True
except ImportError:
    PAHO = False


class Client:
    """A client and its events: ("connected", reason), ("subscribed", None) and ("message", message)."""

    def __init__(self, module: AnsibleModule) -> None:
        if not PAHO:
            module.fail_json(msg=missing_required_lib("paho-mqtt"))
        self.module = module
        self.asked = module.params
        self.address = f"{self.asked['host']}:{self.asked['port']}"
        self.events: queue.Queue = queue.Queue()
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=self.asked["client_id"])
        self.client.on_connect = lambda _c, _u, _f, reason, _p: self.events.put(("connected", reason))
        self.client.on_subscribe = lambda *_: self.events.put(("subscribed", None))
        self.client.on_message = lambda _c, _u, message: self.events.put(("message", message))
        if self.asked["username"] is not None:
            self.client.username_pw_set(self.asked["username"], self.asked["password"])

    @contextlib.contextmanager
    def connection(self) -> Iterator[None]:
        """Connect, and again if the connection breaks. The module fails if no broker is there."""
        try:
            self.client.connect(self.asked["host"], self.asked["port"])
        except OSError as error:
            self.module.fail_json(msg=f"Cannot connect to a broker at {self.address}: {error}.")
        self.client.loop_start()
        try:
            yield
        finally:
            self.client.disconnect()
            self.client.loop_stop()
