#!/usr/bin/python
"""Write a set of files to a host, all of them or none, in one call."""

from __future__ import annotations

DOCUMENTATION = r"""
module: tree
short_description: Write a set of files in one remote call
description:
  - Compares the declared files with those on the host, validates the new ones with the programs that will read them,
    and then moves them into place, each with an atomic rename.
  - The action plugin of the same name renders templates on the controller, with the indentation of blocks removed, and
    passes the files compressed and encoded, so that their content does not appear in the host's log.
options:
  files:
    description: >-
      The files. Each has a C(dest) and one of C(content), C(template), C(src), C(directory) or C(absent);
      C(owner) and C(group) are V(root) by default, C(mode) is V(0644), or V(0755) for a directory.
      C(validate) is a command that is run with C(%s) replaced by the path of the staged file.
      C(copy_to) is a second path for the same content and mode, owned by V(root).
      C(secret) hides the content in the diff. C(vars) are more variables for a template.
    type: list
    elements: dict
    required: true
  purge:
    description: >-
      Directories in which undeclared files are removed: those in C(path) that match C(pattern) (default V(*)), with
      C(recurse) also in its subdirectories.
    type: list
    elements: dict
    default: []
  read_by:
    description: >-
      Services that read some of the C(files) only when they start or are reloaded. If such a file is newer than the last
      start or reload of the service, it counts as changed: if a run is interrupted between writing and restarting, the next
      run restarts the service. A service that does not run is not considered.
    type: list
    elements: dict
    default: []
    suboptions:
      unit:
        description: The systemd unit of the service.
        type: str
        required: true
      files:
        description: Paths that it reads. A directory stands for the names of the files in it.
        type: list
        elements: path
        required: true
  validate:
    description: >-
      A command that validates the whole set. Before anything is moved, all declared files are staged with their full
      paths below a temporary directory, which replaces V({root}) in the command.
    type: str
attributes:
  check_mode:
    support: full
    description: >-
      A validator that is not installed yet is skipped, in check mode only. An owner that does not exist yet counts
      as a change.
  diff_mode:
    support: full
notes:
  - Validators run without a shell.
"""

EXAMPLES = r"""
- name: Write the configuration
  tig_pi.stack.tree:
    files:
      - dest: /etc/mosquitto/mosquitto.conf
        template: mosquitto.conf.j2
      - dest: /etc/mosquitto/passwd
        content: "{{ __mosquitto_password_file }}"
        owner: mosquitto
        mode: "0600"
        secret: true
    purge:
      - path: /etc/mosquitto/conf.d
        pattern: "*.conf"
"""

RETURN = r"""
changed_files:
  description: Paths that were written, removed or whose owner or mode was changed, or that their service has not read yet.
  type: list
  elements: str
  returned: always
"""

import contextlib
import fnmatch
import grp
import os
import pwd
import shlex
import shutil
import stat
import tempfile
import time

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.common.text.converters import to_bytes, to_text
from ansible_collections.tig_pi.stack.plugins.module_utils.packing import unpack

DEFAULT_MODE = {"file": 0o644, "directory": 0o755}


class Entry:
    """One declared path."""

    def __init__(self, spec: dict) -> None:
        self.dest = spec["dest"]
        self.kind = "absent" if spec.get("absent") else "directory" if spec.get("directory") else "file"
        self.content = to_bytes(spec.get("content") or "") if self.kind == "file" else b""
        self.owner = spec.get("owner") or "root"
        self.group = spec.get("group") or "root"
        mode = spec.get("mode")
        self.mode = int(str(mode), 8) if mode is not None else DEFAULT_MODE.get(self.kind, 0)
        self.validate = spec.get("validate")
        self.secret = bool(spec.get("secret"))

    def current(self) -> tuple[str, bytes]:
        """What is at the path now: its kind and, for a file, its content."""
        try:
            found = os.lstat(self.dest)
        except (FileNotFoundError, NotADirectoryError):
            return "absent", b""
        if stat.S_ISDIR(found.st_mode):
            return "directory", b""
        if stat.S_ISREG(found.st_mode):
            with open(self.dest, "rb") as file:
                return "file", file.read()
        return "other", b""

    def attributes_differ(self) -> bool:
        found = os.lstat(self.dest)
        if stat.S_IMODE(found.st_mode) != self.mode:
            return True
        try:
            return (found.st_uid, found.st_gid) != self.ids()
        except KeyError:  # the package that creates this account is not installed yet
            return True

    def ids(self) -> tuple[int, int]:
        return pwd.getpwnam(self.owner).pw_uid, grp.getgrnam(self.group).gr_gid


