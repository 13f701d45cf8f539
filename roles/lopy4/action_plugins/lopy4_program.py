"""Reads the program on the controller, hands it to the module in one piece, and shows how far that is."""

from __future__ import annotations

import ast
import base64
import contextlib
import json
import re
import secrets
import threading
import zlib
from pathlib import Path

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.plugins.loader import connection_loader
from ansible.utils.display import Display

PERIOD = 2.0  # seconds between two lines
PAIR = re.compile(r"(?<!\\)(\\\\)*\\u[dD][89abAB]")  # the first escape of a surrogate pair
ROOT_FILES = ("boot.py", "main.py")
# Names that FAT and littlefs both take. FAT does not tell upper from lower case.
NAME = re.compile(r"[A-Za-z0-9_-]([A-Za-z0-9._-]{0,62}[A-Za-z0-9_-])?")


def root_files(loader: bytes) -> dict[str, bytes]:
    """boot.py and main.py: each is the loader with its own name in the first line."""
    return {name: loader.replace(b'ROLE = ""', f'ROLE = "{name[:-3]}"'.encode(), 1) for name in ROOT_FILES}


def tree(directory: Path, drivers: Path | None = None) -> dict[str, bytes]:
    """The program's files by their path on the device.

    Args:
        directory: of the program.
        drivers: directory of further sensor drivers; it may be absent.

    Raises:
        AnsibleActionFail: that is no program, or a device can't have files of these names.
    """
    loader = directory / "loader.py"
    if not loader.is_file():
        raise AnsibleActionFail(f"lopy4_program: {loader} is missing; a program has loader.py and lib/.")
    files = root_files(loader.read_bytes())
    for path in sorted((directory / "lib").rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc":
            files[path.relative_to(directory).as_posix()] = path.read_bytes()
    if drivers:
        files |= {f"lib/tig/drivers/{path.name}": path.read_bytes() for path in sorted(drivers.glob("*.py"))}
    _check_names(directory, files)
    return files


def _check_names(directory: Path, files: dict[str, bytes]) -> None:
    seen: dict[str, str] = {}
    for name in files:
        parts = name.split("/")
        odd = [part for part in parts if not NAME.fullmatch(part)]
        if odd:
            raise AnsibleActionFail(
                f"lopy4_program: a device can't have the file {name!r} of {directory}: {odd[0]!r} has to be letters from a to z, "
                "digits, '_', '-' and '.' (neither first nor last), 64 at the most. Rename it, or remove it if it is an editor's."
            )
        for path in ("/".join(parts[: count + 1]) for count in range(len(parts))):
            other = seen.setdefault(path.lower(), path)
            if other != path:
                raise AnsibleActionFail(
                    f"lopy4_program: {other!r} and {path!r} of {directory} differ in upper and lower case only, and are one on a "
                    "device: rename one."
                )


def version(files: dict[str, bytes]) -> str:
    """VERSION in the package's __init__.py; empty if it has none."""
    for node in ast.parse(files.get("lib/tig/__init__.py", b"")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "VERSION":
            return str(ast.literal_eval(node.value))
    return ""


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


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_diff = True

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        del tmp
        args = self._task.args.copy()
        for wanted in ("name", "program", "settings"):
            if not args.get(wanted):
                raise AnsibleActionFail(f"lopy4_program: {wanted} is missing.")
        own_drivers = args.pop("drivers", "")
        files = tree(Path(args.pop("program")), Path(own_drivers) if own_drivers else None)
        settings = args.pop("settings")
        text = settings if isinstance(settings, str) else json.dumps(settings, ensure_ascii=False)
        if PAIR.search(text):
            raise AnsibleActionFail(
                "lopy4_program: settings.json has a character beyond U+FFFF, such as an emoji, as two escapes, which MicroPython "
                "takes for two characters: write to_json(ensure_ascii=false) in lopy4_settings_template."
            )
        files["settings.json"] = text.encode()
        payload = {
            "version": version(files),
            "files": {path: base64.b64encode(data).decode() for path, data in files.items()},
        }
        args["packed"] = base64.b64encode(zlib.compress(json.dumps(payload).encode())).decode()
        with Progress(self, args["name"], task_vars) as path:
            args["progress"] = path
            result.update(self._execute_module(module_name="lopy4_program", module_args=args, task_vars=task_vars))
        return result
