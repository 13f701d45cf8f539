"""The image that is written to cards: what matters of Raspberry Pi OS, with a kernel for the virtual machine."""

from __future__ import annotations

import hashlib
import json
import pathlib
import subprocess
import tempfile
import time

from virtual_pi import LABEL, Failure, say
from virtual_pi.files import lock
from virtual_pi.image import Image
from virtual_pi.podman import Podman

from . import BOOT_SIZE, BOOT_START, COMMAND_LINE, HERE, KERNEL, MB, RAM_DISK

RELEASE, ARCHITECTURE = "trixie", "amd64"
DISK_ID = "7469672d"
ROOT_SIZE = 700 * MB  # the first boot extends it to the card's end
TABLE = f"""label: dos
label-id: 0x{DISK_ID}
start={BOOT_START // 512},size={BOOT_SIZE // 512},type=c
start={(BOOT_START + BOOT_SIZE) // 512},type=83
"""
# The files of Raspberry Pi OS's boot partition that matter here.
BOOT_FILES = {
    "config.txt": f"kernel={KERNEL}\ninitramfs {RAM_DISK} followkernel\n",
    COMMAND_LINE: f"console=tty1 root=PARTUUID={DISK_ID}-02 rootfstype=ext4 fsck.repair=yes rootwait\n",
    "user-data": "#cloud-config\n# Examples.\n",
    "meta-data": "instance_id: rpios-image\n",
    "network-config": "network: {version: 2}\n",
}


class CardImage:
    """Built once for each set of inputs. The virtual Pi's image is one of them, so both have the same packages and apt settings."""

    def __init__(self, podman: Podman, cache: pathlib.Path) -> None:
        self.podman, self.base = podman, Image(podman, cache, RELEASE)
        if self.base.architecture != ARCHITECTURE:
            raise Failure(
                f"a virtual machine needs a computer with {ARCHITECTURE}, and this one has {self.base.architecture}"
            )
        self.packages = [
            line for line in (HERE / "packages.txt").read_text().splitlines() if line and not line.startswith("#")
        ]
        self.scripts = [HERE / "setup.sh", HERE.parent / "raspberry-pi-os.sh"]
        scripts = [script.read_text() for script in self.scripts]
        inputs = [self.base.tag, self.packages, scripts, TABLE, ROOT_SIZE, BOOT_FILES]
        self.stem = f"card-{RELEASE}-{ARCHITECTURE}"
        self.path = cache / "images" / f"{self.stem}-{hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:12]}.img"

    @property
    def hash_file(self) -> pathlib.Path:
        return self.path.with_suffix(".sha256")

    def ensure(self) -> pathlib.Path:
        """The path of the image, which is built if it is missing."""
        with lock(self.path.with_name(f"{self.stem}.lock"), "another run that builds the image of cards"):
            if not self.path.is_file():
                self.base.ensure()
                started = time.monotonic()
                say("building the image of cards, about a minute")
                with tempfile.TemporaryDirectory(prefix=".card-", dir=self.path.parent) as folder:
                    self._fill(pathlib.Path(folder))
                    self._assemble(pathlib.Path(folder))
                for old in self.path.parent.glob(f"{self.stem}-*"):
                    if old not in (self.path, self.hash_file):
                        old.unlink(missing_ok=True)
                say(f"the image of cards is built ({time.monotonic() - started:.0f} s)")
        return self.path

    def _fill(self, folder: pathlib.Path) -> None:
        """Make the kernel, the initial RAM disk and the root file system in a container."""
        builder = f"{LABEL}-build-{self.stem}"
        remove = ["rm", "--force", "--ignore", "--time=0", builder]
        self.podman.run(*remove)
        try:
            self.podman.run(
                "run",
                f"--name={builder}",
                "--cap-add=SYS_ADMIN",  # setup.sh mounts its root again
                f"--volume={folder}:/card",
                *[f"--volume={script}:/root/{script.name}:ro" for script in self.scripts],
                f"--env=DISK_ID={DISK_ID}",
                f"--env=ROOT_SIZE={ROOT_SIZE}",
                self.base.tag,
                *["sh", "/root/setup.sh", *self.packages],
            )
        finally:
            self.podman.run(*remove)

    def _assemble(self, folder: pathlib.Path) -> None:
        """Put both partitions into one file."""
        for name, content in BOOT_FILES.items():
            (folder / name).write_text(content)
        image, start = folder / "card.img", BOOT_START + BOOT_SIZE
        with image.open("wb") as file:
            file.truncate(start + ROOT_SIZE)
        run("/usr/sbin/sfdisk", "--quiet", image, data=TABLE)
        # FAT32 needs so many clusters that they must be small.
        fat = ["/usr/sbin/mkfs.fat", "-F", "32", "-s", "1", "-n", "BOOTFS"]
        run(*fat, "--offset", BOOT_START // 512, image, BOOT_SIZE // 1024)
        files = [folder / name for name in (KERNEL, RAM_DISK, *BOOT_FILES)]
        run("mcopy", "-i", f"{image}@@{BOOT_START}", *files, "::/")
        root = ["dd", f"if={folder}/root.ext4", f"of={image}", "bs=1M", f"seek={start // MB}"]
        run(*root, "conv=notrunc,sparse", "status=none")
        self.hash_file.write_text(run("sha256sum", image).split()[0] + "\n")
        image.replace(self.path)


def run(*command: object, data: str = "") -> str:
    """Run a program and return its output; a Failure with its errors if it fails."""
    arguments = [str(word) for word in command]
    try:
        result = subprocess.run(arguments, input=data, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise Failure(f"{arguments[0]} is not installed; run bin/prerequisites test") from None
    if result.returncode != 0:
        raise Failure(f"{arguments[0]} failed: {result.stderr.strip() or result.returncode}")
    return result.stdout
