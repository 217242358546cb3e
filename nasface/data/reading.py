"""What the readers of data sets on disk share: the missing-folder message, landmark checks, names."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from nasface.errors import DataError


@dataclass(frozen=True)
class Source:
    """Where a data set comes from and how its folder looks, for the message when it is not there.

    Attributes:
        title: the name people know it by.
        layout: what the folder must hold, as the rest of the phrase 'the folder must hold ...'.
        page: address of the official page.
    """

    title: str
    layout: str
    page: str

    def missing(self, what: str) -> DataError:
        """The error that says what is missing, how the folder must look and where the set is had."""
        return DataError(
            f"{self.title}: {what}; the folder must hold {self.layout}; the official set is at {self.page}; "
            "--dataset synthetic needs no data"
        )

    def folder(self, root: Path | None) -> Path:
        """The root folder, or DataError where there is none."""
        if root is None:
            raise self.missing("no folder given (--data-root)")
        if not root.is_dir():
            raise self.missing(f"{root} is {'not a folder' if root.exists() else 'missing'}")
        if not os.access(root, os.R_OK | os.X_OK):
            raise DataError(f"{self.title}: {root} may not be read by this user; mend its permissions")
        return root


def candidates(root: Path) -> Iterable[Path]:
    """The root and then the folders in it: people unpack one level too deep."""
    yield root
    yield from sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def landmark_fault(landmarks_L2: NDArray[np.float64], num_landmarks: int) -> str | None:
    """What is wrong with the points of one face whatever its image, or None."""
    if landmarks_L2.shape != (num_landmarks, 2):
        return f"has {len(landmarks_L2)} points, {num_landmarks} were expected"
    if not np.isfinite(landmarks_L2).all():
        return f"has {int((~np.isfinite(landmarks_L2)).any(axis=1).sum())} points that are not finite numbers"
    if np.ptp(landmarks_L2, axis=0).max() < 1:
        return "has all its points in one place"
    return None


def unique_names(images: Sequence[str]) -> list[str]:
    """One name a face from the path of its image, without extension; '#2', '#3' where it is repeated."""
    seen: Counter[str] = Counter()
    names = []
    for image in images:
        name = PurePosixPath(image.replace("\\", "/")).with_suffix("").as_posix()
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return names
