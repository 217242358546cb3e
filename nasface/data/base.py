"""What every data set gives: a scheme of landmarks, an index of faces and a way to read one image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Split = Literal["train", "test"]


@dataclass(frozen=True)
class Scheme:
    """A landmark mark-up.

    Attributes:
        num_landmarks: number L of points.
        flip: permutation of a horizontal flip, new[i] = old[flip[i]].
        inter_ocular: two groups of indices; the distance of their means is the usual normaliser
            (outer eye corners, or whatever the field uses).
        inter_pupil: the same for the pupils.
        contours: polylines of indices, for drawing only.
    """

    num_landmarks: int
    flip: tuple[int, ...]
    inter_ocular: tuple[tuple[int, ...], tuple[int, ...]]
    inter_pupil: tuple[tuple[int, ...], tuple[int, ...]]
    contours: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class Face:
    """One annotated face before its image is decoded.

    Attributes:
        name: unique within the split, for example 'helen/testset/123_1'.
        split: 'train' or 'test'.
        subsets: names of the subsets it belongs to, for example ('common', 'full').
        landmarks_L2: float64 (L, 2), x and y in pixels of the original image, 0-based, integers at pixel
            centres.
        source: what `Dataset.read` needs to load its image: a path, or anything else (hashable).
        box: provided face box (x, y, width, height) in pixels, or None.
    """

    name: str
    split: Split
    subsets: tuple[str, ...]
    landmarks_L2: NDArray[np.float64] = field(repr=False)
    source: Any
    box: tuple[float, float, float, float] | None = None


@dataclass(frozen=True)
class Problem:
    """A fault of one file: where, what, and how bad ('error' skips the face, 'warning' keeps it)."""

    where: str
    what: str
    level: Literal["error", "warning"] = "error"


@dataclass(frozen=True)
class Index:
    """All faces found, what is wrong, and how many the official set has.

    Attributes:
        faces: the readable annotations, in a fixed order.
        problems: faults met while reading annotations.
        expected: official number of faces by 'split/subset', for example
            {'train/afw': 337, 'test/common': 554, 'train': 3148, 'test': 689}; empty where there is none.
    """

    faces: tuple[Face, ...]
    problems: tuple[Problem, ...] = ()
    expected: Mapping[str, int] = field(default_factory=dict)


class Dataset(Protocol):
    """A data set plug-in: an object built from its options as keyword arguments.

    `root` is the folder given by --data-root (None for sets that need none). Options a set does not know
    raise RecipeError.
    """

    name: str
    scheme: Scheme

    def index(self) -> Index:
        """Find the faces. Raises DataError with a mend when the folder is missing or not this set."""
        ...

    def read(self, face: Face) -> NDArray[np.uint8]:
        """Decode one image to RGB uint8 (H, W, 3). Raises DataError naming the file when it cannot."""
        ...

    def fingerprint(self, face: Face) -> bytes:
        """Bytes that change whenever the face's image content changes (a content hash)."""
        ...
