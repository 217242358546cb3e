"""Faces listed in one file: HRNet-style CSV, and the XML of dlib's imglab."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from nasface import untrusted
from nasface.data.reading import number
from nasface.errors import DataError, shortened

_MANY_PARTS = 1000  # landmarks of a box; more are not kept


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


def is_below(folder: Path, name: str | PurePath) -> bool:
    """Tell whether a file named in a list exists below a folder; a name that leads out of it does not."""
    inside = PurePath(name)
    return not inside.is_absolute() and ".." not in inside.parts and is_there(folder / inside)


def is_there(path: Path) -> bool:
    """Tell whether a file exists; a name that no file can have, such as a whole line, does not."""
    try:
        return path.is_file()
    except PermissionError:
        raise
    except (OSError, ValueError):
        return False


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
        untrusted.check_file(path, untrusted.MAX_LIST)
        with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
            for line, row in enumerate(csv.reader(file), start=1):
                if any(row) and (face := _listed(f"{path.name}, line {line}", row, columns, base, line == 1)):
                    yield face
    except (OSError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: cannot be read as CSV ({reason}); copy or download it again") from error


def _listed(where: str, row: list[str], columns: int, base: int, first: bool) -> ListedFace | None:
    """Return the face of a row; None for a header."""
    image, *cells = row
    if first and not any(map(_is_number, cells)):
        return None
    try:
        numbers = np.array([number(cell) for cell in cells])
    except ValueError as error:
        return ListedFace(where, image, fault=f"holds something other than numbers ({error})")
    if len(row) != columns:
        return ListedFace(where, image, fault=f"has {len(row)} columns; expected {columns}")
    scale, x, y = (float(value) for value in numbers[:3])
    side = 200 * scale  # the file keeps only the longer side of the box
    box = (x - side / 2 - base, y - side / 2 - base, side, side)
    return ListedFace(where, image, numbers[3:].reshape(-1, 2) - base, box)


def _is_number(text: str) -> bool:
    try:
        number(text)
    except ValueError:
        return False
    return True


def read_imglab_xml(path: Path) -> list[ListedFace]:
    """Read boxes with parts (landmarks); boxes without parts are mere detections and are skipped.

    Raises:
        DataError: the file is not XML, or its encoding is not supported.
    """
    boxes = _Boxes(path.name)
    parser = ElementTree.XMLParser(target=boxes)
    try:
        untrusted.check_file(path, untrusted.MAX_LIST)
        with path.open("rb") as file:
            while text := file.read(1 << 20):
                parser.feed(text)
        parser.close()
    except (ElementTree.ParseError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: is not well-formed XML ({reason}); copy or download it again") from error
    except (LookupError, ValueError) as error:
        raise DataError(f"{path}: is XML in an encoding that cannot be read ({error}); save it as UTF-8") from error
    return boxes.found


class _Boxes:
    """What the XML parser calls: it collects the boxes and builds no tree, which would be many times larger."""

    def __init__(self, file: str) -> None:
        self.found: list[ListedFace] = []
        self._file, self._image, self._place = file, "", 0
        self._box: Mapping[str, str] = {}
        self._parts: list[Mapping[str, str]] = []

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        if tag == "image":
            self._image, self._place = attributes.get("file", ""), 0
        elif tag == "box":
            self._box, self._parts, self._place = attributes, [], self._place + 1
        elif tag == "part" and len(self._parts) < _MANY_PARTS:
            self._parts.append(attributes)

    def end(self, tag: str) -> None:
        if tag == "box" and self._parts:
            where = f"{self._file}, {shortened(self._image)}, box {self._place}"
            self.found.append(_boxed(where, self._image, self._box, self._parts))
            self._parts = []

    def close(self) -> None:
        """The parser wants it."""


def _boxed(where: str, image: str, box: Mapping[str, str], parts: list[Mapping[str, str]]) -> ListedFace:
    try:
        parts.sort(key=lambda part: int(part.get("name", "")))
        points = np.array([[number(part.get(axis, "")) for axis in "xy"] for part in parts])
        x, y, width, height = (number(box.get(key, "")) for key in ("left", "top", "width", "height"))
    except ValueError as error:
        return ListedFace(where, image, fault=f"holds something other than numbers ({error})")
    return ListedFace(where, image, points, (x, y, width, height))
