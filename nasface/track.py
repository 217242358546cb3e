"""Faces followed through a video, and their landmarks steadied. No torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nasface.detect import SAME_FACE, Boxes, Detector, FoundFaces, Pixels, fits, landmark_boxes, overlap, sides

# A tracked face is lost when its score falls below this share of its score at detection, or when its box grows or
# shrinks by more than this factor from one frame to the next.
LOST_SCORE, LOST_SIZE = 0.8, 1.5
# The One Euro filter: the cut-off frequency (Hz) grows by this much for each face size per second at which a landmark
# moves; its speed is smoothed with the second cut-off frequency (Hz).
LESS_LAG, SPEED_CUTOFF = 20.0, 1.0


Look = Callable[[Pixels, Boxes, int], FoundFaces]
"""The network as a function: image, boxes and number of refinements to the faces that it finds."""


def track(
    images: Iterable[Pixels], detector: Detector, look: Look, *, every: int, refine: int, min_score: float
) -> Iterator[tuple[Pixels, FoundFaces]]:
    """Follow the faces of a video; each is looked for in the box of its landmarks in the previous frame.

    Args:
        images: the frames.
        detector: called on every `every`-th frame, whenever a face has been lost, and while there is none.
        look: the network.
        every: 1 detects faces in each frame.
        refine: number of refinements of detected faces.
        min_score: lowest score of detected faces; `LOST_SCORE` and `LOST_SIZE` say when a tracked face is lost.

    Yields:
        Each frame with its faces.
    """
    here: FoundFaces | None = None
    first: dict[int, float] = {}  # score by number, at detection
    for i, image in enumerate(images):
        before = 0 if here is None else len(here)
        here = look(image, np.empty((0, 4)), 0) if here is None else _follow(here, first, image, look)
        if i % every == 0 or not before or len(here) < before:
            boxes_K4 = detector(image)
            known = (overlap(boxes_K4, landmark_boxes(here.landmarks_KL2)) > SAME_FACE).any(axis=1)
            new = look(image, boxes_K4[~known], refine).plausible(min_score)
            new = replace(new, numbers_K=_numbered(new, here, len(first)))
            first = dict(zip(new.numbers_K.tolist(), new.scores_K.tolist(), strict=True)) | first
            pairs = zip(vars(here).values(), vars(new).values(), strict=True)
            here = FoundFaces(*(np.concatenate(pair) for pair in pairs)).plausible(-np.inf)
        yield image, here


def _numbered(new: FoundFaces, here: FoundFaces, fresh: int) -> NDArray[np.int64]:
    """Number detected faces: like the tracked one on which a face turned out to lie, or else from `fresh` on."""
    lies_MK = overlap(landmark_boxes(new.landmarks_KL2), landmark_boxes(here.landmarks_KL2))
    numbers: list[int] = []
    for lies_K in lies_MK:
        same = [k for k in np.argsort(-lies_K).tolist() if lies_K[k] > SAME_FACE and here.numbers_K[k] not in numbers]
        numbers.append(int(here.numbers_K[same[0]]) if same else fresh)
        fresh += not same
    return np.array(numbers, dtype=np.int64)


def _follow(before: FoundFaces, first: dict[int, float], image: Pixels, look: Look) -> FoundFaces:
    """Return the faces of the previous frame that are still there."""
    before = before.take(fits(landmark_boxes(before.landmarks_KL2), np.array(image.shape[1::-1])))
    old_K4 = landmark_boxes(before.landmarks_KL2)
    here = replace(look(image, old_K4, 0), numbers_K=before.numbers_K)
    growth = (sides(landmark_boxes(here.landmarks_KL2)) + 1) / (sides(old_K4) + 1)
    least = LOST_SCORE * np.array([first[number] for number in before.numbers_K.tolist()])
    return here.take((np.abs(np.log(growth)) <= np.log(LOST_SIZE)) & (here.scores_K >= least)).plausible(-np.inf)


@dataclass(frozen=True, eq=False)
class _Steady:
    """The state of the filter for one face: smoothed landmarks (L, 2) and velocities (L, 2), in pixels and seconds."""

    points_L2: NDArray[np.float64]
    speed_L2: NDArray[np.float64]


def steadied(
    seen: Iterable[tuple[Pixels, FoundFaces]], rate: float, cutoff: float
) -> Iterator[tuple[Pixels, FoundFaces]]:
    """Smooth the landmarks of each face over time with the One Euro filter (Casiez et al. 2012).

    A low-pass filter whose cut-off frequency grows with the speed of each landmark: still faces do not tremble and fast
    ones do not lag. Speed is measured in sizes of the face, so that the settings suit any resolution.

    Args:
        seen: frames with their faces, see `track`; a face keeps its number.
        rate: frames per second.
        cutoff: cut-off frequency for a face at rest, in hertz; lower is steadier, 0 changes nothing.

    Yields:
        Each frame with its faces; boxes and confidences stay as they are.
    """
    states: dict[int, _Steady] = {}
    for image, faces in seen:
        if cutoff <= 0:
            yield image, faces
            continue
        sizes_K = np.maximum(sides(landmark_boxes(faces.landmarks_KL2)), 1.0).tolist()
        each = zip(faces.numbers_K.tolist(), faces.landmarks_KL2, sizes_K, strict=True)
        states = {number: _step(states.get(number), points, size, rate, cutoff) for number, points, size in each}
        points_KL2 = np.array([state.points_L2 for state in states.values()]).reshape(faces.landmarks_KL2.shape)
        yield image, replace(faces, landmarks_KL2=points_KL2)


def _step(before: _Steady | None, points_L2: NDArray[np.float64], size: float, rate: float, cutoff: float) -> _Steady:
    """Return the state of the filter after one more frame."""
    if before is None:
        return _Steady(points_L2, np.zeros_like(points_L2))

    def share(hertz: Any) -> Any:
        """The share of the new value in the mean, for a cut-off frequency."""
        return 1 / (1 + rate / (2 * np.pi * hertz))

    speed_L2 = before.speed_L2 + share(SPEED_CUTOFF) * ((points_L2 - before.points_L2) * rate - before.speed_L2)
    faster_L1 = np.linalg.norm(speed_L2, axis=1, keepdims=True) / size
    return _Steady(before.points_L2 + share(cutoff + LESS_LAG * faster_L1) * (points_L2 - before.points_L2), speed_L2)
