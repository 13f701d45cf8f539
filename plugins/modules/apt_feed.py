#!/usr/bin/python
"""Keep a copy of a feed on a host, and check that apt can install from it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: apt_feed
short_description: Copy a feed, a signed apt repository in a directory, to a host without internet
description:
  - Before anything is copied, the feed is checked on the controller, with gpgv or sqv. It must be for the release and architecture of the
    host, its key must have the recorded fingerprint, its files must be those that are listed in its signed index, and it must have the
    wanted packages.
  - Then missing files are copied to the host. There apt verifies the signature, too, and simulates the installation of the wanted packages
    from the feed alone. So a feed that lacks a package that another one depends on is refused before anything is changed.
options:
  src:
    description: Directory of the feed on the controller, or the one above it, whose subdirectories are C(<release>-<architecture>).
    type: str
    required: true
  dest:
    description: Directory of the copy on the host. Packages that the feed does not list are removed from it.
    type: str
    required: true
  fingerprint:
    description: Fingerprint of the key that signs the feed, in hexadecimal; spaces are ignored.
    type: str
    required: true
  release:
    description: Code name of the host's Debian release.
    type: str
    required: true
  architecture:
    description: The host's architecture, with dpkg's name.
    type: str
    required: true
  name:
    description: Packages to install from the feed, in the syntax of apt-get install. Those that are installed already need not be in it.
    type: list
    elements: str
    required: true
attributes:
  check_mode:
    support: partial
    description: Nothing is copied, so the installation is not simulated.
"""

EXAMPLES = r"""
- name: Copy the feed
  tig_pi.stack.apt_feed:
    src: /media/stick/feed
    dest: /var/lib/tig-pi/feed
    fingerprint: 0A1B2C3D4E5F60718293A4B5C6D7E8F901234567
    release: trixie
    architecture: arm64
    name: [telegraf=1.39.3*, restic]
  register: feed
"""

RETURN = r"""
missing:
  description: Files that were copied, or would be in check mode.
  type: list
  elements: str
  returned: success
source:
  description: The apt source of the copy, as the text of a file in C(/etc/apt/sources.list.d). It ignores dates.
  type: str
  returned: success
"""

import tarfile
import tempfile
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule


class Copy:
    """The copy of a feed on this host."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.path = Path(module.params["path"])
        self.hashes: dict[str, str] = module.params["hashes"]

    def missing(self) -> list[str]:
        """Files that are not there, or differ. If nothing will be installed, packages are not read: that takes seconds on a Pi."""
        is_read = bool(self.module.params["name"])
        return [name for name, digest in self.hashes.items() if not self.has(name, digest, is_read)]

    def has(self, name: str, digest: str, is_read: bool) -> bool:
        path = self.path / name
        if not is_read and name.endswith((".deb", ".whl")):
            return path.is_file()
        return path.is_file() and self.module.sha256(str(path)) == digest

    def extract(self, archive: str) -> None:
        self.path.mkdir(mode=0o755, parents=True, exist_ok=True)
        with tarfile.open(archive) as tar:
            for member in tar:
                if member.name not in self.hashes or not member.isfile():
                    raise ValueError(f"the archive has {member.name}, which is no file of the feed")
                target = self.path / member.name
                target.parent.mkdir(mode=0o755, exist_ok=True)
                part = target.with_name(f".{target.name}.new")
                with part.open("wb") as file:
                    source = tar.extractfile(member)
                    while block := source.read(1 << 20):
                        file.write(block)
                part.chmod(0o644)
                part.replace(target)
        for path in (*self.path.glob("*.deb"), *self.path.glob("*/*.whl")):
            if str(path.relative_to(self.path)) not in self.hashes:
                path.unlink()

    def check(self) -> None:
        """Have apt verify the signature, and simulate the installation with the feed as its only source."""
        # The user of the connection removes the module's own directory, but may not remove what root has created in it.
        with tempfile.TemporaryDirectory(dir=self.module.tmpdir) as work:
            source = Path(work, "feed.sources")
            source.write_text(self.module.params["source"], encoding="utf-8")
            Path(work, "lists/partial").mkdir(parents=True)
            apt = [
                "apt-get",
                "--quiet",
                f"--option=Dir::Etc::SourceList={source}",
                "--option=Dir::Etc::SourceParts=-",
                f"--option=Dir::State::Lists={work}/lists",
                f"--option=Dir::Cache={work}",
                "--option=APT::Update::Error-Mode=any",
                "--option=APT::Sandbox::User=root",
                "--option=DPkg::Lock::Timeout=300",
            ]
            problem = self.problem([*apt, "update"], "apt refuses the feed")
            if not problem and self.module.params["name"]:
                command = [*apt, "install", "--simulate", "--no-install-recommends", *self.module.params["name"]]
                problem = self.problem(
                    command, "apt cannot install all packages from the feed. It may lack some; fill it again"
                )
        if problem:
            (self.path / "InRelease").unlink()  # so that the next run checks it again
            self.module.fail_json(msg=problem)

    def problem(self, command: list[str], title: str) -> str:
        """Why the command fails; "" if it does not."""
        code, out, err = self.module.run_command(
            command, environ_update={"LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
        )
        # apt explains broken dependencies on its output, and ends with the error.
        details = [line.strip() for line in out.splitlines() if " : " in line or line.startswith("   ")]
        return f"{title}: {' '.join([*details, err.strip()])}" if code else ""


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "hashes": {"type": "dict", "required": True},
            "source": {"type": "str", "required": True},
            "name": {"type": "list", "elements": "str", "required": True},
            "archive": {"type": "path"},
        },
        supports_check_mode=True,
    )
    copy = Copy(module)
    missing = copy.missing()
    if module.check_mode or (missing and not module.params["archive"]):
        module.exit_json(changed=bool(missing), missing=missing)
    if module.params["archive"]:
        try:
            copy.extract(module.params["archive"])
        except (OSError, ValueError, tarfile.TarError) as error:
            module.fail_json(msg=f"The feed cannot be copied to {copy.path}: {error}")
        if left := copy.missing():
            module.fail_json(msg=f"The feed was not copied completely to {copy.path}: {', '.join(left)}")
    if missing or module.params["name"]:
        copy.check()
    module.exit_json(changed=bool(missing), missing=missing)


if __name__ == "__main__":
    main()
