#!/usr/bin/python
"""Send a command to a device over MQTT, and wait until it was carried out."""

from __future__ import annotations

DOCUMENTATION = r"""
module: device_command
short_description: Send a command to a device over MQTT, and wait until it was carried out
description:
  - Publishes the command, and waits for the device's answer C(done) or C(refused).
  - >-
    A device forgets its commands if it loses power or is reset. If its status shows that it does not know the command any more,
    the command is sent again, with the same identifier. A device that does know it does not carry it out twice.
  - A device that does not answer is no error of the module; see RV(state).
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
    client_id: tig-operator-greenhouse
    topics: {command: house/greenhouse/orders, answer: house/greenhouse/replies, status: house/greenhouse/state}
    command: {do: replay, since: 1752331239}
"""

RETURN = r"""
id:
  description: Identifier of the command.
  type: str
  returned: success
command:
  description: The command.
  type: dict
  returned: success
state:
  description: >-
    C(done), C(refused), C(away) (no answer), C(silent) (the device accepted the command, and has then sent nothing for too long),
    or C(incapable) (its program knows no commands).
  type: str
  returned: success
answer:
  description: The last answer of the device.
  type: dict
  returned: success
status:
  description: The last status of the device before it accepted the command.
  type: dict
  returned: success
seconds:
  description: Seconds until the last answer.
  type: int
  returned: success
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


class Request(Client):
    """A command, and what is known of it."""

    def __init__(self, module: AnsibleModule) -> None:
        super().__init__(module)
        self.topics = self.asked["topics"]
        self.id = self.asked["id"] or uuid.uuid4().hex
        self.answer: dict = {}
        self.status: dict = {}

    def run(self) -> dict:
        begun = time.monotonic()
        with self.connection():
            state = self.wait()
        seconds = round(time.monotonic() - begun)
        return {
            "id": self.id,
            "command": self.asked["command"],
            "state": state,
            "answer": self.answer,
            "status": self.status,
            "seconds": seconds,
        }

    def wait(self) -> str:
        end = time.monotonic() + self.asked["timeout"]
        while True:
            try:
                kind, value = self.events.get(timeout=max(0, end - time.monotonic()))
            except queue.Empty:
                if "uptime" in self.status and "replaying" not in self.status:
                    return "incapable"
                return "silent" if self.answer else "away"
            if kind == "connected":
                if value.is_failure:
                    self.module.fail_json(
                        msg=f"The broker refused {self.asked['username']} at {self.address}: {value}."
                    )
                self.client.subscribe([(self.topics[topic], 1) for topic in ("answer", "status")])
            elif kind == "subscribed":
                self.send()
            else:
                message = parsed(value.payload)
                if value.topic == self.topics["status"]:
                    self.reported(message, value.retain)
                elif state := self.answered(message):
                    return state
                # An old status that the broker has retained, and that of a device that is away, are no signs of life.
                if self.answer and not value.retain and len(message) > 1:
                    end = time.monotonic() + self.asked["silence"]

    def send(self) -> None:
        command = {**self.asked["command"], "id": self.id}
        self.client.publish(self.topics["command"], json.dumps(command), qos=1)

    def answered(self, answer: dict) -> str:
        """The final state, or ""."""
        if answer.get("id") != self.id:
            return ""
        self.answer = answer
        return answer["state"] if answer.get("state") in ("done", "refused") else ""

    def reported(self, status: dict, is_retained: bool) -> None:
        if not self.answer:
            self.status = status
        if not is_retained and self.id not in status.get("replaying", [self.id]):
            self.send()


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "host": {"type": "str", "required": True},
            "port": {"type": "int", "default": 1883},
            "username": {"type": "str", "required": True},
            "password": {"type": "str", "required": True, "no_log": True},
            "client_id": {"type": "str", "required": True},
            "topics": {"type": "dict", "required": True},
            "command": {"type": "dict", "required": True},
            "id": {"type": "str"},
            "timeout": {"type": "int", "default": 100},
            "silence": {"type": "int", "default": 180},
        },
    )
    result = Request(module).run()
    module.exit_json(changed=bool(result["answer"]), **result)


if __name__ == "__main__":
    main()
