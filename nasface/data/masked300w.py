"""Masked 300W: the 689 test faces of 300W with masks over more than half of each face, for evaluation only."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from nasface.data.base import Face, Index, Problem
from nasface.data.facelists import readable
from nasface.data.images import decode, file_digest, find_images
from nasface.data.reading import Source, candidates, landmark_fault
from nasface.data.schemes import SCHEMES
from nasface.data.w300 import W300, read_pts
from nasface.errors import DataError

_SOURCE = Source(
    title="Masked 300W",
    layout="helen/testset/, lfpw/testset/ and ibug/ (or helen/ and lfpw/) with the masked images and their .pts files; "
    "without .pts files, name a folder of 300W in the option annotations",
    page="https://github.com/zhuccly/SAAT",
)

_SUBSETS = {"helen/testset": ("common", "full"), "lfpw/testset": ("common", "full"), "ibug": ("challenge", "full")}
_EXPECTED = {"test": 689, "test/common": 554, "test/challenge": 135, "test/full": 689}


class Masked300W:
    """Masked 300W, in folders named like those of 300W. Names, subsets and landmarks are those of the 300W test set.

    There is no training split: networks that were trained on `300w` are evaluated on it.

    Attributes:
        root: the dataset's folder, or its parent folder.
        annotations: a folder of 300W with the landmarks of the same images, in any form that `300w` reads; None
            takes the `.pts` files beside the masked images.
    """

    name = "masked300w"
    scheme = SCHEMES[68]
    licence = "For research use only, as 300W; the images are from HELEN, LFPW and IBUG, each with its own terms."

    def __init__(self, root: Path | None, *, annotations: str | None = None):
        self.root = root
        self.annotations = None if annotations is None else Path(annotations)

    @readable(_SOURCE.title)
    def index(self) -> Index:
        """Find the masked faces in all folders that are there.

        Raises:
            DataError: the folder is missing, holds no masked images, or is 300W itself.
        """
        root = _SOURCE.folder(self.root)
        # a folder with several datasets may hold 300W beside the masked images
        for base in sorted(candidates(root), key=lambda path: path == root or "mask" not in path.name.lower()):
            folders = _folders(base)
            if any(find_images(folder) for folder in folders.values()):
                points = _beside(folders) if self.annotations is None else _points(self.annotations)
                faces, problems = _faces(folders, points)
                if not faces and all(problem.level == "warning" for problem in problems):
                    raise _SOURCE.missing(f"{base} holds images, but none has landmarks")
                return Index(tuple(faces), tuple(problems), _EXPECTED)
        raise _SOURCE.missing(f"{root} holds no image of Masked 300W")

    def read(self, face: Face) -> NDArray[np.uint8]:
        """Decode the image of a face to RGB uint8 (H, W, 3)."""
        return decode(face.source)

    def fingerprint(self, face: Face) -> bytes:
        """Return the hash of the image file."""
        return file_digest(face.source)


def _folders(base: Path) -> dict[str, Path]:
    """Find the folders of images by their official names, in any case; 'testset' may be missing.

    Raises:
        DataError: there are training faces, so this is 300W.
    """
    tops = _below(base)
    inner = {top: _below(tops[top]) for top in ("helen", "lfpw", "ibug") if top in tops}
    training = ["afw"] * ("afw" in tops) + [f"{top}/trainset" for top, below in inner.items() if "trainset" in below]
    if training:
        raise DataError(
            f"{_SOURCE.title}: {base} holds training faces of 300W ({', '.join(training)}), which {_SOURCE.title} does "
            "not have; name a folder that holds only the masked images"
        )
    places = {official: official.partition("/") for official in _SUBSETS}
    return {name: inner[top].get(test, tops[top]) for name, (top, _, test) in places.items() if top in inner}


def _below(folder: Path) -> dict[str, Path]:
    return {path.name.lower(): path for path in sorted(folder.iterdir()) if path.is_dir()}


def _beside(folders: Mapping[str, Path]) -> dict[str, Path]:
    """Return the `.pts` files in the folders by the names of their faces."""
    return {
        f"{official}/{path.stem}": path
        for official, folder in folders.items()
        for path in sorted(folder.iterdir())
        if path.suffix.lower() == ".pts" and not path.name.startswith(".") and not path.stem.endswith("_mirror")
    }


def _points(annotations: Path) -> dict[str, NDArray[np.float64]]:
    """Return the landmarks of the test faces in a folder of 300W, by the official names of the faces."""
    tested = [face for face in W300(annotations).index().faces if face.split == "test"]
    return {
        f"{official}/{PurePosixPath(face.name).name}": face.landmarks_L2
        for face in tested
        for official in _SUBSETS
        if f"/{official}/" in f"/{face.name.lower()}"
    }


def _faces(
    folders: Mapping[str, Path], points: Mapping[str, Path | NDArray[np.float64]]
) -> tuple[list[Face], list[Problem]]:
    faces: list[Face] = []
    problems: list[Problem] = []
    images = {
        f"{official}/{stem}": path
        for official, folder in folders.items()
        for stem, path in find_images(folder).items()
        if not stem.endswith("_mirror")
    }
    for name, image in images.items():
        marks = points.get(name)
        if marks is None:
            problems.append(Problem(name, f"{image} has no landmarks and is not used", "warning"))
            continue
        try:
            landmarks = read_pts(marks) - 1 if isinstance(marks, Path) else marks
        except DataError as error:
            problems.append(Problem(name, str(error)))
            continue
        fault = landmark_fault(landmarks, 68)
        if fault:
            problems.append(Problem(name, f"{marks if isinstance(marks, Path) else image} {fault}"))
        else:
            faces.append(Face(name, "test", _SUBSETS[name.rpartition("/")[0]], landmarks, image))
    problems += [
        Problem(name, f"{marks} has no image of the same name beside it")
        for name, marks in points.items()
        if isinstance(marks, Path) and name not in images
    ]
    return faces, problems
