"""Shows on the controller how far a module is."""

from __future__ import annotations

import contextlib
import secrets
import threading

from ansible.plugins.action import ActionBase
from ansible.plugins.loader import connection_loader
from ansible.utils.display import Display

PERIOD = 2.0  # seconds between two lines


class Progress:
    """Shows, every few seconds, the line that a module on the host keeps in a file.

    A connection of its own reads the file, since the module's is busy.
    """

    def __init__(self, action: ActionBase, name: str, task_vars: dict) -> None:
        self.path = f"/tmp/tig-pi-{secrets.token_hex(8)}.progress"
        self.name = name
        self.over = threading.Event()
        own = action._connection
        self.connection = connection_loader.get(own._load_name, action._play_context, None)
        self.connection.set_options(var_options=task_vars)
        self.connection._options = own._options

    def show(self) -> None:
        last = ""
        while not self.over.wait(PERIOD):
            with contextlib.suppress(Exception):
                code, out, _ = self.connection.exec_command(f"cat {self.path}", in_data=None, sudoable=False)
                text = out.decode("utf-8", "replace").strip()
                if code == 0 and text and text != last:
                    Display().display(f"{self.name}: {text}")
                    last = text

    def __enter__(self) -> str:
        self.thread = threading.Thread(target=self.show, daemon=True)
        self.thread.start()
        return self.path

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join(10)
