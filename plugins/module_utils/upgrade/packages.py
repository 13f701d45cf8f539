"""Keep installed packages as they are, and install them again without any repository.

A package is kept as hard links to its files, since dpkg replaces files and never writes to them; it is packed only if it is needed. This
file is also the program that apt runs before it changes packages (DPkg::Pre-Install-Pkgs), so that it depends on nothing else.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

# The directory of what is kept, beside the program.
KEPT = "packages"
# Fields of dpkg's database that a package itself does not have.
NOT_IN_A_PACKAGE = re.compile(
    r"^(Status|Config-Version|Conffiles|Triggers-Pending|Triggers-Awaited):.*\n(?:[ \t].*\n)*", re.MULTILINE
)
# Files of settings are written in place.
SETTINGS = "/etc/"
POLICY = Path("/usr/sbin/policy-rc.d")
# What POLICY says while packages are restored: no service is started or stopped.
NO_STARTS = "#!/bin/sh\n# tig-pi: old versions of packages are being installed\nexit 101\n"
LOCKED = "locked by another process"
LOCK_TIMEOUT = 300  # seconds


class Failure(Exception):
    """The text is for people."""


def run(*command: str | os.PathLike, check: bool = True) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    environment["PATH"] = f"{environment.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin"
    done = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if check and done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise Failure(f"{' '.join(map(str, command[:2]))}: {'; '.join(said[-5:]) or f'exit status {done.returncode}'}")
    return done


def present() -> dict[str, tuple[str, bool]]:
    """Version of each package, by its name and architecture, and whether it is completely installed."""
    shown = run("dpkg-query", "--show", "--showformat=${db:Status-Status} ${Package}:${Architecture} ${Version}\\n")
    found = {}
    for line in shown.stdout.splitlines():
        status, name, *version = line.split(" ")
        if status not in ("not-installed", "config-files"):
            found[name] = (version[0] if version else "", status == "installed")
    return found


def size(names: Iterable[str]) -> int:
    """How many bytes the files of packages take, of those that are installed."""
    shown = run("dpkg-query", "--show", "--showformat=${Installed-Size}\\n", *names, check=False)
    return 1024 * sum(int(line) for line in shown.stdout.split() if line.isdigit())


def installed() -> dict[str, str]:
    return {name: version for name, (version, is_complete) in present().items() if is_complete}


def keep(name: str, directory: Path) -> None:
    """Keep an installed package, such as `influxdb:arm64`, unless it was kept before."""
    place = directory / name.replace(":", "_")
    if place.exists():
        return
    partial = directory / f".{place.name}"
    shutil.rmtree(partial, ignore_errors=True)
    control = partial / "DEBIAN"
    control.mkdir(parents=True)
    described = run("dpkg-query", "--status", name).stdout
    (control / "control").write_text(NOT_IN_A_PACKAGE.sub("", described).strip() + "\n")
    for line in run("dpkg-query", "--control-path", name).stdout.splitlines():
        path = Path(line)
        if path.suffix not in (".list", ".conffiles"):
            shutil.copy2(path, control / path.suffix[1:])
        elif path.suffix == ".conffiles":
            lines = [one for one in path.read_text().splitlines() if os.path.lexists(one.split(" ")[-1])]
            (control / "conffiles").write_text("".join(f"{one}\n" for one in lines))
    listed = [line for line in run("dpkg-query", "--listfiles", name).stdout.splitlines() if line.startswith("/")]
    folders = {os.path.dirname(path) for path in listed}
    for path in listed:
        if path != "/." and os.path.lexists(path):
            _keep_file(path, partial / path[1:], path in folders)
    os.rename(partial, place)


def _keep_file(path: str, target: Path, is_folder: bool) -> None:
    """Keep a file, link or folder. /lib is a folder of some packages, and a link to another one on the host."""
    if os.path.isdir(path) and (is_folder or not os.path.islink(path)):
        target.mkdir(parents=True, exist_ok=True)
        state = os.stat(path)
        os.chown(target, state.st_uid, state.st_gid)
        target.chmod(state.st_mode & 0o7777)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if not path.startswith(SETTINGS):
        with contextlib.suppress(OSError):  # another file system
            os.link(path, target, follow_symlinks=False)
            return
    shutil.copy2(path, target, follow_symlinks=False)
    state = os.lstat(path)
    os.chown(target, state.st_uid, state.st_gid, follow_symlinks=False)


def changes(directory: Path, before: dict[str, str]) -> dict[str, list[str]]:
    """The packages that have another version than before, of those that were kept, and those that are new."""
    kept = {path.name.replace("_", ":") for path in directory.glob("[!.]*_*")} & before.keys()
    now = present()
    return {
        "replaced": sorted(name for name in kept if now.get(name) != (before[name], True)),
        "new": sorted(now.keys() - before.keys()),
    }


def restore(directory: Path, before: dict[str, str]) -> None:
    """Install the previous versions again, and remove packages that were not installed."""
    said = ""
    with _no_starts(), _packed(changes(directory, before)["replaced"], directory) as files:
        if files:
            forced = ["--force-downgrade", "--force-overwrite", "--force-confold"]
            said = _dpkg(*forced, "--install", *files, check=False)  # one may depend on another one that comes later
        if new := changes(directory, before)["new"]:
            _dpkg("--remove", *new)
        _dpkg("--configure", "--pending")
    after = installed()
    if differs := sorted(name for name, version in before.items() if after.get(name) != version):
        kinds = [f"{name.split(':')[0]} {before[name]} (now {after.get(name, 'none')})" for name in differs]
        raise Failure(f"these packages do not have their previous versions: {', '.join(kinds)}. {said}".strip())


@contextlib.contextmanager
def _packed(names: Iterable[str], directory: Path) -> Iterator[list[Path]]:
    """Packages that are installed from their files, which are removed afterwards."""
    place = directory / ".packed"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    files = [place / f"{name.replace(':', '_')}.deb" for name in names]
    try:
        for file in files:
            run("dpkg-deb", "--build", "--nocheck", "-Znone", directory / file.stem, file)
        yield files
    finally:
        shutil.rmtree(place, ignore_errors=True)


@contextlib.contextmanager
def _no_starts() -> Iterator[None]:
    is_ours = not POLICY.exists() or POLICY.read_text() == NO_STARTS
    if is_ours:
        POLICY.write_text(NO_STARTS)
        POLICY.chmod(0o755)
    try:
        yield
    finally:
        if is_ours:
            POLICY.unlink()


def complete() -> None:
    """Complete what dpkg was doing when the power was cut, as far as it can be."""
    with _no_starts():
        _dpkg("--configure", "--pending", check=False)


def _dpkg(*arguments: str | os.PathLike, check: bool = True) -> str:
    """Run dpkg as soon as no other program uses it; the end of its errors."""
    deadline = time.monotonic() + LOCK_TIMEOUT
    while True:
        done = run("dpkg", *arguments, check=False)
        if done.returncode == 0 or LOCKED not in done.stderr or time.monotonic() > deadline:
            break
        time.sleep(2)
    said = "; ".join(done.stderr.strip().splitlines()[-5:])
    if check and done.returncode:
        raise Failure(f"dpkg {arguments[0]}: {said}")
    return said


def changed(lines: Iterable[str]) -> Iterator[str]:
    """The installed packages that apt is about to change, from what it passes to its hooks in version 3."""
    lines = iter(lines)
    for line in lines:  # the version, and apt's configuration
        if not line.strip():
            break
    for line in lines:
        # name, version, architecture and multi-arch of the previous package; the direction; the same of the new one; the file or an action
        name, version, architecture, *_, action = line.split()
        if version != "-" and action != "**CONFIGURE**":
            yield f"{name}:{architecture}"


def main() -> int:
    try:
        here = installed()
        for name in changed(sys.stdin):
            if name in here:
                keep(name, Path(__file__).parent / KEPT)
    except (Failure, OSError) as error:
        print(f"tig-pi: a package cannot be kept for a rollback, so nothing is changed: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
