"""Pictures of several synthetic faces at known places, to measure face detectors on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from unittest import mock

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nasface import detect
from nasface.data.synthetic import Synthetic, render
from nasface.data.synthetic.paint import Rng, background

WIDTH, HEIGHT = 640, 480
HEIGHTS = (0.05, 0.8)  # of a face's upright landmark box, as a share of the picture's height
TURN = 45.0  # largest angle in plane, in degrees, to either side
MOST_FACES = 5
TILE = (64, 448)  # smallest and largest size at which a face is painted, in pixels
TRIES = 30  # to find a place for a face that covers no other


@dataclass(frozen=True, eq=False)
class Scene:
    """A picture and its faces.

    Attributes:
        image_HW3: RGB pixels.
        boxes_K4: boxes of the landmarks as they lie in the picture.
        heights_K: height of each face before it was turned, as a share of the picture's height.
        angles_K: how far each face was turned, in degrees.
    """

    image_HW3: detect.Pixels = field(repr=False)
    boxes_K4: detect.Boxes
    heights_K: NDArray[np.float64]
    angles_K: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Cutout:
    """A face without its surroundings.

    Attributes:
        colour_SS3: colour times coverage, 0 to 255.
        coverage_SS1: 0 to 1.
        landmarks_L2: x and y in its pixels.
    """

    colour_SS3: NDArray[np.float32]
    coverage_SS1: NDArray[np.float32]
    landmarks_L2: NDArray[np.float64]


def scenes(number: int, seed: int = 0) -> Iterator[Scene]:
    """Yield scenes of 1 to `MOST_FACES` faces that do not cover one another; all of it follows from the seed."""
    for i in range(number):
        yield _scene(np.random.default_rng([seed, i]))


def _scene(rng: Rng) -> Scene:
    picture = np.asarray(background(WIDTH, rng))[:HEIGHT].astype(np.float32)
    placed: list[tuple[list[float], float, float]] = []
    faces = int(rng.integers(1, MOST_FACES + 1))
    while faces > 0 or not placed:  # a large face that was turned may not fit
        faces -= 1
        height, angle = float(np.exp(rng.uniform(*np.log(HEIGHTS)))), float(rng.uniform(-TURN, TURN))
        pixels = height * HEIGHT
        cutout = cut_out(int(np.clip(round(1.7 * pixels), *TILE)), int(rng.integers(2**40)))
        scale = pixels / float(np.ptp(cutout.landmarks_L2[:, 1]))
        turn_22 = cv2.getRotationMatrix2D((0, 0), angle, scale)[:, :2]
        points_L2 = cutout.landmarks_L2 @ turn_22.T
        box = _free_place(points_L2, np.array([place for place, _, _ in placed]).reshape(-1, 4), rng)
        if box is not None:
            _paste(picture, cutout, np.column_stack([turn_22, box[:2] - points_L2.min(axis=0)]))
            placed.append((box.tolist(), height, angle))
    boxes, heights, angles = (np.array(column) for column in zip(*placed, strict=True))
    return Scene(picture.round().clip(0, 255).astype(np.uint8), boxes, heights, angles)


def _free_place(points_L2: NDArray[np.float64], taken_K4: detect.Boxes, rng: Rng) -> NDArray[np.float64] | None:
    """Return a box (4,) for the points inside the picture and away from other faces; None if there is none."""
    size = np.ptp(points_L2, axis=0)
    room = np.array([WIDTH - 1, HEIGHT - 1]) - size
    for _ in range(TRIES if (room >= 0).all() else 0):
        corner = rng.uniform(0, room)
        box = np.concatenate([corner, corner + size])
        around = box + 0.6 * size.max() * np.array([-1, -1, 1, 1])  # hair and neck
        if not (detect.overlap(around[None], taken_K4) > 0).any():
            return box
    return None


def _paste(picture: NDArray[np.float32], cutout: Cutout, way_23: NDArray[np.float64]) -> None:
    """Paint a cutout into a picture, moved by `way_23`."""
    colour, coverage = (
        cv2.warpAffine(part, way_23, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR)
        for part in (cutout.colour_SS3, cutout.coverage_SS1)
    )
    picture *= 1 - coverage[..., None]
    picture += colour


def cut_out(size: int, seed: int) -> Cutout:
    """Paint a face before black and before white; where the two pictures differ, its surroundings show through."""
    dataset = Synthetic(None, train=0, test=1, size=size, seed=seed)
    (face,) = dataset.index().faces

    def before(grey: int) -> NDArray[np.float32]:
        def plain(size: int, rng: Rng) -> Image.Image:
            background(size, rng)  # draws its random numbers, so that everything else stays the same
            return Image.new("RGB", (size, size), (grey,) * 3)

        with mock.patch.object(render, "background", plain):
            return dataset.read(face).astype(np.float32)

    black, white = before(0), before(255)
    through_SS1 = (white - black).mean(axis=2, keepdims=True)
    through_SS1 = (through_SS1 / max(1.0, float(np.percentile(through_SS1, 98)))).clip(0, 1)
    surroundings = np.median(black[through_SS1[..., 0] > 0.97].reshape(-1, 3), axis=0)
    return Cutout((black - through_SS1 * surroundings).clip(0, 255), 1 - through_SS1, face.landmarks_L2)
