"""Checks the declared interpreter on the controller, keeps the device's config block there, and has the module do the rest."""

from __future__ import annotations

import base64
import glob
from pathlib import Path

from ansible.errors import AnsibleActionFail
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase
from ansible_collections.tig_pi.stack.plugins.module_utils.lopy4.config_block import restored, with_file_system
from ansible_collections.tig_pi.stack.plugins.module_utils.lopy4.image import ImageError, load
from ansible_collections.tig_pi.stack.plugins.plugin_utils.lopy4.progress import Progress
from ansible_collections.tig_pi.stack.plugins.plugin_utils.lopy4.shelf import Shelf


class ActionModule(ActionBase):
    TRANSFERS_FILES = True
    _supports_check_mode = True

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        del tmp
        self.args = self._task.args.copy()
        self.task_vars = task_vars
        state = self.args.pop("state", "present")
        erase_fs = boolean(self.args.pop("erase_fs", False), strict=False)
        directory = Path(self.args.pop("config_block_directory"))
        self.file_system = self.args.pop("file_system", "littlefs")
        path, feed = self.args.pop("image", None), self.args.pop("feed", None)
        try:
            if state == "formatted":
                return {**result, **self._format(directory)}
            path = self._present(Path(path), feed)
            image = self._image(path)
            result.update(self._step("compare"))
            if not result["changed"] or result.get("failed") or state == "compared" or self._task.check_mode:
                return self._permitted(result, image, erase_fs)
            return {**result, **self._make(path, image, erase_fs, directory)}
        finally:
            self._remove_tmp_path(self._connection._shell.tmpdir)

    @staticmethod
    def _present(path: Path, feed: str | None) -> Path:
        """The declared file, or its copy in the feed if it is gone. It does not matter which, since the hash is declared, too."""
        if path.exists() or not feed:
            return path
        return next(Path(feed).glob(f"**/interpreters/{glob.escape(path.name)}"), path)

    def _image(self, path: Path):
        try:
            data = path.read_bytes()
        except OSError as error:
            raise AnsibleActionFail(f"lopy4_interpreter: {path}: {error.strerror}.") from error
        try:
            image = load(path.name, data, str(self.args.get("sha256") or ""), str(self.args.pop("release", "") or ""))
        except ImageError as error:
            raise AnsibleActionFail(str(error)) from error
        self.args.update(declared_platform=image.platform, declared_release=image.release)
        return image

    def _permitted(self, result: dict, image, erase_fs: bool) -> dict:
        """Refuse a change of the partition layout before anything is written: it destroys the file system."""
        there = result.get("platform")
        if there and there != image.platform and not erase_fs:
            result.update(failed=True, msg=self._refusal(there, image.platform))
        return result

    def _refusal(self, there: str, wanted: str) -> str:
        return (
            f"{self.args['name']}: a change from {there} to {wanted} divides the flash differently and erases the device's file system. "
            "Set lopy4_erase_fs: true to allow that; the config block is kept. Nothing was written."
        )

    def _make(self, path: Path, image, erase_fs: bool, directory: Path) -> dict:
        there = self._step("read")
        if there.get("failed"):
            return there
        if there["layout"] not in ("", image.platform) and not erase_fs:
            return {"failed": True, "changed": False, "msg": self._refusal(there["layout"], image.platform)}
        shelf, block = self._keep(there, directory)
        kept = shelf.block()
        remote = self._connection._shell.join_path(self._make_tmp_path(), "interpreter")
        self._transfer_file(str(path), remote)
        self._fixup_perms2([self._connection._shell.tmpdir, remote])
        done = self._step(
            "write",
            file=remote,
            file_name=path.name,
            layout=there["layout"],
            mac=there["mac"],  # the same chip as the one whose block is kept
            block=base64.b64encode(
                restored(there["layout"], block, kept) if image.platform == "pycom" else b""
            ).decode(),
        )
        if kept:
            done["backup"] = str(shelf.path)
        elif image.platform == "pycom":
            done.setdefault("warnings", []).append(
                f"{self.args['name']}: no config block of this chip is kept, so its LoRa MAC and Sigfox keys could not be restored."
            )
        return done

    def _keep(self, there: dict, directory: Path) -> tuple[Shelf, bytes]:
        """Keep the config block that was read; returns where the chip's is kept, and the block."""
        shelf, block = Shelf(directory, there["mac"]), base64.b64decode(there["block"])
        try:
            # Beside a table that is not Pycom's it may be anything, and must not take the place of one that is kept.
            if there["layout"] == "pycom" or not shelf.block():
                shelf.keep(block)
        except OSError as error:
            raise AnsibleActionFail(
                f"{self.args['name']}: its config block can't be kept in {directory}: {error}. Nothing was written."
            ) from error
        return shelf, block

    def _format(self, directory: Path) -> dict:
        if self._task.check_mode:
            return self._step("format")
        there = self._step("read")
        if there.get("failed"):
            return there
        shelf, block = self._keep(there, directory)
        more = {}
        if there["layout"] == "pycom":
            kept = shelf.block()
            # A blank one is what a cut leaves while it is written.
            whole = kept if kept and not block.strip(b"\xff") else restored("pycom", block, kept) or block
            wanted = with_file_system(whole, self.file_system)
            if wanted != block:
                more["block"] = base64.b64encode(wanted).decode()
        return self._step("format", mac=there["mac"], **more)

    def _step(self, step: str, **more) -> dict:
        with Progress(self, self.args["name"], self.task_vars) as progress:
            args = {**self.args, **more, "step": step, "progress": progress}
            return self._execute_module(
                module_name="tig_pi.stack.lopy4_interpreter", module_args=args, task_vars=self.task_vars
            )
