"""The usual per-image side of the data pipeline benchmark: OpenCV, one face and one landmark at a time.

This is how landmark code is commonly written (in HRNet, for example), but without its slow spots: a single warp from
the original to the input that includes the mirroring, a separable Gaussian in a small patch for each landmark, a
DataLoader with persistent workers, and a closed form for DARK's Taylor step.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from nasface.data.augment import MEAN, STD, Augmentation
from nasface.data.base import Face, Scheme
from nasface.data.prepare import PrepareOptions
from nasface.task import Decoder

STRIDE = 4  # input pixels per heatmap cell
SIGMA = 1.5  # cells
REACH = 3  # a patch ends at this many sigma, where the Gaussian is 0.011
MEAN_255, STD_255 = (255 * np.array(values, np.float32) for values in (MEAN, STD))


# Preparation.


def read_bgr(face: Face) -> NDArray[np.uint8]:
    """Decode with OpenCV; EXIF orientation is not applied, as annotations are in stored pixels."""
    image = cv2.imread(str(face.source), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise OSError(f"{face.source}: OpenCV cannot read it")
    return image


def square(points_L2: NDArray[np.float64], box_scale: float = 1.25) -> tuple[NDArray[np.float64], float]:
    """Return centre and side of the input in pixels of the original, from the box of the landmarks, as nasface does."""
    low, high = np.floor(points_L2.min(axis=0)), np.ceil(points_L2.max(axis=0))
    return (low + high) / 2, float((high - low).max()) * box_scale


def affine(
    centre: NDArray[np.float64], density: float, size: int, angle: float = 0.0, flipped: bool = False
) -> NDArray[np.float64]:
    """Return the map (2, 3) from the original to an output of `size` pixels, with `density` output pixels per pixel."""
    cos, sin, mirror = density * math.cos(angle), density * math.sin(angle), -1 if flipped else 1
    turn = np.array([[mirror * cos, -mirror * sin], [sin, cos]])
    return np.column_stack((turn, (size - 1) / 2 - turn @ centre))


def crop_with_opencv(options: PrepareOptions, face: Face) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Return the stored crop of a face and its landmarks."""
    centre, side = square(face.landmarks_L2, options.box_scale)
    size = options.stored_size
    matrix = affine(centre, options.input_size / side, size)
    image = cv2.warpAffine(read_bgr(face), matrix, (size, size), flags=cv2.INTER_LINEAR)
    points = face.landmarks_L2 @ matrix[:, :2].T + matrix[:, 2]
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB), points.astype(np.float32)


