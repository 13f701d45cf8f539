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


def size(source: Path, target: Path) -> int:
    """How many bytes a snapshot of a directory takes in another one."""
    is_linked = source.stat().st_dev == target.stat().st_dev
    paths = (path for path in _below(source) if not (is_linked and path.suffix == UNCHANGING))
    return sum(path.lstat().st_blocks * 512 for path in paths)


def _below(source: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(source):
        folders[:] = [each for each in folders if each not in CACHES]
        for each in folders + names:
            yield Path(folder, each)


def copy(source: Path, target: Path) -> None:
    """Copy a directory with owners, permissions and times; files that do not change are linked."""
    target.mkdir(mode=0o700, parents=True)  # until all files in it have their permissions
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
    for path, place in reversed(folders):
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


def refuse_other_file_system(source: Path) -> None:
    """Data on another file system is neither copied nor replaced in one step; nor is a directory that is a symbolic link."""
    device = source.parent.stat().st_dev
    others = (path for path in (source, *_below(source)) if path.is_dir() and path.stat().st_dev != device)
    if other := source if source.is_symlink() or source.is_mount() else next(others, None):
        raise Failure(
            f"{other} is a link or a file system of its own, which an upgrade cannot restore. "
            "Make a backup (`make backup`), and run `make pi`."
        )


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _is_file(path: Path) -> bool:
    return path.is_symlink() or path.is_file()


def settings() -> Iterator[Path]:
    """Files and folders, each folder before what is in it."""
    for root in map(Path, SETTINGS):
        if _is_folder(root):
            yield root
        for path in _below(root):
            if path.parent != Path("/etc") or path.name not in NOT_SETTINGS:
                yield path


def keep_settings(directory: Path) -> None:
    folders = []
    for path in settings():
        place = directory / path.relative_to("/")
        if _is_file(path):
            _keep_setting(path, place)
        elif _is_folder(path):
            place.mkdir(parents=True, exist_ok=True)
            folders.append((path, place))
    for path, place in reversed(folders):
        _take_owner(path, place)


def _keep_setting(path: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    if not path.is_symlink():
        place.touch(mode=0o600)  # until it has its owner and permissions
    shutil.copyfile(path, place, follow_symlinks=False)
    _take_owner(path, place)


def restore_settings(directory: Path, replaced: Path) -> int:
    """Remove settings that are new, and write those that differ from the kept ones; how many. The present ones go to `replaced`."""
    count = 0
    for path in reversed(list(settings())):
        place = directory / path.relative_to("/")
        if _is_file(path) and not _is_file(place):
            _set_aside(path, replaced)
            path.unlink()
            count += 1
        elif _is_folder(path) and not _is_folder(place):
            with contextlib.suppress(OSError):  # there are caches in it
                path.rmdir()
                count += 1
    for place in sorted(_below(directory)):
        path = Path("/", place.relative_to(directory))
        if _is_same(path, place) or not any(path.is_relative_to(root) for root in SETTINGS):
            continue
        if _is_folder(place):
            path.mkdir(mode=0o700, exist_ok=True)
            _take_owner(place, path)
        else:
            _set_aside(path, replaced)
            staged = path.with_name(f".{path.name}.tig-pi-kept")
            _keep_setting(place, staged)
            os.replace(staged, path)
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
    keys = [(state.st_mode, state.st_uid, state.st_gid) for state in (path.stat(), place.stat())]
    return keys[0] == keys[1] and (path.is_dir() or path.read_bytes() == place.read_bytes())
