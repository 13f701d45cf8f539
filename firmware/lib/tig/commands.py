"""Commands that arrive on `<topic>/command`, and their answers on `<topic>/answer`.

A command is a JSON object: `id`, a text that its sender chooses, `do`, the name of the command, and what else it takes. Only the
broker says who may send one: its access list. Each command with an id is answered; one that arrives again is answered again, and not
carried out again. What is not a command is ignored and counted.
"""

import json

from tig import log

LARGEST_ID = 64  # bytes
KEPT = 8  # answers that are remembered


class Refused(Exception):
    """The command cannot be carried out; the reason is for its sender."""


class Commands:
    TOPIC = "/command"  # below the device's topic
    BRANCH = "/answer"
    RETAINED = False
    REPEATABLE = False  # the command may have been carried out meanwhile

    def __init__(self, actions):
        """actions: name of a command -> function(id, command), which may raise Refused."""
        self._actions = actions
        self._answers = []  # the last ones
        self._waiting = []  # ids whose answers are not sent yet
        self.ignored = 0

    def take(self, payload, retained):
        """A message on the topic; payload None: it was too large."""
        try:
            command = None if payload is None else json.loads(payload)
        except ValueError:
            command = None
        name = command.get("id") if isinstance(command, dict) else None
        # A retained message would be carried out again at every connection.
        if retained or not isinstance(name, str) or not 0 < len(name.encode()) <= LARGEST_ID:
            self.ignored += 1
            return
        for answer in self._answers:
            if answer["id"] == name:
                self._send(name)
                return
        do = command.get("do")
        answer = {"id": name, "do": do, "state": "accepted"}
        action = self._actions.get(do) if isinstance(do, str) else None
        try:
            if action is None:
                raise Refused("unknown command")
            action(name, command)
        except Refused as e:
            self.ignored += 1
            answer["do"] = do if isinstance(do, str) else None
            answer["state"] = "refused"
            answer["reason"] = str(e)
        log.say("command %s: %s" % (name, answer["state"]))
        self._answers = self._answers[1 - KEPT :] + [answer]
        self._send(name)

    def done(self, name, **result):
        """A command was carried out; result: what its answer says beside that."""
        for answer in self._answers:
            if answer["id"] == name:
                answer["state"] = "done"
                answer.update(result)
                self._send(name)

    def _send(self, name):
        if name not in self._waiting:
            self._waiting.append(name)

    def welcome(self):
        pass

    def due(self):
        return bool(self._waiting)

    def message(self):
        while self._waiting:
            for answer in self._answers:
                if answer["id"] == self._waiting[0]:
                    self._said = answer["state"]
                    return json.dumps(answer).encode()
            self._waiting.pop(0)  # forgotten meanwhile
        return None

    def acknowledged(self):
        name = self._waiting.pop(0)
        for answer in self._answers:
            if answer["id"] == name and answer["state"] != self._said:
                self._waiting.append(name)  # it has changed meanwhile
