"""Face boxes: from a detector, from a file, from the frame before. No torch.

A box is (x0, y0, x1, y1), 0-based, integers at pixel centres. Networks are trained on boxes of landmarks (brows to
chin), so that is what every box here means or comes near to.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nasface.errors import DataError, NasfaceError, RecipeError, RunError, described, did_you_mean
from nasface.importing import NotImportableError, import_attr

# The box of 68 landmarks in units of the Haar box's side: how far its centre lies below that of the Haar box, its
# width and its height. Medians over the faces that were found of 300W's training faces at hand (AFW, HELEN, LFPW).
HAAR_DOWN, HAAR_WIDTH, HAAR_HEIGHT = 0.155, 0.86, 0.845
# The first is seldom wrong; the second, which finds more faces and more that are none, is asked where it finds nothing.
HAAR_CASCADES = ("alt", "default")
# Larger images are shrunk to this many pixels, and faces below this share of the shorter side are not looked for.
HAAR_PIXELS, HAAR_SMALLEST = 1024, 0.05
# A whole image leaves this share of itself on each side of the face's box; box_scale 1.25 adds it again.
WHOLE_MARGIN = 0.1
# Boxes that share this much of the smaller one are of the same face.
SAME_FACE = 0.5
# A tracked face is lost when its score falls below this share of what it was at its detection, or when its box grows
# or shrinks by more than this factor from one frame to the next.
LOST_SCORE, LOST_SIZE = 0.8, 1.5

Boxes = NDArray[np.float64]
Pixels = NDArray[np.uint8]


class Detector(Protocol):
    """Finds faces: any callable, named 'module:attr' on the command line."""

    def __call__(self, image_HW3: Pixels, /) -> NDArray[Any]:
        """Boxes (K, 4) of the faces in an RGB image of 0 to 255: x0, y0, x1, y1 in its pixels, K = 0 where none is.

        They should come near the box of the landmarks; refinement removes what is left of a detector's own habit.
        """
        ...


def haar(image_HW3: Pixels, /) -> Boxes:
    """OpenCV's Haar cascades for frontal faces (Viola and Jones 2001), their boxes moved to where landmarks lie.

    They come with OpenCV, nothing is downloaded. Not for several threads at once.

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
    found: Any = ()
    for cascade in HAAR_CASCADES:
        if not len(found):
            found = _cascade(cascade).detectMultiScale(grey, scaleFactor=1.1, minNeighbors=2, minSize=(least, least))
    x, y, side, _ = np.asarray(found, dtype=np.float64).reshape(-1, 4).T / shrink
    half = side[:, None] / 2 * np.array([HAAR_WIDTH, HAAR_HEIGHT])
    centre = np.stack([x + side / 2, y + side / 2 + HAAR_DOWN * side], axis=1) - 0.5  # from edges to pixel centres
    return np.concatenate([centre - half, centre + half], axis=1)


def whole(image_HW3: Pixels, /) -> Boxes:
    """One face that fills the image, for pictures that are faces cut out already."""
    size = np.array(image_HW3.shape[1::-1])
    return np.concatenate([WHOLE_MARGIN * size, (1 - WHOLE_MARGIN) * size])[None] - 0.5


DETECTORS: dict[str, Detector] = {"haar": haar, "whole": whole}


def find_detector(name: str) -> Detector:
    """A detector whose answers are checked: they are float64 (K, 4).

    Args:
        name: of `DETECTORS`, or 'module:attr'; modules of the working directory are found.

    Raises:
        RecipeError: there is none of this name, or it cannot be imported.
        RunError: OpenCV is not installed.
    """
    if name == "haar":
        opencv()
    elif name not in DETECTORS and ":" not in name:
        raise RecipeError(f"there is no detector '{name}'; {did_you_mean(name, DETECTORS)} (or name one 'module:attr')")
    try:
        found = DETECTORS[name] if name in DETECTORS else import_attr(name)
    except NotImportableError as err:
        raise RecipeError(
            f"the detector '{name}' cannot be imported ({err}); install its package or correct the name"
        ) from err
    if not callable(found):
        raise RecipeError(f"the detector '{name}' is a {type(found).__name__}; expected something that can be called")

    def checked(image_HW3: Pixels, /) -> Boxes:
        try:
            boxes = np.asarray(found(image_HW3), dtype=np.float64)
            if boxes.size and (boxes.ndim != 2 or boxes.shape[1] != 4):
                raise ValueError(f"it gave an array of shape {boxes.shape}")
        except NasfaceError:
            raise
        except Exception as err:  # a detector may raise anything
            raise DataError(
                f"the detector '{name}' fails ({described(err)}); expected boxes (K, 4): x0, y0, x1, y1"
            ) from err
        return boxes.reshape(-1, 4)

    return checked


