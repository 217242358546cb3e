"""Faces listed in one file: HRNet-style CSV, and the XML of dlib's imglab."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from nasface.errors import DataError


@dataclass(frozen=True)
class ListedFace:
    """One entry of a list.

    Attributes:
        where: the file and the line or box.
        image: path of the image as given there.
        points_L2: landmarks, float64 (L, 2), 0-based; empty if they cannot be read.
        box: (x, y, width, height), or None.
        fault: why the entry cannot be used, or None.
    """

    where: str
    image: str
    points_L2: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 2)), repr=False)
    box: tuple[float, float, float, float] | None = None
    fault: str | None = None


@contextmanager
def readable(title: str) -> Iterator[None]:
    """Report an unreadable folder as DataError. Decorates functions that search the folders of a dataset."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{title}: {shortened(str(error.filename))} cannot be read ({error.strerror or error}); "
            "correct its permissions or its name"
        ) from error


def is_there(folder: Path, name: str | PurePath) -> bool:
    """Tell whether a file named in a list exists below a folder.

    A name that no file can have, such as a whole line, does not, nor does one that leads out of the folder.
    """
    inside = PurePath(name)
    if inside.is_absolute() or ".." in inside.parts:
        return False
    try:
        return (folder / inside).is_file()
    except PermissionError:
        raise
    except (OSError, ValueError):
        return False


def shortened(text: str) -> str:
    """Shorten a text to about 120 characters for a message: a lost newline makes a whole line one name."""
    return text if len(text) <= 120 else f"{text[:80]}... ({len(text)} characters)"


def read_csv(path: Path, num_landmarks: int, base: int) -> Iterator[ListedFace]:
    """Read rows of image, scale, centre x, centre y, x0, y0, x1, ... by position, skipping a header.

    Args:
        path: the CSV file.
        num_landmarks: number of landmarks that a row must have.
        base: 1 if the coordinates start at 1, else 0.

    Raises:
        DataError: the file cannot be read at all.
    """
    columns = 4 + 2 * num_landmarks
    try:
        with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
            rows = [(number, row) for number, row in enumerate(csv.reader(file), start=1) if any(row)]
    except (OSError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as CSV ({error}); copy or download it again") from error
    for number, (image, *cells) in rows:
        where = f"{path.name}, line {number}"
        try:
            numbers = np.array([float(cell) for cell in cells])
        except ValueError as error:
            if number > 1:
                yield ListedFace(where, image, fault=f"holds something other than numbers ({error})")
            continue
        if len(numbers) != columns - 1:
            yield ListedFace(where, image, fault=f"has {len(cells) + 1} columns; expected {columns}")
            continue
        scale, x, y = (float(value) for value in numbers[:3])
        side = 200 * scale  # the file keeps only the longer side of the box
        box = (x - side / 2 - base, y - side / 2 - base, side, side)
        yield ListedFace(where, image, numbers[3:].reshape(-1, 2) - base, box)


def read_imglab_xml(path: Path) -> Iterator[ListedFace]:
    """Read boxes with parts (landmarks); boxes without parts are mere detections and are skipped.

    Raises:
        DataError: the file is not XML, or its encoding is not supported.
    """
    try:
        tree = ElementTree.parse(path)
    except (ElementTree.ParseError, OSError) as error:
        raise DataError(f"{path}: is not well-formed XML ({error}); copy or download it again") from error
    except (LookupError, ValueError) as error:
        raise DataError(f"{path}: is XML in an encoding that cannot be read ({error}); save it as UTF-8") from error
    for image in tree.iter("image"):
        file = image.get("file", "")
        for number, box in enumerate(image.iter("box"), start=1):
            where = f"{path.name}, {file}, box {number}"
            parts = box.findall("part")
            if not parts:
                continue
            try:
                parts.sort(key=lambda part: int(part.get("name", "")))
                points = np.array([[float(part.get(axis, "")) for axis in "xy"] for part in parts])
                x, y, width, height = (float(box.get(key, "")) for key in ("left", "top", "width", "height"))
            except ValueError as error:
                yield ListedFace(where, file, fault=f"holds something other than numbers ({error})")
                continue
            yield ListedFace(where, file, points, (x, y, width, height))
