"""Faces listed in one file: HRNet-style csv and the xml of dlib's imglab."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from nasface.errors import DataError


@dataclass(frozen=True)
class ListedFace:
    """One entry of a list.

    Attributes:
        where: file and line or box.
        image: path of the image as written there.
        points_L2: float64 (L, 2), 0-based; empty where they cannot be read.
        box: (x, y, width, height), or None.
        fault: why the entry cannot be used.
    """

    where: str
    image: str
    points_L2: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 2)), repr=False)
    box: tuple[float, float, float, float] | None = None
    fault: str | None = None


@contextmanager
def readable(title: str) -> Iterator[None]:
    """Tell a folder that cannot be read as DataError; decorates what looks through the folders of a data set."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{title}: {shortened(str(error.filename))} cannot be read ({error.strerror or error}); "
            "mend its permissions or its name"
        ) from error


def is_there(path: Path) -> bool:
    """Whether the file that a list names exists; a name that no file can have, such as a whole line, does not."""
    try:
        return path.is_file()
    except PermissionError:
        raise
    except (OSError, ValueError):
        return False


def shortened(text: str) -> str:
    """At most some 120 characters of a text for a message: a lost newline makes a name of a whole line."""
    return text if len(text) <= 120 else f"{text[:80]}... ({len(text)} characters)"


def read_csv(path: Path, num_landmarks: int, base: int) -> Iterator[ListedFace]:
    """Rows of image, scale, centre x, centre y, x0, y0, x1, ..., read by position; headings are passed over.

    Args:
        path: the csv file.
        num_landmarks: number of points a row must have.
        base: 1 when the coordinates start at 1.

    Raises:
        DataError: the file cannot be read at all.
    """
    columns = 4 + 2 * num_landmarks
    try:
        with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
            rows = [(number, row) for number, row in enumerate(csv.reader(file), start=1) if any(row)]
    except (OSError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as csv ({error}); copy or download it again") from error
    for number, (image, *cells) in rows:
        where = f"{path.name}, line {number}"
        try:
            numbers = np.array([float(cell) for cell in cells])
        except ValueError as error:
            if number > 1:
                yield ListedFace(where, image, fault=f"is not all numbers ({error})")
            continue
        if len(numbers) != columns - 1:
            yield ListedFace(where, image, fault=f"has {len(cells) + 1} columns, {columns} were expected")
            continue
        scale, x, y = (float(value) for value in numbers[:3])
        side = 200 * scale  # the longer side of the box is all that the file keeps of it
        box = (x - side / 2 - base, y - side / 2 - base, side, side)
        yield ListedFace(where, image, numbers[3:].reshape(-1, 2) - base, box)


def read_imglab_xml(path: Path) -> Iterator[ListedFace]:
    """Boxes with parts (points); boxes without are mere detections and passed over.

    Raises:
        DataError: the file is no xml.
    """
    try:
        tree = ElementTree.parse(path)
    except (ElementTree.ParseError, OSError) as error:
        raise DataError(f"{path}: is not well-formed xml ({error}); copy or download it again") from error
    except (LookupError, ValueError) as error:
        raise DataError(f"{path}: is xml in an encoding that cannot be read ({error}); save it as UTF-8") from error
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
                yield ListedFace(where, file, fault=f"is not all numbers ({error})")
                continue
            yield ListedFace(where, file, points, (x, y, width, height))
