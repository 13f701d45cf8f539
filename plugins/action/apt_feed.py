"""Check a feed on the controller, and copy it to the host."""

from __future__ import annotations

import hashlib
import os
import tarfile
import tempfile

from ansible import constants
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.tig_pi.stack.plugins.filter.apt import apt_source
from ansible_collections.tig_pi.stack.plugins.filter.packages import unmet_packages
from ansible_collections.tig_pi.stack.plugins.plugin_utils.feed import CONTROLLER, INDEX, Feed

OPTIONS = {
    "src": {"type": "str", "required": True},
    "dest": {"type": "str", "required": True},
    "fingerprint": {"type": "str", "required": True},
    "release": {"type": "str", "required": True},
    "architecture": {"type": "str", "required": True},
    "name": {"type": "list", "elements": "str", "required": True},
}


class ActionModule(ActionBase):
    TRANSFERS_FILES = False  # it makes its own temporary directory, and only if a file is missing
    _supports_check_mode = True

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        del tmp
        _, args = self.validate_argument_spec(OPTIONS)
        facts = task_vars.get("ansible_facts", {})
        if "packages" not in facts:
            raise AnsibleActionFail("apt_feed: gather package facts first.")
        feed = Feed(args["src"], args["release"], args["architecture"])
        # Its packages do not expire, and the clock of a host without internet may be wrong in either direction.
        dates = {"Check-Valid-Until": "no", "Check-Date": "no"}
        source = apt_source(f"file://{args['dest']}", "./", "", feed.verified(args["fingerprint"]), dates)
        wanted = unmet_packages(args["name"], facts)
        feed.require(wanted)

        hashes = {name: entry["sha256"] for name, entry in feed.files.items() if not name.startswith(CONTROLLER)}
        hashes |= {name: hashlib.sha256((feed.directory / name).read_bytes()).hexdigest() for name in INDEX}
        options = {"path": args["dest"], "hashes": hashes, "source": source, "name": wanted}
        copy = self._execute_module("tig_pi.stack.apt_feed", options, task_vars=task_vars)
        if copy.get("missing") and not self._task.check_mode:
            try:
                options["archive"] = self._transferred(feed, [name for name in hashes if name in copy["missing"]])
                copy = self._execute_module("tig_pi.stack.apt_feed", options, task_vars=task_vars)
            finally:
                self._remove_tmp_path(self._connection._shell.tmpdir)
        return result | copy | {"source": source}

    def _transferred(self, feed: Feed, names: list[str]) -> str:
        """The path of a tar file on the host with files of the feed."""
        self._make_tmp_path()
        target = self._connection._shell.join_path(self._connection._shell.tmpdir, "feed.tar")
        with tempfile.TemporaryDirectory(dir=constants.DEFAULT_LOCAL_TMP) as directory:
            source = os.path.join(directory, "feed.tar")
            with tarfile.open(source, "w") as tar:
                for name in names:
                    tar.add(feed.directory / name, arcname=name)
            self._transfer_file(source, target)
        self._fixup_perms2((self._connection._shell.tmpdir, target))
        return target
