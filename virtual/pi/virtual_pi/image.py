"""The image of a blank Pi."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import time

from . import LABEL, Failure, say
from .files import archive, lock
from .host import host_architecture
from .mirrors import apt_targets, apt_transport_options, mirrors, private_certificates
from .podman import Podman

HERE = pathlib.Path(__file__).resolve().parent.parent
RELEASES = ("trixie", "bookworm")  # what Raspberry Pi OS is built on


class Image:
    """The image of a blank Pi, built once per release, architecture and set of inputs."""

    def __init__(self, podman: Podman, cache: pathlib.Path, release: str) -> None:
        self.podman, self.release, self.architecture = podman, release, host_architecture()
        self.folder = cache / "images"
        self.packages = [
            line for line in (HERE / "packages.txt").read_text().splitlines() if line and not line.startswith("#")
        ]
        self.mirrors = mirrors(release, apt_targets(), os.environ.get("TIG_PI_DEBIAN_MIRROR", ""))
        self.apt_options = apt_transport_options()
        self.certificates = private_certificates()
        self.setup = (HERE / "setup.sh").read_text()
        inputs = [self.packages, self.mirrors, self.apt_options, self.certificates, self.setup]
        digest = hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:12]
        self.stem = f"{release}-{self.architecture}"
        self.tag = f"localhost/{LABEL}:{self.stem}-{digest}"
        self.saved = self.folder / f"{self.stem}-{digest}.tar"

    def ensure(self) -> str:
        """The image's tag. If podman does not have the image, load it from the cache or build it."""
        if self.podman.succeeds("image", "exists", self.tag):
            return self.tag
        with lock(self.folder / f"{self.stem}.lock", f"another run that builds the {self.release} image"):
            if self.podman.succeeds("image", "exists", self.tag):
                return self.tag
            if self.saved.is_file():
                say(f"loading the {self.release} image from the cache")
                self.podman.run("load", "--quiet", "--input", str(self.saved))
            else:
                self.build()
        return self.tag

    def build(self) -> None:
        started = time.monotonic()
        say(f"building the {self.release} image, about a minute")
        builder = f"{LABEL}-build-{self.stem}"
        self.podman.run("rm", "--force", "--ignore", "--time=0", builder)
        base = self.base()
        try:
            command = ["sh", "/root/setup.sh", *self.packages]
            self.podman.run("create", f"--name={builder}", base, *command)
            files = {"root/setup.sh": (self.setup, 0o755)}
            if self.apt_options:
                files["etc/apt/apt.conf.d/90host"] = ("\n".join(self.apt_options) + "\n", 0o644)
            for number, certificate in enumerate(self.certificates):
                files[f"usr/local/share/ca-certificates/host-{number}.crt"] = (certificate + "\n", 0o644)
            self.podman.run("cp", "-", f"{builder}:/", data=archive(files))
            self.podman.run("start", "--attach", builder)
            self.podman.run("commit", "--quiet", '--change=CMD ["/sbin/init"]', builder, self.tag)
        finally:
            self.podman.run("rm", "--force", "--ignore", "--time=0", builder)
        self.save()
        say(f"the {self.release} image is built ({time.monotonic() - started:.0f} s)")

    def base(self) -> str:
        """A plain Debian, from a container registry if one can be reached, else bootstrapped from a mirror."""
        if self.podman.succeeds("pull", "--quiet", f"debian:{self.release}"):
            return f"debian:{self.release}"
        if not shutil.which("mmdebstrap"):
            raise Failure(
                f"no container registry has debian:{self.release} or can be reached, and mmdebstrap is not installed; "
                "run bin/prerequisites demo"
            )
        base = f"localhost/{LABEL}-base:{self.stem}"
        with tempfile.TemporaryDirectory(prefix=f"{LABEL}-", dir="/var/tmp") as folder:
            tarball = pathlib.Path(folder) / "base.tar"
            command = [
                *([] if os.geteuid() == 0 else ["sudo"]),
                *["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(self.packages)}"],
                *[f"--aptopt={option}" for option in self.apt_options],
                *[self.release, str(tarball), *self.mirrors],
            ]
            result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
            if result.returncode != 0:
                raise Failure(
                    f"Debian {self.release} could be downloaded neither from a container registry nor from the mirror of "
                    f"this machine's apt; mmdebstrap: {result.stderr.strip()[-800:]}"
                )
            self.podman.run("import", "--quiet", str(tarball), base)
        return base

    def save(self) -> None:
        """Save the image in the cache and remove the ones that it replaces."""
        partial = self.saved.with_suffix(".partial")
        partial.unlink(missing_ok=True)
        self.podman.run("save", "--quiet", f"--output={partial}", self.tag)
        partial.replace(self.saved)
        for old in self.folder.glob(f"{self.stem}-*.tar"):
            if old != self.saved:
                old.unlink(missing_ok=True)
        for tag in self.podman.run("images", "--format={{.Repository}}:{{.Tag}}").split():
            if tag.startswith(f"localhost/{LABEL}:{self.stem}-") and tag != self.tag:
                self.podman.run("rmi", tag, check=False)  # fails if a Pi uses it
