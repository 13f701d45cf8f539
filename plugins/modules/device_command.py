#!/usr/bin/python
"""Send commands to devices over MQTT, and wait until they were carried out."""

from __future__ import annotations

DOCUMENTATION = r"""
module: device_command
short_description: Send commands to devices over MQTT, and wait until they were carried out
description:
  - Publishes a command to each device, over one connection, and waits for the answers C(done) or C(refused).
  - >-
    A device forgets its commands if it loses power or is reset. If its status shows that it does not know the command any more,
    the command is sent again, with the same identifier. A device that does know it does not carry it out twice.
  - A device that does not answer is no error of the module; see C(state) in RV(devices).
options:
  host:
    description: Name or address of the broker.
    type: str
    required: true
  port:
    description: Port of the broker.
    type: int
    default: 1883
  username:
    description: Account that may send commands.
    type: str
    required: true
  password:
    description: Password of the account.
    type: str
    required: true
  client_id:
    description: Identifier of the client.
    type: str
    required: true
  requests:
    description: The commands.
    type: list
    elements: dict
    required: true
    suboptions:
      device:
        description: Name of the device, for RV(devices).
        type: str
        required: true
      topics:
        description: Topics of the device, with C(command), C(answer) and C(status).
        type: dict
        required: true
      command:
        description: The command, with C(do) and what else it takes.
        type: dict
        required: true
      id:
        description: Identifier of the command, up to 64 bytes. Without one it gets a random one.
        type: str
  timeout:
    description: >-
      Maximum number of seconds until the device accepts or refuses the command. After a failure, a device tries to connect to the
      broker about once a minute.
    type: int
    default: 100
  silence:
    description: >-
      Maximum number of seconds without a status or an answer while the device carries out the command. Its status arrives once a
      minute.
    type: int
    default: 180
requirements: [paho-mqtt >= 2]
attributes:
  check_mode:
    support: none
"""

EXAMPLES = r"""
- name: Have a device send its readings again
  tig_pi.stack.device_command:
    host: raspberrypi.local
    username: tig-operator
    password: "{{ vault_operator }}"
    client_id: tig-operator-7
    requests:
      - device: greenhouse
        topics: {command: house/greenhouse/orders, answer: house/greenhouse/replies, status: house/greenhouse/state}
        command: {do: replay, since: 1752331239}
"""

RETURN = r"""
devices:
  description: What became of each command, by device.
  type: dict
  returned: success
  contains:
    id:
      description: Identifier of the command.
      type: str
    command:
      description: The command.
      type: dict
    state:
      description: >-
        C(done), C(refused), C(away) (no answer), C(silent) (the device accepted the command, and has then sent nothing for too long),
        or C(incapable) (its program knows no commands).
      type: str
    answer:
      description: The last answer of the device.
      type: dict
    status:
      description: The last status of the device before it accepted the command.
      type: dict
    seconds:
      description: Seconds until the last answer.
      type: int
"""

import json
import queue
import time
import uuid

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.tig_pi.stack.plugins.module_utils.mqtt import Client


def parsed(payload: bytes) -> dict:
    """A message of the device; {} if it is none."""
    try:
        message = json.loads(payload)
    except ValueError:
        return {}
    return message if isinstance(message, dict) else {}


class Request:
    """A command to a device, and what is known of it."""

    def __init__(self, asked: dict, timeout: float, silence: float) -> None:
        self.topics, self.command = asked["topics"], asked["command"]
        self.id = asked["id"] or uuid.uuid4().hex
        self.silence = silence
        self.begun = time.monotonic()
        self.end = self.begun + timeout
        self.seconds = 0
        self.state = ""  # until it is final
        self.answer: dict = {}
        self.status: dict = {}

    @property
    def result(self) -> dict:
        names = ("id", "command", "state", "answer", "status", "seconds")
        return {name: getattr(self, name) for name in names}

    @property
    def payload(self) -> str:
        return json.dumps({**self.command, "id": self.id})

    def expire(self) -> None:
        if time.monotonic() < self.end:
            return
        if "uptime" in self.status and "replaying" not in self.status:
            self.finish("incapable")
        else:
            self.finish("silent" if self.answer else "away")

    def finish(self, state: str) -> None:
        self.state, self.seconds = state, round(time.monotonic() - self.begun)

    def receive(self, topic: str, message: dict, is_retained: bool) -> bool:
        """Take a message of the device; whether it shows that the device does not know the command any more."""
        is_forgotten = False
        if topic == self.topics["answer"]:
            if message.get("id") == self.id:
                self.answer = message
                if message.get("state") in ("done", "refused"):
                    self.finish(message["state"])
        else:
            if not self.answer:
                self.status = message
            is_forgotten = not is_retained and self.id not in message.get("replaying", [self.id])
        # An old status that the broker has retained, and that of a device that is away, are no signs of life.
        if self.answer and not is_retained and len(message) > 1:
            self.end = time.monotonic() + self.silence
        return is_forgotten


class Requests(Client):
    """Commands to several devices over one connection."""

    def __init__(self, module: AnsibleModule) -> None:
        super().__init__(module)
        self.was_accepted = False
        limits = {name: self.asked[name] for name in ("timeout", "silence")}
        self.requests = {asked["device"]: Request(asked, **limits) for asked in self.asked["requests"]}
        self.by_topic = {
            request.topics[branch]: request for request in self.requests.values() for branch in ("answer", "status")
        }

    def run(self) -> dict:
        """The results by device."""
        with self.connection():
            while waiting := self.waiting():
                self.handle(min(request.end for request in waiting))
                for request in waiting:
                    if not request.state:
                        request.expire()
        return {device: request.result for device, request in self.requests.items()}

    def waiting(self) -> list[Request]:
        return [request for request in self.requests.values() if not request.state]

    def handle(self, end: float) -> None:
        """Handle the next event, if there is one until the end."""
        try:
            kind, value = self.events.get(timeout=max(0, end - time.monotonic()))
        except queue.Empty:
            return
        if kind == "connected":
            if value.is_failure and self.was_accepted:
                return  # for a while; the requests expire by themselves
            if value.is_failure:
                self.module.fail_json(msg=f"The broker refused {self.asked['username']} at {self.address}: {value}.")
            self.was_accepted = True
            self.client.subscribe([(topic, 1) for topic in self.by_topic])
        elif kind == "subscribed":
            for request in self.waiting():
                self.send(request)
        else:
            request = self.by_topic[value.topic]
            if not request.state and request.receive(value.topic, parsed(value.payload), value.retain):
                self.send(request)

    def send(self, request: Request) -> None:
        self.client.publish(request.topics["command"], request.payload, qos=1)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "host": {"type": "str", "required": True},
            "port": {"type": "int", "default": 1883},
            "username": {"type": "str", "required": True},
            "password": {"type": "str", "required": True, "no_log": True},
            "client_id": {"type": "str", "required": True},
            "requests": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "device": {"type": "str", "required": True},
                    "topics": {"type": "dict", "required": True},
                    "command": {"type": "dict", "required": True},
                    "id": {"type": "str"},
                },
            },
            "timeout": {"type": "int", "default": 100},
            "silence": {"type": "int", "default": 180},
        },
    )
    devices = Requests(module).run()
    module.exit_json(changed=any(result["answer"] for result in devices.values()), devices=devices)


if __name__ == "__main__":
    main()
