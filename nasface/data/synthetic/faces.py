"""Built-in synthetic faces: a dataset of any size, with exact landmarks in three schemes.

Everything about a face follows from (seed, split, number): its geometry from one random stream, which
`index` replays without painting, and its looks from a second one, which `read` uses. Therefore pictures do not
depend on the order, the process or the chosen landmark scheme.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import numpy as np
from annotated_types import Interval
from numpy.typing import NDArray

from nasface.bounds import Seed
from nasface.data.base import SPLITS, Face, Index, Split
from nasface.data.schemes import SCHEMES
from nasface.data.synthetic.head3d import head
from nasface.data.synthetic.paint import Rng
from nasface.data.synthetic.posed import Camera, figure, landmarks, rotation
from nasface.data.synthetic.render import render
from nasface.data.synthetic.surface import Subject
from nasface.errors import DataError

# Part of every fingerprint: increase it whenever the pictures or landmarks of a given key change.
RENDERER_VERSION = 3
MAX_FACES = 200_000  # of a split: their landmarks take 0.3 GB before anything is painted

# Share of faces with each attribute; 'pose' follows from the yaw angle instead.
RATES = {"expression": 0.13, "illumination": 0.25, "make-up": 0.10, "occlusion": 0.25, "blur": 0.20}
SMILES = 0.45  # share of the other faces that smile
LARGE_YAW = 30.0  # degrees; faces beyond it are in the pose subset
MAX_YAW = 60.0

_IDENTITY = (
    "face_width", "face_length", "middle_length", "jaw_width", "chin_width", "chin_depth", "cheeks",
    "forehead", "depth", "eye_gap", "eye_size", "eye_tilt", "eye_depth", "brow_height", "brow_arch",
    "brow_tilt", "brow_gap", "brow_thick", "brow_length", "brow_end", "nose_length", "nose_width",
    "nose_height", "nose_tip", "nose_hump", "mouth_width", "mouth_height", "lip_thick", "lip_lower",
    "skew", "lean", "eye_inner",
)  # fmt: skip


class Synthetic:
    """Painted faces, drawn from a seed.

    Attributes:
        scheme: the chosen landmark scheme.
        parallel: rendering holds the interpreter lock, so workers should be processes.
    """

    name = "synthetic"
    parallel: Literal["process"] = "process"
    licence = "Made by nasface, under the same licence as nasface: Apache-2.0."

    def __init__(
        self,
        root: Path | None = None,
        *,
        landmarks: Annotated[int, Interval(ge=1, le=98)] = 68,
        train: Annotated[int, Interval(ge=0, le=MAX_FACES)] = 2000,
        test: Annotated[int, Interval(ge=0, le=MAX_FACES)] = 400,
        seed: Seed = 0,
        size: Annotated[int, Interval(ge=48, le=2048)] = 192,
    ) -> None:
        """Check the options.

        Args:
            root: ignored, as there are no files.
            landmarks: 68, 98 or 29 (as in 300W, WFLW and COFW).
            train: number of training faces, at most `MAX_FACES`.
            test: number of test faces, at most `MAX_FACES`.
            seed: different seeds have no face in common.
            size: width and height of the pictures in pixels.
        """
        del root
        if landmarks not in SCHEMES:
            known = ", ".join(str(n) for n in sorted(SCHEMES))
            raise DataError(f"synthetic: landmarks={landmarks!r}, expected one of {known}")
        for option, value, low, high in (
            ("train", train, 0, MAX_FACES),
            ("test", test, 0, MAX_FACES),
            ("seed", seed, 0, 2**63 - 1),
            ("size", size, 48, 2048),
        ):
            if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
                raise DataError(f"synthetic: {option}={value!r}, expected a whole number from {low} to {high}")
        if not train + test:
            raise DataError("synthetic: train=0 and test=0 leave no face; ask for at least one")
        self.scheme = SCHEMES[landmarks]
        self.counts: dict[Split, int] = {"train": train, "test": test}
        self.seed = seed
        self.size = size

    def index(self) -> Index:
        """Return all faces with exact landmarks; nothing is painted."""
        faces = [self._face(split, i) for split in SPLITS for i in range(self.counts[split])]
        found = Counter(f"{face.split}/{subset}" for face in faces for subset in face.subsets)
        order = ("full", "pose", *RATES)  # as in tables
        expected = Counter({key: found[key] for split in SPLITS for s in order if (key := f"{split}/{s}") in found})
        expected.update({split: count for split, count in self.counts.items() if count})
        return Index(tuple(faces), (), dict(expected))

    def read(self, face: Face) -> NDArray[np.uint8]:
        """Paint a face: RGB uint8 (size, size, 3), with the same bytes every time."""
        split, number = self._key(face)
        subject = _subject(_stream(self.seed, split, number, 0), self.size)
        return render(subject, self.size, _stream(self.seed, split, number, 1))

    def fingerprint(self, face: Face) -> bytes:
        """Return a hash of everything that the picture depends on."""
        split, number = self._key(face)
        key = f"synthetic {RENDERER_VERSION} {self.seed} {self.size} {split} {number}"
        return hashlib.blake2b(key.encode(), digest_size=16).digest()

    def _key(self, face: Face) -> tuple[Split, int]:
        match face.source:
            case (("train" | "test") as split, int(number)):
                return cast(Split, split), number
        raise DataError(f"synthetic: {face.name} is not a synthetic face (source {face.source!r})")

    def _face(self, split: Split, number: int) -> Face:
        subject = _subject(_stream(self.seed, split, number, 0), self.size)
        wide = landmarks(subject.figure, 98)
        low, high = wide.min(axis=0), wide.max(axis=0)
        order = ("pose", *RATES, "full")
        return Face(
            name=f"{split}_{number:06d}",
            split=split,
            subsets=tuple(name for name in order if name == "full" or name in subject.flags),
            landmarks_L2=landmarks(subject.figure, self.scheme.num_landmarks),
            source=(split, number),
            box=(float(low[0]), float(low[1]), float(high[0] - low[0]), float(high[1] - low[1])),
        )


def _stream(seed: int, split: Split, number: int, purpose: int) -> Rng:
    return np.random.Generator(np.random.PCG64([seed, SPLITS.index(split), number, purpose]))


def _subject(rng: Rng, size: int) -> Subject:
    """Draw the identity, expression, pose, position in the frame and attributes of a face."""
    flags = {name for name, rate in RATES.items() if rng.random() < rate}
    values = dict(zip(_IDENTITY, np.clip(rng.normal(0, 1, len(_IDENTITY)), -2.2, 2.2).tolist(), strict=True))
    values |= _expression(rng, strong="expression" in flags)
    yaw = float(np.clip(rng.normal(0, 18), -MAX_YAW, MAX_YAW))
    pitch = float(np.clip(rng.normal(-2, 8), -24, 24))
    roll = float(np.clip(rng.normal(0, 9), -35, 35))
    if abs(yaw) > LARGE_YAW:
        flags.add("pose")
    pose = rotation(yaw, pitch, roll)
    small = figure(head().coefficients(values), Camera(pose, float(rng.uniform(6, 14))), roll)
    # Place the largest scheme in the frame, whichever was chosen: pictures must not depend on the choice.
    wide = landmarks(small, 98)
    low, high = wide.min(axis=0), wide.max(axis=0)
    scale = float(rng.uniform(0.55, 0.65)) * size / float((high - low).max())
    centre = (size - 1) / 2 + rng.uniform(-0.04, 0.04, 2) * size
    x, y = (centre - (low + high) / 2 * scale).tolist()
    return Subject(small.placed(scale, (x, y)), yaw, frozenset(flags))


def _expression(rng: Rng, *, strong: bool) -> dict[str, float]:
    """Draw the coefficients of an expression, mild or pronounced."""
    close = float(np.clip(rng.normal(0.0, 0.14), -0.3, 0.35))
    values: dict[str, Any] = {
        "jaw_open": float(max(rng.normal(0.02, 0.12), 0.0)),
        "jaw_side": rng.normal(0, 0.12),
        "smile": float(max(rng.normal(0.25, 0.4), -0.3)),
        "lip_raise": float(max(rng.normal(0.0, 0.25), 0.0)),
        "lip_drop": float(max(rng.normal(0.0, 0.25), 0.0)),
        "brow_up": rng.normal(0, 0.25),
        "brow_down": float(abs(rng.normal(0, 0.2))),
        "brow_lift": rng.normal(0, 0.15),
        "close_l": close + rng.normal(0, 0.03),
        "close_r": close + rng.normal(0, 0.03),
        "squint": float(abs(rng.normal(0, 0.3))) - float(rng.uniform(0.0, 0.7)),
        "gaze_x": float(np.clip(rng.normal(0, 0.8), -1.8, 1.8)),
        "gaze_y": float(np.clip(rng.normal(0, 0.8), -1.5, 1.5)),
    }
    if not strong:
        return values | (_smile(rng) if rng.random() < SMILES else {})
    kind, much = int(rng.integers(0, 7)), float(rng.uniform(0.75, 1.25))
    if kind == 0:  # surprise
        values |= {
            "jaw_open": 1.3 * much,
            "smile": -0.1,
            "brow_up": 1.2 * much,
            "close_l": -0.4,
            "close_r": -0.4,
        }
    elif kind == 1:  # laughter
        values |= {"jaw_open": 0.8 * much, "smile": 1.6 * much, "lip_raise": 0.8, "squint": 1.2}
    elif kind == 2:  # broad smile
        values |= {"jaw_open": 0.15, "smile": 1.7 * much, "lip_raise": 0.9, "lip_drop": 0.6, "squint": 0.8}
    elif kind == 3:  # eyes shut
        values |= {"close_l": 0.97, "close_r": 0.97, "squint": 0.1}
    elif kind == 4:  # anger
        values |= {"brow_down": 1.4 * much, "smile": -0.2, "frown": 1.0, "squint": 0.8, "lip_drop": 0.9}
    elif kind == 5:  # kiss
        values |= {"pucker": 1.4 * much, "smile": -0.1, "jaw_open": 0.12}
    else:  # shout, with a wink at times
        values |= {"jaw_open": 1.5 * much, "frown": 0.6, "brow_inner": 1.0, "lip_raise": 0.5}
        if rng.random() < 0.5:
            values["close_l"] = 0.95
    return values


def _smile(rng: Rng) -> dict[str, float]:
    """Draw the coefficients of a smile for a photograph, most of which show teeth."""
    much = float(rng.uniform(0.2, 1.0))
    return {
        "jaw_open": float(abs(rng.normal(0.0, 0.3)) * much),
        "smile": 0.2 + 1.3 * much + float(rng.normal(0, 0.2)),
        "lip_raise": 1.3 * much * float(rng.uniform(0.3, 1.0)),
        "lip_drop": 1.5 * much * float(rng.uniform(0.0, 1.0)),
        "squint": float(rng.uniform(-0.5, 0.9)),
    }
