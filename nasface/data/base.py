"""What every dataset provides: a landmark scheme, an index of its faces and a way to read one image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from nasface.errors import printable

Split = Literal["train", "test"]
SPLITS: tuple[Split, Split] = ("train", "test")


@dataclass(frozen=True)
class Scheme:
    """A landmark scheme.

    Attributes:
        num_landmarks: number L of points.
        flip: permutation of a horizontal flip, new[i] = old[flip[i]].
        inter_ocular: two groups of indices; the distance between their means is the usual normaliser
            (outer eye corners, or whatever is customary for the scheme).
        inter_pupil: the same for the pupils.
        contours: polylines as sequences of indices, used for drawing only.
    """

    num_landmarks: int
    flip: tuple[int, ...]
    inter_ocular: tuple[tuple[int, ...], tuple[int, ...]]
    inter_pupil: tuple[tuple[int, ...], tuple[int, ...]]
    contours: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class Face:
    r"""One annotated face before its image is decoded.

    Attributes:
        name: unique within the split, such as 'helen/testset/123_1'; what cannot be written as text, such as a byte of
            a file name that is not UTF-8, becomes an escape such as '\xff'.
        split: 'train' or 'test'.
        subsets: names of the subsets it belongs to, such as ('common', 'full').
        landmarks_L2: float64 (L, 2), x and y in pixels of the original image, 0-based, integers at pixel
            centres.
        source: what `Dataset.read` needs to load the image: a path or any other hashable object.
        box: the face box (x, y, width, height) in pixels that comes with the dataset, or None.
    """

    name: str
    split: Split
    subsets: tuple[str, ...]
    landmarks_L2: NDArray[np.float64] = field(repr=False)
    source: Any
    box: tuple[float, float, float, float] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", printable(self.name))


@dataclass(frozen=True)
class Problem:
    """A fault of one file: where it is, what it is and how serious ('error' skips the face, 'warning' keeps it)."""

    where: str
    what: str
    level: Literal["error", "warning"] = "error"

    def __post_init__(self) -> None:
        object.__setattr__(self, "where", printable(self.where))
        object.__setattr__(self, "what", printable(self.what))


@dataclass(frozen=True)
class Index:
    """All faces found, the faults met, and the size of the official set.

    Attributes:
        faces: faces whose annotations are readable, in a fixed order.
        problems: faults met while reading annotations.
        expected: official number of faces by 'split/subset', such as
            {'train/afw': 337, 'test/common': 554, 'train': 3148, 'test': 689}; empty if there is no official number.
    """

    faces: tuple[Face, ...]
    problems: tuple[Problem, ...] = ()
    expected: Mapping[str, int] = field(default_factory=dict)


class Dataset(Protocol):
    """A dataset plug-in: an object built from `root` and its options as keyword arguments.

    `root` is the folder given by --data-root, or None. Invalid values of options raise RecipeError.

    Two further attributes are optional; they are read with getattr and a default:

    - `parallel`: 'process' if `read` is pure Python and the object can be pickled; the default, 'thread', suits
      readers that mostly run C code.
    - `licence`: one sentence about the terms under which the faces may be used; '' if unknown.
    """

    name: str
    scheme: Scheme

    def index(self) -> Index:
        """Find the faces. Raises DataError that says how to fix it if the folder is missing or is not this dataset."""
        ...

    def read(self, face: Face) -> NDArray[np.uint8]:
        """Decode one image to RGB uint8 (H, W, 3). Raises DataError that names the file if it cannot be decoded."""
        ...

    def fingerprint(self, face: Face) -> bytes:
        """Return bytes that change whenever the content of the face's image changes, such as a hash."""
        ...
