#!/usr/bin/python
"""Publish a message over MQTT, wait for one, or check that a client is refused."""

from __future__ import annotations

DOCUMENTATION = r"""
module: mqtt_message
short_description: Publish a message over MQTT, wait for one, or check that a client is refused
description:
  - Connects to a broker as any client does, to check its behaviour from outside.
  - Publishing with QoS 1 succeeds only when the broker has acknowledged the message.
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
    description: Account to log in with; without one the client is anonymous.
    type: str
  password:
    description: Password of the account.
    type: str
  client_id:
    description: Identifier of the client.
    type: str
    required: true
  publish:
    description: Message to publish, with C(topic), C(payload) and optionally C(retain).
    type: dict
  wait_for:
    description: >-
      Topic filter. The module ends with the first message on it that was published after the module subscribed,
      or with a retained one if O(retained) says so.
    type: str
  retained:
    description: Whether retained messages count for O(wait_for).
    type: bool
    default: false
  refused:
    description: Whether the broker has to refuse the client; the module fails if it does not.
    type: bool
    default: false
  timeout:
    description: Maximum number of seconds to wait.
    type: int
    default: 30
requirements: [paho-mqtt >= 2]
attributes:
  check_mode:
    support: none
"""

EXAMPLES = r"""
- name: Check that a client without an account is refused
  tig_pi.stack.mqtt_message:
    host: raspberrypi.local
    client_id: nobody
    refused: true
"""

RETURN = r"""
topic:
  description: Topic of the message that O(wait_for) received.
  type: str
  returned: when O(wait_for) is given
payload:
  description: Its payload.
  type: str
  returned: when O(wait_for) is given
"""

import queue

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.common.text.converters import to_text
from ansible_collections.tig_pi.stack.plugins.module_utils.mqtt import Client


class Conversation(Client):
    """One client and its connection."""

    def where(self) -> str:
        who = self.asked["username"] or "a client without an account"
        return f"{who} at {self.address}"

    def fail(self, message: str) -> None:
        self.module.fail_json(msg=message)

    def next(self, wanted: str):
        """The next event of the wanted kind; others are skipped."""
        try:
            while True:
                kind, value = self.events.get(timeout=self.asked["timeout"])
                if kind == wanted:
                    return value
        except queue.Empty:
            return None

    def run(self) -> dict:
        with self.connection():
            return self.talk()

    def talk(self) -> dict:
        reason = self.next("connected")
        if self.asked["refused"]:
            if reason is None or not reason.is_failure:
                self.fail(f"The broker accepted {self.where()}, which it must refuse.")
            return {}
        if reason is None:
            self.fail(f"The broker did not answer {self.where()} within {self.asked['timeout']} s.")
        if reason.is_failure:
            self.fail(f"The broker refused {self.where()}: {reason}.")
        if self.asked["wait_for"]:
            self.client.subscribe(self.asked["wait_for"], qos=1)
            self.next("subscribed")
        if self.asked["publish"]:
            self.publish(self.asked["publish"])
        return self.awaited() if self.asked["wait_for"] else {}

    def publish(self, message: dict) -> None:
        sent = self.client.publish(message["topic"], message["payload"], qos=1, retain=bool(message.get("retain")))
        try:
            sent.wait_for_publish(self.asked["timeout"])
        except RuntimeError as error:
            self.fail(f"The message of {self.where()} was not published: {error}.")
        if not sent.is_published():
            self.fail(
                f"The broker did not acknowledge {message['topic']} of {self.where()} within {self.asked['timeout']} s."
            )

    def awaited(self) -> dict:
        while True:
            message = self.next("message")
            if message is None:
                self.fail(
                    f"No message on {self.asked['wait_for']} within {self.asked['timeout']} s for {self.where()}."
                )
            if self.asked["retained"] or not message.retain:
                return {"topic": message.topic, "payload": to_text(message.payload, errors="surrogate_or_replace")}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "host": {"type": "str", "required": True},
            "port": {"type": "int", "default": 1883},
            "username": {"type": "str"},
            "password": {"type": "str", "no_log": True},
            "client_id": {"type": "str", "required": True},
            "publish": {"type": "dict"},
            "wait_for": {"type": "str"},
            "retained": {"type": "bool", "default": False},
            "refused": {"type": "bool", "default": False},
            "timeout": {"type": "int", "default": 30},
        },
    )
    module.exit_json(changed=bool(module.params["publish"]), **Conversation(module).run())


if __name__ == "__main__":
    main()
