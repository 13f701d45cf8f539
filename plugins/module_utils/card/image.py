"""An image of Raspberry Pi OS, plain or compressed with xz, and its way onto a card."""

from __future__ import annotations

import contextlib
import hashlib
import lzma
import os
import tempfile
from collections.abc import Callable, Iterator

from ansible_collections.tig_pi.stack.plugins.module_utils.card.programs import CardProblem, run, size_text

CHUNK = 4 << 20
AGAIN = "Download it again, with the hash of its page (card_image_sha256)."


def chunks(file, size: int | None = None) -> Iterator[bytes]:
    """The content of a file, or its first bytes."""
    left = size
    while left is None or left > 0:
        data = file.read(CHUNK if left is None else min(CHUNK, left))
        if not data:
            return
        left = left if left is None else left - len(data)
        yield data


def digest(parts: Iterator[bytes]) -> str:
    result = hashlib.sha256()
    for part in parts:
        result.update(part)
    return result.hexdigest()


class Image:
    """An image file. Its hash is that of the file as it was downloaded."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.is_compressed = path.endswith(".xz")
        if not path.endswith((".img", ".img.xz")):
            raise CardProblem(f"{path} is neither an .img nor an .img.xz file (card_image). Unpack it first.")
        if not os.path.isfile(path):
            raise CardProblem(f"There is no image {path} (card_image).")
        self.size = self._size()
        if not self.size:
            raise CardProblem(f"{path} is empty (card_image).")

    def _size(self) -> int:
        """Size of the image on the card."""
        if not self.is_compressed:
            return os.path.getsize(self.path)
        try:
            totals = run(["xz", "--robot", "--list", self.path]).splitlines()[-1].split("\t")
        except CardProblem as problem:
            raise CardProblem(f"{self.path} is not whole (card_image): {problem} {AGAIN}") from None
        return int(totals[4])

    def check(self, sha256: str) -> None:
        """Compare the file with the hash that its publisher gives."""
        with open(self.path, "rb") as file:
            actual = digest(chunks(file))
        if actual != sha256.lower():
            raise CardProblem(
                f"{self.path} has the SHA-256 {actual}, not {sha256} (card_image_sha256). "
                "Copy the hash from the page from which you downloaded the image, or download the image again."
            )

    @contextlib.contextmanager
    def unpacked(self) -> Iterator:
        """The open image, without its compression."""
        with lzma.open(self.path) if self.is_compressed else open(self.path, "rb") as file:
            try:
                yield file
            except (lzma.LZMAError, EOFError) as error:
                raise CardProblem(f"{self.path} cannot be unpacked (card_image): {error}. {AGAIN}") from error

    @contextlib.contextmanager
    def beginning(self, end: Callable[[str], int]) -> Iterator[str]:
        """The path of a plain image that is complete up to `end`, the end of its boot partition, of which its first bytes know."""
        if not self.is_compressed:
            yield self.path
            return
        with tempfile.NamedTemporaryFile(suffix=".img") as copy:
            with self.unpacked() as file:
                copy.write(file.read(CHUNK))
                copy.truncate(self.size)
                copy.flush()
                for part in chunks(file, end(copy.name) - CHUNK):
                    copy.write(part)
            copy.flush()
            yield copy.name

    def write(self, card) -> None:
        """Write the image to the beginning of an open card, then read it back and compare."""
        written = hashlib.sha256()
        card.seek(0)
        with self.unpacked() as file:
            for part in chunks(file):
                card.write(part)
                written.update(part)
        forget(card)
        card.seek(0)
        if digest(chunks(card, self.size)) != written.hexdigest():
            raise CardProblem(
                f"What was read back from the card is not what was written ({size_text(self.size)}): use another card or reader."
            )


def forget(file) -> None:
    """Write everything to the medium, so that the next read comes from there and not from memory."""
    file.flush()
    os.fsync(file.fileno())
    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
