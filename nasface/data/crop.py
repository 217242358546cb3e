"""Crop one face: where its square lies in the image, and resampling it to the stored size."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nasface.data.base import Dataset, Face, Index
from nasface.data.reading import landmark_fault
from nasface.errors import DataError, NasfaceError, RecipeError, described, out_of_memory

# A face this many times as large as its crop is averaged over whole pixels before it is filtered.
_REDUCING_GAP = 3
# A point further outside its image than this many sides of the face's box is taken for an annotation error.
_FAR = 0.5


@dataclass(frozen=True)
class PrepareOptions:
    """How faces are cropped.

    Attributes:
        input_size: side of the network's input in pixels.
        margin: the stored crop is this many times as wide as the input, at the same resolution, so that rotated
            and shrunk views have pixels at their borders.
        box: 'landmarks' takes the box of the landmarks, 'provided' the box that comes with the dataset.
        box_scale: side of the input divided by the longer side of the box.
    """

    input_size: int = 256
    margin: float = 1.6
    box: Literal["landmarks", "provided"] = "landmarks"
    box_scale: float = 1.25

    def __post_init__(self) -> None:
        if not 8 <= self.input_size <= 4096:
            raise RecipeError(f"input_size must be between 8 and 4096 pixels, not {self.input_size}")
        if not 1 <= self.margin <= 4:
            raise RecipeError(f"margin must be between 1 and 4, not {self.margin}")
        if self.box not in ("landmarks", "provided"):
            raise RecipeError(f"box must be 'landmarks' or 'provided', not {self.box!r}")
        if not 0.1 <= self.box_scale <= 10:
            raise RecipeError(f"box_scale must be between 0.1 and 10, not {self.box_scale}")

    @property
    def pad(self) -> int:
        """Stored pixels on each side of the input; an integer, so that evaluation takes a plain slice."""
        return round(self.input_size * (self.margin - 1) / 2)

    @property
    def stored_size(self) -> int:
        """Side of the stored crop in pixels."""
        return self.input_size + 2 * self.pad


@dataclass(frozen=True, eq=False)
class Crop:
    """One cropped face: uint8 (S, S, 3), its landmarks, float32 (L, 2), and the map to the original, float64 (2, 3)."""

    image: NDArray[np.uint8]
    landmarks_L2: NDArray[np.float32]
    to_original_23: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Square:
    """The stored square of a face: its corners (2,) in edge coordinates of the image, and image pixels per pixel."""

    edge: NDArray[np.float64]
    end: NDArray[np.float64]
    scale: float


def read_face(dataset: Dataset, face: Face) -> NDArray[np.uint8]:
    """Decode the image of a face: RGB uint8 (H, W, 3).

    Raises:
        DataError: it cannot be decoded, or the dataset returns something else or fails.
    """
    try:
        image = dataset.read(face)
    except DataError:
        raise
    except (Exception, SystemExit) as err:  # a plug-in may raise anything
        if out_of_memory(err):
            raise
        raise DataError(f"{face.name}: cannot be read ({described(err)}); repair the file or the dataset") from err
    if not (isinstance(image, np.ndarray) and image.ndim == 3 and image.shape[2] == 3 and image.size):
        form = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise DataError(f"{face.name}: the image is {form}; expected uint8 (H, W, 3)")
    if image.dtype != np.uint8:
        raise DataError(f"{face.name}: the image is {image.dtype} {image.shape}; expected uint8 (H, W, 3)")
    return image


def find_faces(dataset: Dataset) -> Index:
    """Return the index of a dataset. Raises DataError, whatever the dataset raises."""
    try:
        return dataset.index()
    except NasfaceError:
        raise
    except (Exception, SystemExit) as err:  # a plug-in may raise anything
        if out_of_memory(err):
            raise
        raise DataError(
            f"the dataset '{dataset.name}' cannot find its faces ({described(err)}); repair its files or the plug-in"
        ) from err


def square(size: tuple[int, int], face: Face, num_landmarks: int, options: PrepareOptions) -> Square:
    """Find the square of a face in its image.

    Args:
        size: width and height of the image in pixels.
        face: the face.
        num_landmarks: number of landmarks that it must have.
        options: how to crop.

    Raises:
        DataError: the landmarks or the box do not fit the image. `prepare` leaves the face out, and `check` lists it.
    """
    width, height = size
    fault = landmark_fault(face.landmarks_L2, num_landmarks)
    if fault:
        raise DataError(f"{face.name}: the face {fault}")
    if len(far_points(size, face)) == num_landmarks:
        raise DataError(f"{face.name}: all landmarks lie far outside the image of {width} x {height}")
    centre, side = _square(face, options)
    if not np.isfinite(centre).all() or not 0 < side <= 4 * options.box_scale * max(height, width):
        raise DataError(f"{face.name}: the face box is {side:.0f} pixels wide in an image of {width} x {height}")
    place = _placed(centre, side, options)
    if (place.end <= 0).any() or (place.edge >= (width, height)).any():
        raise DataError(f"{face.name}: the face lies outside its image of {width} x {height}")
    return place


def far_points(size: tuple[int, int], face: Face) -> NDArray[np.intp]:
    """Return the indices of the landmarks so far outside the image that they are taken for errors of annotation."""
    width, height = size
    points_L2 = face.landmarks_L2
    beyond = np.maximum(-0.5 - points_L2, points_L2 - (width - 0.5, height - 0.5)).max(axis=1)
    return np.flatnonzero(beyond > _FAR * np.ptp(points_L2, axis=0).max())


def crop_face(image_HWC: NDArray[np.uint8], face: Face, num_landmarks: int, options: PrepareOptions) -> Crop:
    """Crop one face with anti-aliasing; what lies outside the image is black.

    Output pixel i covers [i, i + 1] * scale of the input from the crop's left edge, so its centre lies at the
    input coordinate left + (i + 0.5) * scale - 0.5 (integers at pixel centres).

    Raises:
        DataError: see `square`.
    """
    height, width = image_HWC.shape[:2]
    return _cut(image_HWC, square((width, height), face, num_landmarks, options), face.landmarks_L2, options)


def crop_box(image_HWC: NDArray[np.uint8], box_4: NDArray[Any], options: PrepareOptions) -> Crop:
    """Crop as `crop_face` does, around the box x0, y0, x1, y1 of a face that is looked for; no annotation is judged.

    The box may lie partly or wholly outside the image. The crop's landmarks are the corners of the box.
    """
    x0, y0, x1, y1 = box_4.tolist()
    corners_22 = np.array([[x0, y0], [x1, y1]])
    face = Face("", "test", (), corners_22, None, (x0, y0, x1 - x0, y1 - y0))
    return _cut(image_HWC, _placed(*_square(face, options), options), corners_22, options)


def _placed(centre: NDArray[np.float64], side: float, options: PrepareOptions) -> Square:
    """Return the square that is stored for a network's input of this centre and side."""
    scale = side / options.input_size
    # Edges, not centres: pixel i of the original covers [i, i + 1] here.
    edge = centre + 0.5 - side / 2 - options.pad * scale
    return Square(edge, edge + options.stored_size * scale, scale)


