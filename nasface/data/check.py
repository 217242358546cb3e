"""Check every file of a dataset and list all that are missing, damaged or suspicious."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial

import numpy as np

from nasface.data.base import SPLITS, Dataset, Face, Problem, Split
from nasface.data.crop import PrepareOptions, far_points, find_faces, read_face, square
from nasface.data.parallel import map_in_order
from nasface.errors import DataError

# Two faces in one image are the same if the intersection over union of their boxes is at least this.
_SAME_FACE = 0.5


@dataclass(frozen=True)
class Count:
    """Number of faces found and, for published datasets, the official number."""

    split: Split
    subset: str
    found: int
    expected: int | None


@dataclass(frozen=True)
class CheckReport:
    """All faults, and the counts: for each split one row with an empty subset, then one per subset."""

    problems: tuple[Problem, ...]
    counts: tuple[Count, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is damaged; missing subsets and warnings do not matter."""
        return all(problem.level != "error" for problem in self.problems)


@dataclass(frozen=True)
class _Look:
    content: bytes
    problem: Problem | None = None


def check(
    dataset: Dataset, progress: Callable[[int, int], None] | None = None, workers: int | None = None
) -> CheckReport:
    """Decode every image and check every annotation.

    A face that cannot be used, or that is in both training and test, is an error. A point far outside its image, or an
    image in which training and test annotate different faces, is a warning.

    Args:
        dataset: the plug-in.
        progress: called with (faces done, faces in all).
        workers: number of threads or processes; None takes the number of cores.

    Raises:
        DataError: there are no data at all.
    """
    index = find_faces(dataset)
    problems = list(index.problems)
    images: defaultdict[bytes, list[Face]] = defaultdict(list)
    usable: list[Face] = []
    looks = map_in_order(
        partial(_look, dataset), index.faces, workers=workers, kind=getattr(dataset, "parallel", "thread")
    )
    with closing(looks):
        for done, (face, look) in enumerate(zip(index.faces, looks, strict=True), start=1):
            if look.problem:
                problems.append(look.problem)
            if look.problem is None or look.problem.level != "error":
                usable.append(face)
            if look.content:
                images[look.content].append(face)
            if progress:
                progress(done, len(index.faces))
    for faces in images.values():
        problems += _leaks(faces)
    return CheckReport(tuple(problems), _counts(usable, index.expected))


def _look(dataset: Dataset, face: Face) -> _Look:
    """Decode one image; return the hash of its pixels and what is wrong with the face."""
    try:
        image = read_face(dataset, face)
    except DataError as error:
        return _Look(b"", Problem(face.name, str(error)))
    digest = hashlib.blake2b(repr(image.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(image).data)
    return _Look(digest.digest(), _fault(face, image.shape[0], image.shape[1], dataset.scheme.num_landmarks))


def _fault(face: Face, height: int, width: int, num_landmarks: int) -> Problem | None:
    """What is wrong with a face; errors are those for which `prepare` leaves it out."""
    try:
        square((width, height), face, num_landmarks, PrepareOptions())
    except DataError as error:
        return Problem(face.name, str(error))
    if face.box is not None and not (np.isfinite(face.box).all() and min(face.box[2:]) > 0):
        return Problem(face.name, f"{face.name}: the provided box {face.box} has no valid size", "warning")
    if outside := len(far_points((width, height), face)):
        what = f"{face.name}: {outside} landmarks lie far outside the image of {width} x {height}"
        return Problem(face.name, what, "warning")
    return None


def _leaks(faces: list[Face]) -> list[Problem]:
    """Report training faces of one image (identified by its pixels) that are in the test split too."""
    problems = []
    tested = [face for face in faces if face.split == "test"]
    for face in faces:
        if face.split == "test" or not tested:
            continue
        twin = max(tested, key=partial(_overlap, face))
        if _overlap(face, twin) >= _SAME_FACE:
            what = f"training face {face.name} is also the test face {twin.name}; remove one of them"
            problems.append(Problem(face.name, what))
        else:
            what = f"the image of training face {face.name} is also the image of test face {twin.name}"
            problems.append(Problem(face.name, what, "warning"))
    return problems


def _overlap(one: Face, other: Face) -> float:
    """Return the intersection over union of the boxes of two faces' landmarks."""
    corners = [(face.landmarks_L2.min(axis=0), face.landmarks_L2.max(axis=0)) for face in (one, other)]
    (low, high), (other_low, other_high) = corners
    common = float(np.clip(np.minimum(high, other_high) - np.maximum(low, other_low), 0, None).prod())
    union = float((high - low).prod() + (other_high - other_low).prod()) - common
    return common / union if union else 0.0


def _counts(usable: Sequence[Face], expected: Mapping[str, int]) -> tuple[Count, ...]:
    rows = []
    for split in SPLITS:
        faces = [face for face in usable if face.split == split]
        official = {key.partition("/")[2]: n for key, n in expected.items() if key.partition("/")[0] == split}
        subsets = dict.fromkeys(["", *official, *sorted({name for face in faces for name in face.subsets})])
        rows += [
            Count(
                split,
                subset,
                sum(not subset or subset in face.subsets for face in faces),
                official.get(subset),
            )
            for subset in subsets
        ]
    return tuple(rows)
