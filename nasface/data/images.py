"""Image files: decode to RGB, and hash contents without reading a file twice."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nasface import rundir, untrusted
from nasface.errors import DataError, RunError, shortened

# Of the RGB channels in ImageNet, as shares of 255. Inputs are normalised by them, as is customary.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

# Where several files share a stem, the first of these suffixes wins.
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".gif", ".jp2")

MAX_PIXELS = 64_000_000  # of an image: 8000 x 8000, which takes about 0.7 GB while it is decoded
_LARGE = 12_000_000  # larger images are decoded one at a time, whatever the number of workers

_RACY_NS = 2_000_000_000
_one_large = threading.Lock()

# path -> (size, mtime_ns, ctime_ns, digest), remembered by this process and written to disk by save_digests.
_digests: dict[str, tuple[int, int, int, str]] = {}


def decode(path: Path) -> NDArray[np.uint8]:
    """Read an image file as RGB.

    EXIF orientation is not applied, because annotations refer to the stored pixels.

    Args:
        path: an image in any format that Pillow reads; grey, palette and alpha images are converted.

    Returns:
        uint8 (H, W, 3).

    Raises:
        DataError: see `decoded`.
    """
    return decoded(path, lambda image: image)


def decoded(path: Path, turn: Callable[[Image.Image], Image.Image]) -> NDArray[np.uint8]:
    """Read an image file as RGB uint8 (H, W, 3) after `turn`. Its size is checked before any pixel is decoded.

    Raises:
        DataError: the file is missing, truncated, no image, or has more than `MAX_PIXELS` pixels.
    """
    try:
        untrusted.check_file(path)
        with Image.open(path) as image:
            check_pixels(image.width, image.height)
            if image.format == "EPS":
                raise ValueError("it is PostScript, which Pillow would have another program run")
            with _one_large if image.width * image.height > _LARGE else contextlib.nullcontext():
                return to_rgb(turn(image), image.format)
    except FileNotFoundError:
        raise DataError(f"{path}: the image is missing; copy or download it again") from None
    except Exception as error:  # decoders raise a dozen types on damaged files
        why = shortened(str(getattr(error, "strerror", None) or error), 200)
        raise DataError(f"{path}: cannot be decoded as an image ({why}); copy or download it again") from error


def to_rgb(image: Image.Image, form: str | None = None) -> NDArray[np.uint8]:
    """Return an image as RGB uint8 (H, W, 3); of 16 bits, the upper 8.

    Args:
        image: the image.
        form: Pillow's name of the format of its file.

    Raises:
        ValueError: for images with 32 bits per value.
    """
    if image.mode.startswith("I;16") or (image.mode == "I" and form == "PPM"):  # PGM files have 16 bits at most
        grey_HW = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
        return np.repeat(grey_HW[..., None], 3, axis=2)
    if image.mode in ("I", "F"):
        raise ValueError("its pixels are numbers of 32 bits, whose range is unknown; convert it to 8 or 16 bits")
    return np.asarray(image.convert("RGB"))


def check_pixels(width: int, height: int) -> None:
    """Refuse an image that is too large to be decoded, with a ValueError."""
    if width * height > MAX_PIXELS:
        raise ValueError(f"it has {width} x {height} pixels, more than {MAX_PIXELS:,}; scale it down")


def find_images(folder: Path) -> dict[str, Path]:
    """Return the image files of a folder by stem; the case of their extensions does not matter."""
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
    """Return the hash of a file's content, which is remembered until its size or times change.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        untrusted.check_file(path)
        stat = path.stat()
        known = _digests.get(str(path))
        if known and known[:3] == (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns):
            return bytes.fromhex(known[3])
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    # A file that was written a moment ago may change again within one tick of the file system's clock.
    if time.time_ns() - max(stat.st_mtime_ns, stat.st_ctime_ns) > _RACY_NS:
        _digests[str(path)] = (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, digest.hex())
    return digest


def load_digests(file: Path) -> None:
    """Load the digests that an earlier process saved; a missing or damaged file is ignored."""
    with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
        saved = {
            str(path): (int(size), int(mtime), int(ctime), bytes.fromhex(digest).hex())
            for path, (size, mtime, ctime, digest) in json.loads(file.read_text()).items()
        }
        _digests.update(saved | _digests)


def save_digests(file: Path) -> None:
    """Save all known digests atomically; if the folder cannot be written, that only costs time later."""
    with contextlib.suppress(RunError), rundir.atomic(file, kept=False) as part:
        part.write_text(json.dumps(_digests))
