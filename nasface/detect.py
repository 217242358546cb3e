"""Face boxes: from a detector, from a file, from the frame before. No torch.

A box is (x0, y0, x1, y1), 0-based, integers at pixel centres. Networks are trained on boxes of landmarks (brows to chin),
so that is what every box here means or comes near to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nasface.errors import DataError, RunError

# The box of 68 landmarks in units of the Haar box's side: how far its centre lies below that of the Haar box, its
# width and its height. Medians over the detected ones of 300W's 2,014 training faces at hand (AFW, HELEN, LFPW).
HAAR_DOWN, HAAR_WIDTH, HAAR_HEIGHT = 0.155, 0.86, 0.84
# Larger images are shrunk to this many pixels, and faces below this share of the shorter side are not looked for.
HAAR_PIXELS, HAAR_SMALLEST = 1024, 0.05
# A whole image leaves this share of itself on each side of the face's box; box_scale 1.25 adds it again.
WHOLE_MARGIN = 0.1
# Boxes that share this much of the smaller one are of the same face.
SAME_FACE = 0.5
# A face of the frame before is lost when its score falls below this share of what it was at its detection, or its box
# changes its size by more than this factor.
LOST_SCORE, LOST_SIZE = 0.8, 1.5

Boxes = NDArray[np.float64]
Pixels = NDArray[np.uint8]


class Detector(Protocol):
    """Finds faces: any callable, named 'module:attr' on the command line."""

    def __call__(self, image_HW3: Pixels, /) -> NDArray[Any]:
        """Boxes (K, 4) of the faces in an RGB image of 0 to 255: x0, y0, x1, y1 in its pixels, K = 0 where none is.

        They should come near the box of the landmarks; `refine` removes what is left of a detector's own habit.
        """
        ...


@dataclass(frozen=True, eq=False)
class FoundFaces:
    """Faces of one image, in its pixels.

    Attributes:
        boxes_K4: float64, in which the network looked last.
        landmarks_KL2: float64 (K, L, 2), x and y.
        scores_K: float64, the mean over landmarks of the heatmap's peak: 1 for a face like those of training, lower for
            others and for what is no face.
        numbers_K: of the face in its image, or in its video, where a face keeps its number.
    """

    boxes_K4: Boxes
    landmarks_KL2: NDArray[np.float64]
    scores_K: NDArray[np.float64]
    numbers_K: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.boxes_K4)

    def take(self, index: NDArray[Any]) -> FoundFaces:
        """Some of the faces, by a mask or by their places."""
        return FoundFaces(*(values[index] for values in vars(self).values()))

    def distinct(self) -> FoundFaces:
        """Without the worse of two sets of landmarks that lie on the same face."""
        boxes_K4 = landmark_boxes(self.landmarks_KL2)
        same = overlap(boxes_K4, boxes_K4) > SAME_FACE
        kept: list[int] = []
        for i in np.argsort(-self.scores_K, kind="stable").tolist():
            if not same[i, kept].any():
                kept.append(i)
        return self.take(np.array(sorted(kept), dtype=np.intp))


Look = Callable[[Pixels, Boxes, int], FoundFaces]
"""What the network finds in boxes of an image, refined so many times."""


def haar(image_HW3: Pixels, /) -> Boxes:
    """OpenCV's Haar cascade for frontal faces (Viola and Jones 2001), its boxes moved to where landmarks lie.

    The cascade comes with OpenCV, nothing is downloaded. Not for several threads at once.

    Raises:
        RunError: OpenCV is not installed.
    """
    cv2 = opencv()
    height, width = image_HW3.shape[:2]
    shrink = min(1.0, HAAR_PIXELS / max(height, width))
    grey = cv2.cvtColor(np.ascontiguousarray(image_HW3), cv2.COLOR_RGB2GRAY)
    if shrink < 1:
        size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
        grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    least = max(20, round(HAAR_SMALLEST * min(grey.shape)))
    found = _cascade().detectMultiScale(grey, scaleFactor=1.1, minNeighbors=2, minSize=(least, least))
    if not len(found):
        return np.empty((0, 4))
    x, y, side, _ = np.asarray(found, dtype=np.float64).T / shrink
    centre_x, centre_y = x + side / 2 - 0.5, y + side / 2 - 0.5 + HAAR_DOWN * side
    half_w, half_h = HAAR_WIDTH * side / 2, HAAR_HEIGHT * side / 2
    return np.stack([centre_x - half_w, centre_y - half_h, centre_x + half_w, centre_y + half_h], axis=1)


def whole(image_HW3: Pixels, /) -> Boxes:
    """One face that fills the image, for pictures that are faces cut out already."""
    height, width = image_HW3.shape[:2]
    margin_x, margin_y = WHOLE_MARGIN * width, WHOLE_MARGIN * height
    return np.array([[margin_x - 0.5, margin_y - 0.5, width - margin_x - 0.5, height - margin_y - 0.5]])


def opencv() -> Any:
    """The module cv2 with its Haar cascades; a RunError says which extra has it."""
    try:
        import cv2

        cv2.CascadeClassifier  # noqa: B018  OpenCV 5 has none
    except (ImportError, AttributeError) as err:
        raise RunError(
            "the Haar detector and videos need OpenCV 4; run pip install 'nasface[predict]', or give images with "
            "--boxes, --detector whole or a detector of your own"
        ) from err
    return cv2


@lru_cache(maxsize=1)
def _cascade() -> Any:
    cv2 = opencv()
    return cv2.CascadeClassifier(str(Path(cv2.data.haarcascades) / "haarcascade_frontalface_alt.xml"))


def read_boxes(path: Path) -> dict[str, Boxes]:
    """Face boxes by image, in the order of the file.

    Args:
        path: a csv with the columns image, x0, y0, x1, y1 (others are ignored) and a row for each face.

    Raises:
        DataError: it cannot be read, lacks a column, or a row holds no box; the row is named.
    """
    import pandas as pd

    columns = ["x0", "y0", "x1", "y1"]
    try:
        table = pd.read_csv(path, dtype={"image": str}, skipinitialspace=True)
    except (OSError, ValueError) as err:  # pandas' own errors are ValueErrors
        raise DataError(
            f"cannot read the boxes {path} ({' '.join(str(err).split())}); expected a csv with the columns image, x0, "
            "y0, x1, y1"
        ) from err
    if missing := [name for name in ("image", *columns) if name not in table]:
        raise DataError(f"{path} has no column {', '.join(missing)}; expected a csv with image, x0, y0, x1, y1")
    boxes_N4 = table[columns].apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
    sound = np.isfinite(boxes_N4).all(axis=1) & (boxes_N4[:, 2:] > boxes_N4[:, :2]).all(axis=1)
    sound &= table["image"].notna().to_numpy()
    if not sound.all():
        row = int(np.argmin(sound))
        raise DataError(
            f"{path}, line {row + 2}: {table.loc[row, ['image', *columns]].tolist()} is no face box; expected an "
            "image and four numbers with x0 < x1 and y0 < y1"
        )
    return {str(name): boxes_N4[rows] for name, rows in table.groupby("image", sort=False).indices.items()}


def landmark_boxes(landmarks_KL2: NDArray[Any]) -> Boxes:
    """(K, 4) the boxes of the points, rounded outwards to whole pixels as for training."""
    corners = (np.floor(landmarks_KL2.min(axis=1)), np.ceil(landmarks_KL2.max(axis=1)))
    return np.concatenate(corners, axis=1).astype(np.float64)


def sides(boxes_K4: Boxes) -> NDArray[np.float64]:
    """(K,) the longer side of each box."""
    longer: NDArray[np.float64] = (boxes_K4[:, 2:] - boxes_K4[:, :2]).max(axis=1)
    return longer


def fits(boxes_K4: Boxes, sizes_K2: NDArray[Any]) -> NDArray[np.bool_]:
    """(K,) whether a box has a size that a face of its image can have, and lies in it at least in part.

    Args:
        boxes_K4: any numbers.
        sizes_K2: width and height of each box's image, or (2,) of the one image of all.
    """
    low, high, side = boxes_K4[:, :2], boxes_K4[:, 2:], sides(boxes_K4)
    inside = np.isfinite(boxes_K4).all(axis=1) & (high > -0.5).all(axis=1) & (low < sizes_K2 - 0.5).all(axis=1)
    sound: NDArray[np.bool_] = inside & (side >= 2) & (side <= 2 * sizes_K2.max(axis=-1)) & (high >= low).all(axis=1)
    return sound


def overlap(a_K4: Boxes, b_M4: Boxes) -> NDArray[np.float64]:
    """(K, M) the share of the smaller box that lies in the other one."""
    low = np.maximum(a_K4[:, None, :2], b_M4[None, :, :2])
    high = np.minimum(a_K4[:, None, 2:], b_M4[None, :, 2:])
    common = np.clip(high - low, 0, None).prod(axis=2)
    area_K, area_M = ((box[:, 2:] - box[:, :2]).prod(axis=1) for box in (a_K4, b_M4))
    result: NDArray[np.float64] = common / np.maximum(np.minimum(area_K[:, None], area_M), 1e-9)
    return result


def track(
    frames: Iterable[Pixels], detector: Detector, look: Look, *, every: int, refine: int, min_score: float
) -> Iterator[tuple[Pixels, FoundFaces]]:
    """Follow the faces of a video: each is looked for in the box that its landmarks had in the frame before.

    Args:
        frames: one after another.
        detector: called on every `every`-th frame, on a frame in which a face was lost, and while there is none.
        look: the network.
        every: 1 detects in each frame.
        refine: of detected faces.
        min_score: of detected faces; a tracked one is lost as `LOST_SCORE` and `LOST_SIZE` say.

    Yields:
        Each frame with its faces.
    """
    before: FoundFaces | None = None
    first: dict[int, float] = {}  # score by number at its detection
    for i, image in enumerate(frames):
        here = look(image, np.empty((0, 4)), 0) if before is None else _follow(before, first, image, look)
        if i % every == 0 or before is None or not len(before) or len(here) < len(before):
            boxes_K4 = detector(image)
            known = (overlap(boxes_K4, landmark_boxes(here.landmarks_KL2)) > SAME_FACE).any(axis=1)
            new = look(image, boxes_K4[~known], refine)
            new = new.take(new.scores_K >= min_score).distinct()
            new.numbers_K[:] = np.arange(len(new)) + len(first)
            first |= dict(zip(new.numbers_K.tolist(), new.scores_K.tolist(), strict=True))
            here = _together([here, new])
        before = here.distinct()
        yield image, before


def _follow(before: FoundFaces, first: dict[int, float], image: Pixels, look: Look) -> FoundFaces:
    """The faces of the frame before that are still there."""
    old_K4 = landmark_boxes(before.landmarks_KL2)
    inside = fits(old_K4, np.array(image.shape[1::-1]))
    old_K4, numbers_K = old_K4[inside], before.numbers_K[inside]
    here = look(image, old_K4, 0)
    here.numbers_K[:] = numbers_K
    growth = (sides(landmark_boxes(here.landmarks_KL2)) + 1) / (sides(old_K4) + 1)
    steady = np.abs(np.log(growth)) <= np.log(LOST_SIZE)
    return here.take(steady & (here.scores_K >= LOST_SCORE * np.array([first[n] for n in numbers_K.tolist()])))


def _together(parts: Sequence[FoundFaces]) -> FoundFaces:
    return FoundFaces(*(np.concatenate(values) for values in zip(*(vars(p).values() for p in parts), strict=True)))
