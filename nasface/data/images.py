"""Image files: decode one to RGB, and hash the content of one without reading it twice."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nasface.errors import DataError

# Where several files share a stem the first of these wins.
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".gif", ".jp2")

_RACY_NS = 2_000_000_000

# path -> (size, mtime_ns, ctime_ns, digest). A memory of the process, kept on disk by save_digests.
_digests: dict[str, tuple[int, int, int, str]] = {}


def decode(path: Path) -> NDArray[np.uint8]:
    """Read an image file as RGB.

    EXIF orientation is not applied: annotations are in stored pixels.

    Args:
        path: any format Pillow knows; grey, palette and alpha images are converted.

    Returns:
        uint8 (H, W, 3).

    Raises:
        DataError: the file is missing, truncated or no image.
    """
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except FileNotFoundError:
        raise DataError(f"{path}: the image is missing") from None
    except Exception as error:  # decoders raise a dozen types on damaged files
        raise DataError(f"{path}: cannot be decoded as an image ({error}); copy or download it again") from error


def find_images(folder: Path) -> dict[str, Path]:
    """The image files of a folder by stem, whatever the case of their extension."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        suffix = path.suffix.lower()
        if suffix not in IMAGE_SUFFIXES or path.name.startswith("."):
            continue
        other = found.get(path.stem)
        if other is None or IMAGE_SUFFIXES.index(suffix) < IMAGE_SUFFIXES.index(other.suffix.lower()):
            found[path.stem] = path
    return found


def file_digest(path: Path) -> bytes:
    """Hash of a file's content, remembered by its size and times (a warm start stats, it does not read).

    Raises:
        DataError: the file cannot be read.
    """
    try:
        stat = path.stat()
        known = _digests.get(str(path))
        if known and known[:3] == (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns):
            return bytes.fromhex(known[3])
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    # A file written a moment ago may change again within one tick of the file system's clock.
    if time.time_ns() - max(stat.st_mtime_ns, stat.st_ctime_ns) > _RACY_NS:
        _digests[str(path)] = (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, digest.hex())
    return digest


def load_digests(file: Path) -> None:
    """Recall the digests that an earlier process saved; a missing or damaged file is no fault."""
    with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
        saved = {
            str(path): (int(size), int(mtime), int(ctime), bytes.fromhex(digest).hex())
            for path, (size, mtime, ctime, digest) in json.loads(file.read_text()).items()
        }
        _digests.update(saved | _digests)


def save_digests(file: Path) -> None:
    """Save all digests known, atomically; a folder that cannot be written only costs time later."""
    part = file.with_name(f".{file.name}-{os.getpid()}")
    try:
        part.write_text(json.dumps(_digests))
        part.replace(file)
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
