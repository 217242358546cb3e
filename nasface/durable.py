"""Files that survive a power failure, and temporary ones that do not outlive their writer for long.

A file is flushed to the disk before it takes its place, and its folder after that. Until then it is in a temporary
folder. Its process holds a lock on that folder, which the system releases when the process dies: what nobody holds can
be removed.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

if sys.platform != "win32":
    import fcntl

_POSIX = os.name == "posix"  # elsewhere folders cannot be flushed, and what is open cannot be moved

STALE_S = 3600.0
"""Where there are no locks, what was last written to this many seconds ago counts as abandoned."""


def flush(path: Path) -> None:
    """Wait until the content of a file, or the entries of a folder, are on the disk itself."""
    if not _POSIX and path.is_dir():
        return
    handle = _open(path)
    try:
        # macOS, whose fsync does not empty the cache of the disk
        full = getattr(fcntl, "F_FULLFSYNC", None) if _POSIX else None
        if full is not None:
            with suppress(OSError):  # not on every file system
                fcntl.fcntl(handle, full)
                return
        os.fsync(handle)
    except OSError as err:
        if err.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that cannot flush folders
            raise
    finally:
        os.close(handle)


def make_folder(folder: Path) -> bool:
    """Make a folder, and those above it, so that they survive a power failure; return whether it is new."""
    if folder.is_dir():
        return False
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        if folder.is_dir():  # another process was faster
            return False
        raise
    for path in missing:
        flush(path.parent)
    return True


def put(temporary: Path, path: Path) -> None:
    """Move a finished file or folder of files to its place on the same disk, in one step that survives a power failure.

    Raises:
        OSError: also when `temporary` is a folder and there is one already; nothing has changed then.
    """
    if temporary.is_dir():
        for part in temporary.iterdir():
            flush(part)
    flush(temporary)
    temporary.replace(path)
    flush(path.parent)


@contextmanager
def temporary_folder(parent: Path, prefix: str, suffix: str = "") -> Iterator[Path]:
    """Yield a new folder that `remove_abandoned` leaves alone, and that is gone after the block unless it was moved.

    Args:
        parent: where it is made.
        prefix: with which its name begins.
        suffix: with which its name ends.
    """
    folder, lock = _locked(lambda: parent / f"{prefix}{uuid4().hex[:12]}{suffix}")
    try:
        yield folder
    finally:
        _remove(folder)
        if lock is not None:
            os.close(lock)


def remove_abandoned(paths: Iterable[Path]) -> None:
    """Remove those temporary files and folders whose writer is dead. What cannot be removed stays."""
    for path in paths:
        with suppress(OSError):  # another process may have been faster
            if not _POSIX:
                _remove_if_stale(path)
                continue
            handle = _open(path)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(path)
            except BlockingIOError:
                continue  # its writer lives
            except OSError:
                _remove_if_stale(path)
            finally:
                os.close(handle)


def _locked(name: Callable[[], Path]) -> tuple[Path, int | None]:
    """Make a folder; return it and the handle that locks it, if there are locks."""
    while True:
        folder = name()
        folder.mkdir()
        if not _POSIX:
            return folder, None
        with suppress(FileNotFoundError):  # another process took it for abandoned before it was locked
            handle = _open(folder)
            with suppress(OSError):  # network file systems without locks
                fcntl.flock(handle, fcntl.LOCK_EX)
            with suppress(FileNotFoundError):
                if os.path.samestat(folder.stat(), os.fstat(handle)):
                    return folder, handle
            os.close(handle)


def _open(path: Path) -> int:
    """Open a file or folder for locking and flushing; never what a link leads to."""
    if path.is_dir():
        return os.open(path, os.O_RDONLY)
    # over NFS, and on Windows, only who may write may lock or flush
    return os.open(path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))


def _remove_if_stale(path: Path) -> None:
    inside = path.iterdir() if path.is_dir() else ()
    if time.time() - max(part.lstat().st_mtime for part in (path, *inside)) > STALE_S:
        _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)