def opencv() -> Any:
    """The module cv2, of a version with Haar cascades; a RunError says which extra has it."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # a broken video is reported once, by us
    try:
        import cv2

        cv2.CascadeClassifier  # noqa: B018  OpenCV 5 has none
    except (ImportError, AttributeError) as err:
        raise RunError(
            "the Haar detector and videos need OpenCV 4; run pip install 'nasface[predict]', or give images with "
            "--boxes, --detector whole or a detector of your own"
        ) from err
    return cv2


@lru_cache
def _cascade(name: str) -> Any:
    cv2 = opencv()
    return cv2.CascadeClassifier(str(Path(cv2.data.haarcascades) / f"haarcascade_frontalface_{name}.xml"))


def probe(video: Path) -> tuple[int, float]:
    """How many frames a video says that it has, and how many a second; 1 and 25 where it does not say.

    Raises:
        DataError: not even its first frame can be read.
        RunError: OpenCV is not installed.
    """
    cv2 = opencv()
    capture = cv2.VideoCapture(str(video))
    try:
        if not capture.grab():
            raise DataError(f"{video}: cannot be read as a video; convert it to another format, such as H.264 in mp4")
        rate = float(capture.get(cv2.CAP_PROP_FPS))
        return max(1, int(capture.get(cv2.CAP_PROP_FRAME_COUNT))), rate if 0 < rate < 1000 else 25.0
    finally:
        capture.release()


def frames(video: Path) -> Iterator[Pixels]:
    """The frames of a video, RGB and upright, up to its end or to the first that is damaged."""
    cv2 = opencv()
    capture = cv2.VideoCapture(str(video))
    try:
        while True:
            there, frame_HW3 = capture.read()
            if not there:
                return
            yield cv2.cvtColor(frame_HW3, cv2.COLOR_BGR2RGB)
    finally:
        capture.release()


def read_boxes(path: Path) -> dict[str, Boxes]:
    """Face boxes by image, in the order of the file.

    Args:
        path: a csv with the columns image, x0, y0, x1, y1 (others are ignored) and a row for each face.

    Raises:
        DataError: it cannot be read, lacks a column, or a row holds no box; the row is named.
    """
    import pandas as pd

    columns = ["image", "x0", "y0", "x1", "y1"]
    expected = f"expected a csv with the columns {', '.join(columns)}"
    try:
        table = pd.read_csv(path, dtype={"image": str}, skipinitialspace=True, encoding="utf-8-sig")
    except (OSError, ValueError) as err:  # pandas' own errors are ValueErrors
        raise DataError(f"{path}: cannot be read as csv ({' '.join(str(err).split())}); {expected}") from err
    if missing := [name for name in columns if name not in table]:
        raise DataError(f"{path} has no column {', '.join(missing)}; {expected}")
    boxes_N4 = table[columns[1:]].apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
    sound = np.isfinite(boxes_N4).all(axis=1) & (boxes_N4[:, 2:] > boxes_N4[:, :2]).all(axis=1)
    sound &= table["image"].notna().to_numpy()
    if not sound.all():
        row = int(np.argmin(sound))
        given = ", ".join(str(value) for value in table.loc[row, columns])
        raise DataError(
            f"{path}, row {row + 1}: {given} is no face box; expected an image and four numbers, x0 < x1 and y0 < y1"
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


@dataclass(frozen=True, eq=False)
class FoundFaces:
    """Faces of one image, in its pixels.

    Attributes:
        boxes_K4: float64, in which the network looked last.
        landmarks_KL2: float64 (K, L, 2), x and y.
        scores_K: float64, the mean over landmarks of the heatmap's peak: near 1 for a face like those of training,
            lower for others and for what is no face.
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

    def plausible(self, min_score: float) -> FoundFaces:
        """Those of this score, without the worse of two that lie on the same face."""
        boxes_K4 = landmark_boxes(self.landmarks_KL2)
        same = overlap(boxes_K4, boxes_K4) > SAME_FACE
        kept: list[int] = []
        for i in np.argsort(-self.scores_K, kind="stable").tolist():
            if self.scores_K[i] >= min_score and not same[i, kept].any():
                kept.append(i)
        return self.take(np.array(sorted(kept), dtype=np.intp))


Look = Callable[[Pixels, Boxes, int], FoundFaces]
"""What the network finds in boxes of an image when it is refined so many times."""


def track(
    images: Iterable[Pixels], detector: Detector, look: Look, *, every: int, refine: int, min_score: float
) -> Iterator[tuple[Pixels, FoundFaces]]:
    """Follow the faces of a video: each is looked for in the box that its landmarks had in the frame before.

    Args:
        images: the frames.
        detector: called on every `every`-th frame, where a face was lost, and while there is none.
        look: the network.
        every: 1 detects in each frame.
        refine: of detected faces.
        min_score: of detected faces; a tracked one is lost as `LOST_SCORE` and `LOST_SIZE` say.

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
            new = replace(new, numbers_K=np.arange(len(new)) + len(first))
            first |= dict(zip(new.numbers_K.tolist(), new.scores_K.tolist(), strict=True))
            pairs = zip(vars(here).values(), vars(new).values(), strict=True)
            here = FoundFaces(*(np.concatenate(pair) for pair in pairs)).plausible(-np.inf)
        yield image, here


def _follow(before: FoundFaces, first: dict[int, float], image: Pixels, look: Look) -> FoundFaces:
    """The faces of the frame before that are still there."""
    before = before.take(fits(landmark_boxes(before.landmarks_KL2), np.array(image.shape[1::-1])))
    old_K4 = landmark_boxes(before.landmarks_KL2)
    here = replace(look(image, old_K4, 0), numbers_K=before.numbers_K)
    growth = (sides(landmark_boxes(here.landmarks_KL2)) + 1) / (sides(old_K4) + 1)
    least = LOST_SCORE * np.array([first[number] for number in before.numbers_K.tolist()])
    return here.take((np.abs(np.log(growth)) <= np.log(LOST_SIZE)) & (here.scores_K >= least)).plausible(-np.inf)
