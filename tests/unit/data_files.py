"""Tiny datasets for the tests of nasface.data: painted images, and annotation files in every format."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from nasface.data.base import Face, Index, Problem, Scheme
from nasface.errors import DataError

SIZE = 64


def points(num_landmarks: int = 68, seed: int = 0) -> NDArray[np.float64]:
    """Points inside an image of 64 x 64, 0-based, with two decimals."""
    return np.random.default_rng(seed).uniform(12, 52, (num_landmarks, 2)).round(2)


def picture(seed: int = 0, size: int = SIZE) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def write_image(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(seed)).save(path)
    return path


def write_pts(path: Path, landmarks: NDArray[np.float64], header: bool = True) -> Path:
    """A .pts file of 0-based points, 1-based in the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{x:.6f} {y:.6f}" for x, y in landmarks + 1]
    if header:
        lines = ["version: 1", f"n_points:  {len(landmarks)}", "{", *lines, "}"]
    path.write_text("\n".join(lines))
    return path


def write_300w_face(root: Path, name: str, seed: int = 0, suffix: str = ".png", header: bool = True) -> None:
    write_pts(root / f"{name}.pts", points(seed=seed), header)
    write_image(root / f"{name}{suffix}", seed)


def real_data(name: str) -> Path:
    """A folder of real data, or skip the test."""
    given = os.environ.get("NASFACE_TEST_DATA")
    folder = Path(given) if given else Path(__file__).parents[2].parent / "shared" / "data"
    if not (folder / name).is_dir():
        pytest.skip(f"no real data: set NASFACE_TEST_DATA to a folder that holds {name}")
    return folder / name


TOY = Scheme(3, (1, 0, 2), ((0,), (1,)), ((0,), (1,)))


@dataclass
class Toy:
    """A dataset in memory. Faces whose source is in `broken` cannot be read."""

    faces: tuple[Face, ...]
    images: dict[str, NDArray[np.uint8]]
    problems: tuple[Problem, ...] = ()
    broken: frozenset[str] = frozenset()
    reads: list[str] = field(default_factory=list)
    parallel: Literal["thread", "process"] = "thread"
    name: str = "toy"
    scheme: Scheme = TOY

    def index(self) -> Index:
        return Index(self.faces, self.problems, {"train": 100, "test": 10, "test/hard": 5})

    def read(self, face: Face) -> NDArray[np.uint8]:
        self.reads.append(face.name)
        if face.source in self.broken:
            raise DataError(f"{face.source}: cannot be decoded as an image")
        return self.images[face.source]

    def fingerprint(self, face: Face) -> bytes:
        return self.images[face.source].tobytes()[:64]


def toy(train: int = 6, test: int = 3, **changes: object) -> Toy:
    """A dataset of some faces at 64 x 64 pixels; every second test face is 'hard'."""
    faces = []
    for split, number in (("train", train), ("test", test)):
        for i in range(number):
            subsets = (("full", "hard") if i % 2 else ("full",)) if split == "test" else ()
            name = f"{split}/{i}"
            marks = np.array([[20.0, 20.0], [40.0, 21.0], [30.0, 44.0]]) + i % 7
            faces.append(Face(name, split, subsets, marks, name, (18.0, 18.0, 26.0, 26.0)))
    images = {face.name: picture(i) for i, face in enumerate(faces)}
    return Toy(tuple(faces), images, **changes)
