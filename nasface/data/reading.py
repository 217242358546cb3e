"""What the readers of datasets on disk share: the message for missing folders, checks of landmarks, names."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from nasface.errors import DataError, shown


@dataclass(frozen=True)
class Source:
    """Where a dataset comes from and what its folder looks like, for the message if it is missing.

    Attributes:
        title: the dataset's usual name.
        layout: what the folder must hold; it completes the phrase 'the folder must hold ...'.
        page: address of the official page.
    """

    title: str
    layout: str
    page: str

    def missing(self, what: str) -> DataError:
        """Return the error that says what is missing, what the folder must hold and where to get the dataset."""
        return DataError(
            f"{self.title}: {what}; the folder must hold {self.layout}; it can be downloaded at {self.page}; "
            "--dataset synthetic needs no files"
        )

    def folder(self, root: Path | None) -> Path:
        """Return the root folder. Raises DataError if there is none, or if it cannot be read."""
        if root is None:
            raise self.missing("no folder was given (--data-root)")
        if not root.is_dir():
            raise self.missing(f"{root} is {'not a folder' if root.exists() else 'missing'}")
        if not os.access(root, os.R_OK | os.X_OK):
            raise DataError(f"{self.title}: {root} cannot be read by this user; correct its permissions")
        return root


def candidates(root: Path) -> Iterable[Path]:
    """Yield the root and then the folders in it: archives are often unpacked one level too deep."""
    yield root
    yield from sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def landmark_fault(landmarks_L2: NDArray[np.float64], num_landmarks: int) -> str | None:
    """Say what is wrong with the landmarks of one face, whatever its image; None if nothing is."""
    if landmarks_L2.shape != (num_landmarks, 2):
        return f"has {len(landmarks_L2)} landmarks; expected {num_landmarks}"
    if not np.isfinite(landmarks_L2).all():
        return f"has {int((~np.isfinite(landmarks_L2)).any(axis=1).sum())} landmarks that are not finite numbers"
    if np.ptp(landmarks_L2, axis=0).max() < 1:
        return "has all its landmarks in one place"
    return None


def number(text: str) -> float:
    """Parse a coordinate. Raises ValueError, also for 1_5, which Python would take for 15."""
    if "_" in text:
        raise ValueError(f"could not convert string to float: {shown(text)}")
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"could not convert string to float: {shown(text)}") from None


def unique_names(images: Sequence[str]) -> list[str]:
    """Return one name per face: the path of its image without extension, plus '#2', '#3', ... where it is repeated."""
    seen: Counter[str] = Counter()
    names = []
    for image in images:
        name = PurePosixPath(image.replace("\\", "/")).with_suffix("").as_posix()
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return names