def prepare_with_opencv(
    faces: Sequence[Face], options: PrepareOptions, folder: Path, threads: int = 1
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Crop all faces in a loop, or in Python threads, and save the images and landmarks as two arrays."""
    folder.mkdir(parents=True, exist_ok=True)
    size = options.stored_size
    images = np.empty((len(faces), size, size, 3), np.uint8)
    points = np.empty((len(faces), *faces[0].landmarks_L2.shape), np.float32)

    def one(i: int) -> None:
        images[i], points[i] = crop_with_opencv(options, faces[i])

    if threads > 1:
        with ThreadPoolExecutor(threads) as pool:
            deque(pool.map(one, range(len(faces))), maxlen=0)
    else:
        for i in range(len(faces)):
            one(i)
    np.save(folder / "images.npy", images)
    np.save(folder / "points.npy", points)
    return images, points


# Training samples.


def warp(image_BGR: NDArray[np.uint8], matrix_23: NDArray[np.float64], size: int) -> NDArray[np.float32]:
    """Return the normalised input (3, size, size)."""
    image = cv2.warpAffine(image_BGR, matrix_23, (size, size), flags=cv2.INTER_LINEAR)
    image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return np.ascontiguousarray(((image.astype(np.float32) - MEAN_255) / STD_255).transpose(2, 0, 1))


def patches(points_L2: NDArray[np.floating], size: int, stride: float, sigma: float) -> NDArray[np.float32]:
    """Return heatmaps (L, size, size), with a Gaussian of peak 1 in a patch around each sub-cell landmark."""
    heatmaps = np.zeros((len(points_L2), size, size), np.float32)
    reach = REACH * sigma
    for heatmap, (x, y) in zip(heatmaps, ((points_L2 + 0.5) / stride - 0.5).tolist(), strict=True):
        left, right = max(0, math.ceil(x - reach)), min(size, math.floor(x + reach) + 1)
        top, bottom = max(0, math.ceil(y - reach)), min(size, math.floor(y + reach) + 1)
        if left < right and top < bottom:
            row = np.exp(-((np.arange(left, right) - x) ** 2) / (2 * sigma**2))
            column = np.exp(-((np.arange(top, bottom) - y) ** 2) / (2 * sigma**2))
            heatmap[top:bottom, left:right] = column[:, None] * row
    return heatmaps


class PerImage(TorchDataset[tuple[NDArray[np.float32], ...]]):
    """A dataset of the augmented input, landmarks and heatmaps of one face at a time.

    Attributes:
        faces: faces of the index.
        size: side of the input in pixels.
        scheme: landmark scheme, which gives the flip.
        how: augmentation, of which scale, rotation and flip are used.
        decoded: originals in memory; without them, the file is read for every sample.
        heatmaps: whether to draw heatmaps.
    """

    def __init__(
        self,
        faces: Sequence[Face],
        size: int,
        scheme: Scheme,
        how: Augmentation,
        decoded: Sequence[NDArray[np.uint8]] | None = None,
        heatmaps: bool = True,
    ) -> None:
        self.faces, self.size, self.how, self.decoded, self.heatmaps = faces, size, how, decoded, heatmaps
        self.flip = np.array(scheme.flip)
        self.squares = [square(face.landmarks_L2) for face in faces]

    def __len__(self) -> int:
        return len(self.faces)

    def __getitem__(self, i: int) -> tuple[NDArray[np.float32], ...]:
        how = self.how
        image = read_bgr(self.faces[i]) if self.decoded is None else self.decoded[i]
        centre, side = self.squares[i]
        density = self.size / side * random.uniform(1 - how.scale, 1 + how.scale)
        angle = math.radians(random.uniform(-how.rotation, how.rotation))
        flipped = random.random() < how.flip
        matrix = affine(centre, density, self.size, angle, flipped)
        points = self.faces[i].landmarks_L2 @ matrix[:, :2].T + matrix[:, 2]
        if flipped:
            points = points[self.flip]
        sample = (warp(image, matrix, self.size), points.astype(np.float32))
        return (*sample, patches(points, self.size // STRIDE, STRIDE, SIGMA)) if self.heatmaps else sample


def one_thread(worker: int) -> None:
    """Limit OpenCV to one thread per worker; torch does so itself."""
    cv2.setNumThreads(1)


def loader(dataset: PerImage, batch: int, workers: int) -> DataLoader[Any]:
    """Return a loader whose workers, if any, have already started."""
    batches: DataLoader[Any] = DataLoader(
        dataset,
        batch,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        worker_init_fn=one_thread if workers else None,
        persistent_workers=workers > 0,
    )
    if workers:
        threads = cv2.getNumThreads()
        cv2.setNumThreads(1)  # a fork beside OpenCV's thread pool can hang in the child's setNumThreads
        run_through(batches)
        cv2.setNumThreads(threads)
    return batches


def run_through(batches: DataLoader[Any]) -> None:
    """Run one epoch."""
    deque(batches, maxlen=0)


# Decoding.


def peaks(heatmaps_BLhw: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return x and y (B, L, 2) of each maximum."""
    h, w = heatmaps_BLhw.shape[-2:]
    index = heatmaps_BLhw.reshape(*heatmaps_BLhw.shape[:2], h * w).argmax(axis=2)
    return np.stack((index % w, index // w), axis=2)


def quarter_per_point(heatmaps_BLhw: NDArray[np.float32], input_size: int) -> NDArray[np.float64]:
    """Return landmarks in input pixels, a quarter of a cell from the maximum towards its higher neighbour."""
    h, w = heatmaps_BLhw.shape[-2:]
    cells = peaks(heatmaps_BLhw).astype(np.float64)
    for points, heatmaps in zip(cells, heatmaps_BLhw, strict=True):
        for point, heatmap in zip(points, heatmaps, strict=True):
            x, y = int(point[0]), int(point[1])
            if 0 < x < w - 1:
                point[0] += 0.25 * np.sign(heatmap[y, x + 1] - heatmap[y, x - 1])
            if 0 < y < h - 1:
                point[1] += 0.25 * np.sign(heatmap[y + 1, x] - heatmap[y - 1, x])
    return (cells + 0.5) * (input_size / w) - 0.5


def dark_per_point(heatmaps_BLhw: NDArray[np.float32], input_size: int, sigma: float = SIGMA) -> NDArray[np.float64]:
    """Return landmarks in input pixels by DARK (Zhang et al. 2020): blur each map, then a Taylor step in the log."""
    h, w = heatmaps_BLhw.shape[-2:]
    cells = peaks(heatmaps_BLhw).astype(np.float64)
    kernel = 2 * max(1, round(1.5 * sigma)) + 1
    for points, heatmaps in zip(cells, heatmaps_BLhw, strict=True):
        for point, heatmap in zip(points, heatmaps, strict=True):
            x, y = int(point[0]), int(point[1])
            if not (1 < x < w - 2 and 1 < y < h - 2):
                continue
            smooth = cv2.GaussianBlur(heatmap, (kernel, kernel), sigma, borderType=cv2.BORDER_REPLICATE)
            log = np.log(np.maximum(smooth[y - 2 : y + 3, x - 2 : x + 3], 1e-10)).tolist()
            dx, dy = (log[2][3] - log[2][1]) / 2, (log[3][2] - log[1][2]) / 2
            dxx = (log[2][4] - 2 * log[2][2] + log[2][0]) / 4
            dyy = (log[4][2] - 2 * log[2][2] + log[0][2]) / 4
            dxy = (log[3][3] - log[1][3] - log[3][1] + log[1][1]) / 4
            determinant = dxx * dyy - dxy**2
            if determinant > 0 and dxx < 0:
                point[0] += min(1.0, max(-1.0, -(dyy * dx - dxy * dy) / determinant))
                point[1] += min(1.0, max(-1.0, -(dxx * dy - dxy * dx) / determinant))
    return (cells + 0.5) * (input_size / w) - 0.5


PER_POINT: dict[Decoder, Callable[[NDArray[np.float32], int], NDArray[np.float64]]] = {
    "quarter": quarter_per_point,
    "dark": dark_per_point,
}
