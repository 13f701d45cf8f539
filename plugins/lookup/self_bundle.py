"""What a Pi sets itself up from: a part of this project, and the site's inventory with its secrets."""

from __future__ import annotations

DOCUMENTATION = r"""
name: self_bundle
short_description: Pack the project and the inventory of the site, for a Pi that sets itself up
description:
  - Packs what C(bin/self) needs on a Pi as a compressed tar file, in base64, the same for the same files. It has all secrets of the site
    but the recovery key of its backups.
options:
  _terms:
    description:
      - What C(self.json) in it is, the description for C(bin/self). C(inventory), the paths of the inventory in it, is added.
      - C(time) becomes that of the feed, if this is later, since a signature of the future is not valid.
    required: true
  recovery_key:
    description: The key that must not be in it.
    type: str
    default: ""
  feed:
    description:
      - The feed that the Pi uses, as C(directory), C(fingerprint), C(release) and C(architecture); {} for none.
      - It is checked that it is complete, unchanged, and has the Python packages for the Pi.
    type: dict
    default: {}
"""

EXAMPLES = r"""
card_secret_files:
  tig-pi.bundle: "{{ lookup('tig_pi.stack.self_bundle', {'name': 'pi.local', 'variables': {}}) }}"
"""

RETURN = r"""
_raw:
  description: The bundles.
  type: list
  elements: str
"""

import base64
import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase
from ansible_collections.tig_pi.stack.plugins.plugin_utils.description import is_left_out, packed, read
from ansible_collections.tig_pi.stack.plugins.plugin_utils.feed import Feed

REPOSITORY = Path(__file__).resolve().parents[2]
# What runs on the Pi. Untracked files are in it as well: a site may have added a template.
PROJECT = (
    *("ansible.cfg", "contract.yml", "galaxy.yml", "requirements.txt"),
    *("bin", "firmware", "meta", "packaging", "playbooks", "plugins", "roles", "templates"),
)
# dpkg's architecture: that of wheels. There are none of all packages for armhf.
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
VAULT = re.compile(rb"^\$ANSIBLE_VAULT;|!vault\b", re.MULTILINE)


class LookupModule(LookupBase):
    def run(self, terms, variables=None, **kwargs):
        self.set_options(var_options=variables, direct=kwargs)
        signed = _check(**feed) if (feed := self.get_option("feed")) else 0
        inventory = (variables or {}).get("inventory_dir")
        if not inventory:
            raise AnsibleError("self_bundle: there is no inventory directory; run with -i inventories/<site>.")
        folder = Path("inventories", Path(inventory).name)
        sources = [_below(Path(inventory), Path(source)) for source in variables["ansible_inventory_sources"]]
        files = {
            **{path.relative_to(REPOSITORY): path for path in _files(REPOSITORY, PROJECT)},
            **{folder / path.relative_to(inventory): path for path in _inventory(Path(inventory))},
        }
        _refuse(files, self.get_option("recovery_key").encode())
        about = {"inventory": [str(folder / source) for source in sources]}
        return [_packed(files, {**term, **about, "time": max(term.get("time", 0), signed)}) for term in terms]


def _check(directory: str, fingerprint: str, release: str, architecture: str) -> int:
    """When the feed was signed."""
    feed = Feed(directory, release, architecture)
    feed.verified(fingerprint)
    machine = MACHINES.get(architecture, "")
    if not any(name.startswith("python/") and name.endswith(f"_{machine}.whl") for name in feed.files):
        raise AnsibleError(
            f"The feed {feed.directory} has no Python packages for {architecture}, which a Pi that sets itself up needs. "
            + (
                f"Fill it again: {feed.command}"
                if machine
                else "Write the card without SELF=1, or with an image of 64 bits."
            )
        )
    # One minute later: the times of files are less exact than that of a signature.
    return max(int(path.stat().st_mtime) for path in feed.directory.glob("*Release*")) + 60


def _refuse(files: dict[Path, Path], key: bytes) -> None:
    for path in files.values():
        if key and key in path.read_bytes():
            raise AnsibleError(
                f"self_bundle: {path} has the recovery key of the backups, which must not be on a card. Write it to "
                "secrets/backup/recovery_key, and remove it there."
            )


def _below(inventory: Path, source: Path) -> Path:
    try:
        return source.relative_to(inventory)
    except ValueError:
        raise AnsibleError(
            f"self_bundle: the inventory is in several directories, {inventory} and {source}; a Pi that sets itself up needs it in one."
        ) from None


def _files(directory: Path, names: Iterable[str]) -> Iterator[Path]:
    for name in names:
        for path in [directory / name, *sorted((directory / name).rglob("*"))]:
            if path.is_file() and "__pycache__" not in path.parts:
                yield path


def _inventory(directory: Path) -> Iterator[Path]:
    """The files of the inventory, without the recovery key and hidden ones. The Pi has nobody who types the password of a vault."""
    for path in _files(directory, sorted(os.listdir(directory))):
        if is_left_out(path.relative_to(directory)):
            continue
        if VAULT.search(path.read_bytes()):
            raise AnsibleError(
                f"self_bundle: {path} is encrypted with ansible-vault, and a Pi that sets itself up has nobody who types its password. "
                "Write the card without SELF=1, or move the secret to a file in secrets/."
            )
        yield path


def _packed(files: dict[Path, Path], about: dict) -> str:
    contents = {str(name): read(path) for name, path in sorted(files.items())}
    contents["self.json"] = (json.dumps(about, indent=1).encode(), 0o600)
    return base64.encodebytes(packed(contents)).decode()
