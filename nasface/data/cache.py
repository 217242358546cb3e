"""The cache of prepared faces: where it is, the files of a set in it, and whether these are as they were written."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from nasface.checksum import blocks, checksum
from nasface.data.base import SPLITS, Split
from nasface.errors import described

_META = "meta.json"


def cache_folder() -> Path:
    """Return where prepared faces are stored: the environment variable NASFACE_CACHE, else the user's cache folder."""
    given = os.environ.get("NASFACE_CACHE")
    return Path(given) if given else user_cache_path("nasface")


def cached(root: Path, progress: Callable[[int, int], None] | None = None) -> Iterator[tuple[Path, int, str]]:
    """Yield the folder of every set of prepared faces in a cache, its size in bytes, and what has changed in it.

    Args:
        root: folder of the cache.
        progress: called with (sets done, sets in all).
    """
    folders = sorted(path for path in (root / "prepared").glob("[!.]*") if path.is_dir())
    for number, folder in enumerate(folders, 1):
        meta = read_meta(folder)
        if progress:
            progress(number, len(folders))
        with suppress(OSError):  # another process may have removed it
            size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
            yield folder, size, meta if isinstance(meta, str) else ""


def file_of(folder: Path, split: Split, part: str) -> Path:
    """Return the file of a split that holds its 'images', 'landmarks' or 'affines' (.npy)."""
    return folder / f"{split}-{part}.npy"


def _files(folder: Path) -> list[Path]:
    return [file_of(folder, split, part) for split in SPLITS for part in ("images", "landmarks", "affines")]


def seal(folder: Path, meta: dict[str, Any]) -> None:
    """Write the description of a set whose files are complete, and add their checksums and its own to it."""
    meta["checksums"] = {path.name: _checksum(path) for path in _files(folder)}
    meta["checksum"] = _own_checksum(meta)
    (folder / _META).write_text(json.dumps(meta))


def read_meta(target: Path) -> dict[str, Any] | str:
    """Read the description of a finished cache folder.

    Returns:
        What has changed since it was written, if anything has; empty if there is no such folder.
    """
    if not target.exists():
        return ""
    try:
        meta: dict[str, Any] = json.loads((target / _META).read_text())
        return _fault(target, meta) or meta
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        return described(error)


def _fault(target: Path, meta: dict[str, Any]) -> str:
    """Say what has changed in a cache folder since it was written; empty if nothing has."""
    if "checksum" not in meta:
        return "it has no checksums, which older versions did not write"
    if meta["checksum"] != _own_checksum(meta):
        return f"{_META} has changed"
    changed = [path.name for path in _files(target) if meta["checksums"][path.name] != _checksum(path)]
    return f"{changed[0]} has changed" if changed else ""


def _own_checksum(meta: Mapping[str, Any]) -> str:
    rest = {name: value for name, value in meta.items() if name != "checksum"}
    return checksum([json.dumps(rest, sort_keys=True).encode()])


def _checksum(path: Path) -> str:
    """Return the checksum of a file, which a process reads once for as long as it stays the same."""
    stat = path.stat()
    return _checksum_of(path, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


@lru_cache(maxsize=64)
def _checksum_of(path: Path, *state: int) -> str:
    return checksum(blocks(path))