def _cut(image_HWC: NDArray[np.uint8], place: Square, points_L2: NDArray[np.float64], options: PrepareOptions) -> Crop:
    scale = place.scale
    offset = place.edge + scale / 2 - 0.5
    stored = _resample(image_HWC, place.edge, place.end, options.stored_size)
    to_original = np.array([[scale, 0, offset[0]], [0, scale, offset[1]]])
    return Crop(np.asarray(stored), ((points_L2 - offset) / scale).astype(np.float32), to_original)


def _resample(
    image_HWC: NDArray[np.uint8], edge: NDArray[np.float64], end: NDArray[np.float64], size: int
) -> Image.Image:
    """Resample the region between two corners (in edge coordinates) to a square image."""
    # Large faces are first averaged over whole pixels: fast, and the padded region stays small.
    factor = max(1, floor((end[0] - edge[0]) / size / _REDUCING_GAP))
    reach = 2 * _REDUCING_GAP + 2  # more than the support of the filter, so that the border is correct too
    low = [max((floor(value / factor) - reach) * factor, 0) for value in edge]
    high = [
        min((ceil(value / factor) + reach) * factor, n) for value, n in zip(end, image_HWC.shape[1::-1], strict=True)
    ]
    if any(end <= start for start, end in zip(low, high, strict=True)):
        return Image.new("RGB", (size, size))
    reduced = Image.fromarray(image_HWC[low[1] : high[1], low[0] : high[0]]).reduce(factor)
    left, top = ((edge - low) / factor).tolist()
    right, bottom = ((end - low) / factor).tolist()
    x0, y0, x1, y1 = floor(left) - reach, floor(top) - reach, ceil(right) + reach, ceil(bottom) + reach
    box = (left - x0, top - y0, right - x0, bottom - y0)
    return reduced.crop((x0, y0, x1, y1)).resize((size, size), Image.Resampling.BILINEAR, box=box)


def _square(face: Face, options: PrepareOptions) -> tuple[NDArray[np.float64], float]:
    """Return the centre (x, y) and the side of the network's input in pixels of the original image."""
    if options.box == "provided" and face.box is not None:
        x, y, width, height = face.box
        return np.array([x + width / 2, y + height / 2]), max(width, height) * options.box_scale
    low, high = np.floor(face.landmarks_L2.min(axis=0)), np.ceil(face.landmarks_L2.max(axis=0))
    return (low + high) / 2, float((high - low).max()) * options.box_scale