class Change:
    """A change of one path, with both sides of its diff."""

    def __init__(self, path: str, before: str, after: str, apply) -> None:
        self.path = path
        self.before = before
        self.after = after
        self.apply = apply


def shown(kind: str, content: bytes, secret: bool) -> str:
    if kind == "directory":
        return "(directory)\n"
    if kind == "other":
        return "(neither file nor directory)\n"
    if kind == "absent":
        return ""
    if secret:
        return "(secret)\n"
    try:
        return to_text(content, errors="strict")
    except UnicodeError:
        return f"(binary, {len(content)} bytes)\n"


def attributes(entry: Entry) -> tuple[str, str]:
    """Both sides of the diff of a change of owner or mode."""
    found = os.lstat(entry.dest)
    with contextlib.suppress(KeyError):
        before = f"{pwd.getpwuid(found.st_uid).pw_name}:{grp.getgrgid(found.st_gid).gr_name}"
        return (
            f"{before} {stat.S_IMODE(found.st_mode):04o}\n",
            f"{entry.owner}:{entry.group} {entry.mode:04o}\n",
        )
    return f"{found.st_uid}:{found.st_gid}\n", f"{entry.owner}:{entry.group} {entry.mode:04o}\n"


class Tree:
    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        packed = module.params["packed"]
        self.entries = [Entry(spec) for spec in unpack(packed)]
        self.staging: str | None = None

    def fail(self, message: str) -> None:
        self.module.fail_json(msg=message)

    def check_declaration(self) -> None:
        seen: set[str] = set()
        for entry in self.entries:
            if not os.path.isabs(entry.dest) or os.path.normpath(entry.dest) != entry.dest:
                self.fail(f"{entry.dest}: dest must be an absolute path without '..', '//' or a trailing '/'.")
            if entry.dest in seen:
                self.fail(f"{entry.dest} is declared twice; keep one entry, or change the dest of the other.")
            seen.add(entry.dest)

    def changes(self) -> list[Change]:
        found = [change for entry in self.entries if (change := self.change_of(entry))]
        declared = {entry.dest for entry in self.entries if entry.kind != "absent"}
        for rule in self.module.params["purge"]:
            found += [self.removal(path, False) for path in strays(rule, declared)]
        return found + self.not_read_yet({change.path for change in found})

    def not_read_yet(self, changed: set[str]) -> list[Change]:
        """The files that are as declared, but newer than what a running service has read."""
        found = []
        for rule in self.module.params["read_by"]:
            files = [path for path in rule["files"] if path not in changed and os.path.exists(path)]
            if files and (since := self.running_since(rule["unit"])) is not None:
                found += [
                    Change(path, "", f"(not read yet by {rule['unit']})\n", lambda: None)
                    for path in files
                    if os.lstat(path).st_mtime > since
                ]
        return found

    def running_since(self, unit: str) -> float | None:
        """When a service was started or reloaded last, in seconds since 1970; None if it does not run.

        Based on the monotonic clock: a Pi starts its services before its clock is set.
        """
        properties = "--property=ActiveState,StateChangeTimestampMonotonic"
        code, out, _err = self.module.run_command(["systemctl", "show", properties, unit])
        shown = dict(line.split("=", 1) for line in out.splitlines() if "=" in line)
        if code != 0 or shown.get("ActiveState") != "active":
            return None
        return time.time() - (time.monotonic() - int(shown["StateChangeTimestampMonotonic"]) / 1e6)

    def change_of(self, entry: Entry) -> Change | None:
        kind, content = entry.current()
        if entry.kind == "absent":
            return None if kind == "absent" else self.removal(entry.dest, entry.secret)
        if kind == "other" or ((kind == "directory") != (entry.kind == "directory") and kind != "absent"):
            self.fail(f"{entry.dest} exists, but is not a {entry.kind}. Move it away and run the playbook again.")
        if kind != entry.kind or content != entry.content:
            before, after = (shown(*side, entry.secret) for side in ((kind, content), (entry.kind, entry.content)))
            if entry.secret and kind == entry.kind:
                after = "(secret, changed)\n"
            return Change(entry.dest, before, after, lambda: self.install(entry))
        if entry.attributes_differ():
            before, after = attributes(entry)
            return Change(entry.dest, before, after, lambda: self.set_attributes(entry, entry.dest))
        return None

    def removal(self, path: str, secret: bool) -> Change:
        if os.path.isdir(path) and not os.path.islink(path):
            return Change(path, "(directory)\n", "", lambda: shutil.rmtree(path))
        content = b""
        with contextlib.suppress(OSError), open(path, "rb") as file:
            content = file.read()
        return Change(path, shown("file", content, secret), "", lambda: os.remove(path))

    def set_attributes(self, entry: Entry, path: str) -> None:
        try:
            os.chown(path, *entry.ids(), follow_symlinks=False)
        except KeyError:
            self.fail(f"{entry.dest}: there is no user {entry.owner} or no group {entry.group} on this host.")
        os.chmod(path, entry.mode)

    def install(self, entry: Entry) -> None:
        if entry.kind == "directory":
            os.makedirs(entry.dest, mode=0o755, exist_ok=True)
            self.set_attributes(entry, entry.dest)
            return
        parent = os.path.dirname(entry.dest)
        os.makedirs(parent, mode=0o755, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=".ansible-", dir=parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(entry.content)
                file.flush()
                self.set_attributes(entry, temporary)
                os.fsync(file.fileno())
            os.replace(temporary, entry.dest)
        except BaseException:
            with contextlib.suppress(OSError):
                os.remove(temporary)
            raise

    def validate(self, changed: set[str]) -> None:
        """Run the validators on a staged copy of the set."""
        whole = self.module.params["validate"]
        single = [entry for entry in self.entries if entry.validate and entry.dest in changed]
        if not changed or not (whole or single):
            return
        # In memory, so that no secret is written to the card.
        memory = "/run" if os.access("/run", os.W_OK) else None
        self.staging = tempfile.mkdtemp(prefix="ansible-tree-", dir=memory)
        os.chmod(self.staging, 0o711)  # a validator may switch to the service's account
        for entry in self.entries:
            self.stage(entry)
        for entry in single:
            self.run(entry.validate.replace("%s", self.staging + entry.dest), entry.dest)
        if whole:
            self.run(whole.replace("{root}", self.staging), "the whole set")

    def stage(self, entry: Entry) -> None:
        path = self.staging + entry.dest
        if entry.kind == "directory":
            os.makedirs(path, exist_ok=True)
        elif entry.kind == "file":
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                os.chmod(path, entry.mode & 0o700)
                file.write(entry.content)
            os.chmod(path, entry.mode)
            with contextlib.suppress(KeyError):
                os.chown(path, *entry.ids())

    def run(self, command: str, what: str) -> None:
        words = shlex.split(command)
        if self.module.check_mode and not shutil.which(words[0]):
            return
        code, out, err = self.module.run_command(words)
        if code != 0:
            said = (err.strip() or out.strip()).replace(self.staging, "")
            self.module.fail_json(
                msg=f"{words[0]} refuses {what}; nothing was changed. Its message: {said}",
                validator=command.replace(self.staging, ""),
                rc=code,
            )

    def result(self) -> dict:
        changes = self.changes()
        changed = {change.path for change in changes}
        self.validate(changed)
        if not self.module.check_mode:
            for change in changes:
                change.apply()
        diff = [
            {"before": c.before, "after": c.after, "before_header": c.path, "after_header": c.path} for c in changes
        ]
        return {"changed": bool(changes), "changed_files": sorted(changed), "diff": diff}

    def clean(self) -> None:
        if self.staging:
            shutil.rmtree(self.staging, ignore_errors=True)


def strays(rule: dict, declared: set[str]) -> list[str]:
    """Files below rule['path'] that match its pattern and are not declared."""
    found = []
    for folder, folders, names in os.walk(rule["path"]):
        if not rule.get("recurse"):
            folders.clear()
        found += [
            path
            for name in sorted(names)
            if fnmatch.fnmatch(name, rule.get("pattern", "*")) and (path := os.path.join(folder, name)) not in declared
        ]
    return found


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            # O(files) from the action plugin. Parameters without no_log appear in the host's log.
            "packed": {"type": "str", "required": True, "no_log": True},
            "purge": {"type": "list", "elements": "dict", "default": []},
            "read_by": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "unit": {"type": "str", "required": True},
                    "files": {"type": "list", "elements": "path", "required": True},
                },
            },
            "validate": {"type": "str"},
        },
        supports_check_mode=True,
    )
    tree = Tree(module)
    try:
        tree.check_declaration()
        result = tree.result()
    finally:
        tree.clean()
    module.exit_json(**result)


if __name__ == "__main__":
    main()
