"""The config blocks that are kept on the controller."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from ansible_collections.tig_pi.stack.plugins.module_utils.lopy4.config_block import has_identity


class Shelf:
    """The config blocks that are kept, one file a chip."""

    def __init__(self, directory: Path, mac: str) -> None:
        self.path = directory / f"{mac.replace(':', '')}.config.bin"

    def block(self) -> bytes:
        return self.path.read_bytes() if self.path.exists() else b""

    def keep(self, block: bytes) -> None:
        """Keep a block that has an identity; one that was there and differs stays beside it under another name.

        Raises:
            OSError: it could not be kept; nothing may be erased then.
        """
        if not has_identity(block) or block == self.block():
            return
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.path.exists():
            number = 1
            while self.path.with_suffix(f".{number}.bin").exists():
                number += 1
            self.path.rename(self.path.with_suffix(f".{number}.bin"))
        handle, temporary = tempfile.mkstemp(dir=self.path.parent)  # mode 0600
        with os.fdopen(handle, "wb") as file:
            file.write(block)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self.path)
        if self.path.read_bytes() != block:
            raise OSError(f"{self.path} does not come back as it was written")
