"""WFLW: faces with 98 landmarks, a box and six flags each, listed in one text file per split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nasface import untrusted
from nasface.data.base import SPLITS, Face, Index, Problem, Split
from nasface.data.facelists import is_below, readable
from nasface.data.images import decode, file_digest
from nasface.data.reading import Source, candidates, landmark_fault, number, unique_names
from nasface.data.schemes import SCHEMES
from nasface.errors import DataError, shortened

_SOURCE = Source(
    title="WFLW",
    layout="WFLW_images/ and WFLW_annotations/list_98pt_rect_attr_train_test/list_98pt_rect_attr_{train,test}.txt",
    page="https://wywu.github.io/projects/LAB/WFLW.html",
)

_LISTS = ("WFLW_annotations/list_98pt_rect_attr_train_test", "list_98pt_rect_attr_train_test", ".")
_FLAGS = ("pose", "expression", "illumination", "make-up", "occlusion", "blur")
_NUMBERS = 2 * 98 + 4 + 6

_EXPECTED = {
    "train": 7500, "test": 2500, "test/full": 2500, "test/pose": 326, "test/expression": 314,
    "test/illumination": 698, "test/make-up": 206, "test/occlusion": 736, "test/blur": 773,
}  # fmt: skip


class WFLW:
    """WFLW in its official layout. Further faces in the same image have names that end in '#2', '#3', ...

    Test faces are in the subset 'full' and in those of their flags.

    Attributes:
        root: the dataset's folder, or its parent folder.
    """

    name = "wflw"
    scheme = SCHEMES[98]
    licence = "For research use only; see the terms of its authors."

    def __init__(self, root: Path | None):
        self.root = root

    @readable(_SOURCE.title)
    def index(self) -> Index:
        """Read the lists that are there.

        Raises:
            DataError: the folder is missing, or holds no list or no images.
        """
        root = _SOURCE.folder(self.root)
        lists = _find_lists(root)
        if not lists:
            raise _SOURCE.missing(f"{root} holds no list_98pt_rect_attr_train.txt or list_98pt_rect_attr_test.txt")
        images = next((p / "WFLW_images" for p in candidates(root) if (p / "WFLW_images").is_dir()), None)
        if images is None:
            raise _SOURCE.missing(f"{root} holds no WFLW_images")
        faces: list[Face] = []
        problems: list[Problem] = []
        for split, path in lists.items():
            listed, faults = _read_list(path, split, images)
            faces += listed
            problems += faults
        return Index(tuple(faces), tuple(problems), _EXPECTED)

    def read(self, face: Face) -> NDArray[np.uint8]:
        """Decode the image of a face to RGB uint8 (H, W, 3)."""
        return decode(face.source)

    def fingerprint(self, face: Face) -> bytes:
        """Return the hash of the image file."""
        return file_digest(face.source)


def _find_lists(root: Path) -> dict[Split, Path]:
    found: dict[Split, Path] = {}
    for folder in candidates(root):
        for split in SPLITS:
            for inside in _LISTS:
                path = folder / inside / f"list_98pt_rect_attr_{split}.txt"
                if split not in found and path.is_file():
                    found[split] = path
    return found


def _read_list(path: Path, split: Split, images: Path) -> tuple[list[Face], list[Problem]]:
    """Read one line per face: 98 pairs of x and y, x_min y_min x_max y_max, six flags, path of the image."""
    try:
        untrusted.check_file(path, untrusted.MAX_LIST)
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    rows: list[tuple[str, NDArray[np.float64]]] = []
    problems: list[Problem] = []
    for row, line in enumerate(lines, start=1):
        fields = line.split(maxsplit=_NUMBERS)
        if not fields:
            continue
        where = f"{path.name}, line {row}"
        if len(fields) != _NUMBERS + 1:
            problems.append(Problem(where, f"{where} has {len(fields)} fields; expected {_NUMBERS + 1}"))
            continue
        image = fields[-1].strip()
        try:
            numbers = np.array([number(field) for field in fields[:-1]])
        except ValueError as error:
            problems.append(Problem(where, f"{where} holds something other than numbers ({error})"))
            continue
        fault = landmark_fault(numbers[:196].reshape(98, 2), 98)
        if not fault and not np.isfinite(numbers).all():
            fault = "has a box or flag that is not a finite number"
        if not fault and not is_below(images, image):
            fault = f"names the image {shortened(image)}, which is not in {images}"
        if fault:
            problems.append(Problem(where, f"{where} {fault}"))
        else:
            rows.append((image, numbers))
    names = unique_names([image for image, _ in rows])
    return [
        _face(name, split, images / image, numbers) for name, (image, numbers) in zip(names, rows, strict=True)
    ], problems


def _face(name: str, split: Split, image: Path, numbers: NDArray[np.float64]) -> Face:
    left, top, right, bottom, *flags = numbers[196:].tolist()
    marked = tuple(subset for subset, flag in zip(_FLAGS, flags, strict=True) if flag)
    return Face(
        name=name,
        split=split,
        subsets=("full", *marked) if split == "test" else (),
        landmarks_L2=numbers[:196].reshape(98, 2),
        source=image,
        box=(left, top, right - left, bottom - top),
    )
