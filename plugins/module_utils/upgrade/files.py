"""Take snapshots of the directories of services, which do not run, and of the settings of the host; and restore them."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ansible_collections.tig_pi.stack.plugins.module_utils.upgrade.packages import Failure, run

# InfluxDB never writes to these files again, so that a link keeps them. All others are copied.
UNCHANGING = ".tsm"
# Folders that are not kept.
CACHES = (".npm", ".cache", "__pycache__")
# The settings of the host: what packages and roles write.
SETTINGS = ("/etc", "/usr/local/lib/mosquitto", "/usr/local/lib/tig-pi", "/usr/local/libexec", "/usr/local/sbin")
# Accounts stay, and so does what the system itself keeps up to date.
ACCOUNTS = ("passwd", "group", "shadow", "gshadow", "subuid", "subgid")
NOT_SETTINGS = {*ACCOUNTS, *(f"{name}-" for name in ACCOUNTS), ".pwd.lock"} | {
    *("adjtime", "hostname", "hosts", "ld.so.cache", "machine-id", "mtab", "resolv.conf")
}


def size(source: Path) -> int:
    """How many bytes it takes to keep a directory."""
    return sum(path.lstat().st_blocks * 512 for path in _below(source) if path.suffix != UNCHANGING)


def _below(source: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(source):
        folders[:] = [each for each in folders if each not in CACHES]
        for each in folders + names:
            yield Path(folder, each)


def copy(source: Path, target: Path) -> None:
    """Copy a directory with owners, permissions and times; files that do not change are linked."""
    target.mkdir(parents=True)
    folders = [(source, target)]
    for path in _below(source):
        place = target / path.relative_to(source)
        mode = path.lstat().st_mode
        if stat.S_ISDIR(mode):
            place.mkdir()
            folders.append((path, place))
        elif stat.S_ISLNK(mode):
            place.symlink_to(os.readlink(path))
            _take_owner(path, place)
        elif stat.S_ISREG(mode):
            _copy_file(path, place)
    for path, place in folders:
        _take_owner(path, place)


def _copy_file(path: Path, place: Path) -> None:
    if path.suffix == UNCHANGING:
        with contextlib.suppress(OSError):  # another file system
            os.link(path, place)
            return
    state = path.stat()
    if state.st_blocks * 512 < state.st_size:
        run("cp", "--sparse=always", path, place)
    else:
        shutil.copyfile(path, place)
    _take_owner(path, place)


def _take_owner(path: Path, place: Path) -> None:
    """Give a copy the owner, permissions and times of its original."""
    state = path.lstat()
    os.chown(place, state.st_uid, state.st_gid, follow_symlinks=False)
    shutil.copystat(path, place, follow_symlinks=False)


def restore(source: Path, kept: Path, replaced: Path) -> None:
    """Restore a directory; what is there now is moved to `replaced`. It may be repeated after a power cut."""
    staged = source.with_name(f".{source.name}.tig-pi-kept")
    is_moved = replaced.exists()
    if is_moved and source.exists() and not staged.exists():
        return  # it was completed
    if not is_moved or not staged.exists():
        shutil.rmtree(staged, ignore_errors=True)
        copy(kept, staged)
        os.sync()  # a file system may write the new names before the content
    if source.exists():
        replaced.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # systemd creates an empty directory when the host starts between these two steps
        target = tempfile.mkdtemp(prefix=f"{replaced.name}.", dir=replaced.parent) if is_moved else replaced
        os.rename(source, target)
    os.rename(staged, source)


def refuse_mount(source: Path) -> None:
    """A directory that is a file system of its own cannot be replaced in one step."""
    if source.is_mount():
        raise Failure(
            f"{source} is a file system of its own, which this upgrade cannot put back. Make a backup (`make backup`), and run `make pi`."
        )


def settings() -> Iterator[Path]:
    for root in SETTINGS:
        for path in _below(Path(root)):
            if path.parent != Path("/etc") or path.name not in NOT_SETTINGS:
                yield path


def keep_settings(directory: Path) -> None:
    for path in settings():
        place = directory / path.relative_to("/")
        if path.is_symlink() or path.is_file():
            _keep_setting(path, place)
        elif path.is_dir():
            place.mkdir(parents=True, exist_ok=True)


def _keep_setting(path: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    shutil.copyfile(path, place, follow_symlinks=False)
    _take_owner(path, place)


def restore_settings(directory: Path, replaced: Path) -> int:
    """Write the settings that differ from those that were kept, and remove new ones; how many. The present ones go to `replaced`."""
    count = 0
    kept = {path for path in _below(directory) if path.is_symlink() or path.is_file()}
    for place in sorted(kept):
        path = Path("/", place.relative_to(directory))
        if _is_same(path, place):
            continue
        _set_aside(path, replaced)
        path.parent.mkdir(parents=True, exist_ok=True)
        staged = path.with_name(f".{path.name}.tig-pi-kept")
        _keep_setting(place, staged)
        os.replace(staged, path)
        count += 1
    for path in list(settings()):
        if (path.is_symlink() or path.is_file()) and directory / path.relative_to("/") not in kept:
            _set_aside(path, replaced)
            path.unlink()
            count += 1
    return count


def _set_aside(path: Path, replaced: Path) -> None:
    place = replaced / path.relative_to("/")
    if os.path.lexists(path) and not os.path.lexists(place):
        _keep_setting(path, place)


def _is_same(path: Path, place: Path) -> bool:
    if not os.path.lexists(path):
        return False
    if path.is_symlink() or place.is_symlink():
        return path.is_symlink() and place.is_symlink() and os.readlink(path) == os.readlink(place)
    mine, other = path.stat(), place.stat()
    keys = [(state.st_mode, state.st_uid, state.st_gid, state.st_size) for state in (mine, other)]
    return keys[0] == keys[1] and path.read_bytes() == place.read_bytes()
