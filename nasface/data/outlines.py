"""The shapes of masks, caps and scarves, which depend only on the landmarks of a face and a seed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cache
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from nasface.data.base import Scheme
from nasface.data.cloth import LOOKS, Cloth, Masks, cut, inside
from nasface.errors import RecipeError
from nasface.scores import MaskLevel

# The points from which outlines are drawn, affine combinations of the landmarks of any scheme: 17 of the jaw, from ear
# to ear as in 300W; the left brow (outer end, top, inner end), then the right one, mirrored; the eyes in the same way
# (outer corner, lower lid, inner corner); root, ridge and base of the nose; the lip.
_JAW, _BROWS, _EYES, _ROOT, _RIDGE, _BASE, _LIP, _CHIN = slice(0, 17), slice(17, 23), slice(23, 29), 29, 30, 31, 32, 8
_MIRROR = (*range(16, -1, -1), *range(22, 16, -1), *range(28, 22, -1), 29, 30, 31, 32)
_ANCHORS = (23, 28, 31, 8)

# Each point from four anchors: left and right outer eye corner, nose base, chin. The weights are fitted to 300W.
_HALF_JAW = (
    (1.69, 0.05, -1.30, 0.56), (1.57, -0.05, -1.20, 0.68), (1.45, -0.12, -1.14, 0.81), (1.31, -0.18, -1.08, 0.95),
    (1.10, -0.22, -0.92, 1.04), (0.84, -0.22, -0.67, 1.05), (0.54, -0.21, -0.38, 1.05), (0.24, -0.16, -0.09, 1.01),
)  # fmt: skip
_HALF_BROW = ((1.28, -0.05, -0.19, -0.04), (0.94, 0.09, 0.30, -0.33), (0.53, 0.25, 0.64, -0.42))
_HALF_EYE = ((1.0, 0.0, 0.0, 0.0), (0.80, 0.07, 0.16, -0.03), (0.65, 0.22, 0.19, -0.06))
_MIDDLE = ((0.32, 0.32, 0.65, -0.29), (0.07, 0.07, 1.14, -0.28), (0.0, 0.0, 1.0, 0.0), (-0.01, -0.01, 0.83, 0.19))
_NOSE_BASE = (0.28, 0.28, 0.44)  # of an unknown scheme: from the eyes and the chin

# The same points in the known schemes: the mean of some landmarks, () where there is none.
_MARKED: dict[int, tuple[tuple[int, ...], ...]] = {
    68: (*((i,) for i in range(17)), (17,), (19,), (21,), (22,), (24,), (26,),
         (36,), (40, 41), (39,), (42,), (46, 47), (45,), (27,), (29,), (33,), (51,)),
    98: (*((2 * i,) for i in range(17)), (33,), (35,), (37,), (42,), (44,), (46,),
         (60,), (66,), (64,), (68,), (74,), (72,), (51,), (53,), (57,), (79,)),
    29: (*((28,) if i == 8 else () for i in range(17)), (0,), (4,), (2,), (3,), (6,), (1,),
         (8,), (13,), (10,), (11,), (15,), (9,), (), (), (21,), (24,)),
}  # fmt: skip

# The upper edge of a mask: where along the jaw it ends, how far below the lids it runs (in lengths of the nose), and
# its middle, which lies between two points.
_EDGE = {
    "light": (3.0, 0.95, _BASE, _LIP, 0.4),
    "half": (2.2, 0.5, _ROOT, _RIDGE, 0.75),
    "hard": (1.2, 0.15, _ROOT, _RIDGE, 0.4),
}
_HALF = 0.5  # the hard level hides at least this share of a face
_CONTROLS, _STEPS = 12, 4  # of an outline: number of control points, and of edges from one to the next
_GRID, _DIRECTIONS = 48, 64  # for the coverage: points across a face, and tangents of its convex hull


def plans(
    landmarks_NL2: Tensor, scheme: Scheme, level: MaskLevel, seed: int, at_once: int
) -> Iterator[tuple[slice, Tensor, Masks]]:
    """Plan the masks of a few faces at a time, on the CPU.

    Yields:
        Which faces, points whose convex hull is the face (N, P, 2), and what they wear.

    Raises:
        RecipeError: there is no such level.
    """
    if level not in get_args(MaskLevel):
        raise RecipeError(f"the level of a mask must be one of {', '.join(get_args(MaskLevel))}, not {level!r}")
    rising = torch.tensor([0.5, 0.9, 1.0, 1.0, 0.9, 0.5], dtype=torch.float64)[:, None]
    for start in range(0, len(landmarks_NL2), at_once):
        few = slice(start, start + at_once)
        marks_NL2 = landmarks_NL2[few].double().cpu()
        p = _skeleton(marks_NL2, scheme)
        hull_NP2 = torch.cat((marks_NL2, p[:, _JAW], p[:, _BROWS] + rising * _up(p)[:, None]), dim=1)
        draws = _draws(marks_NL2, seed, 1 + 2 * (LOOKS + 2 * _CONTROLS))
        yield few, hull_NP2, _dress(p, hull_NP2, level, draws)


def _skeleton(landmarks_NL2: Tensor, scheme: Scheme) -> Tensor:
    """Return the points from which masks are drawn, (N, 33, 2)."""
    halves = [torch.tensor(half, dtype=torch.float64) for half in (_HALF_JAW, _HALF_BROW, _HALF_EYE)]
    jaw, brow, eye = (torch.cat((half, half.flip(0)[:, [1, 0, 2, 3]])) for half in halves)
    middle = torch.tensor(_MIDDLE, dtype=torch.float64)
    typical_K4 = torch.cat((jaw[:8], torch.eye(4, dtype=torch.float64)[3:], jaw[8:], brow, eye, middle))
    groups = _MARKED.get(scheme.num_landmarks)
    if groups is None:
        return _rounded(typical_K4 @ _anchors(landmarks_NL2, scheme))
    marked_KL = torch.stack([F.one_hot(torch.tensor(g or (0,)), scheme.num_landmarks).double().mean(0) for g in groups])
    known_K1 = torch.tensor([[bool(group)] for group in groups])
    return _rounded(torch.where(known_K1, marked_KL, typical_K4 @ marked_KL[list(_ANCHORS)]) @ landmarks_NL2)


def _rounded(points: Tensor) -> Tensor:
    """Round to about a thousandth of a pixel, because the last digits depend on the size of the batch."""
    return (points * 1024).round() / 1024


def _anchors(landmarks_NL2: Tensor, scheme: Scheme) -> Tensor:
    """Return eyes, nose base and chin (N, 4, 2) for a scheme of which only the eyes are known.

    The chin is as low as the lowest landmark, or as low as usual if that is lower, below the middle of the lower ones.
    """
    left, right = (landmarks_NL2[:, list(group)].mean(1) for group in scheme.inter_ocular)
    eyes, across = (left + right) / 2, right - left
    apart = across.norm(dim=1, keepdim=True).clamp(min=1e-6)
    along = across / apart
    down = torch.stack((-along[:, 1], along[:, 0]), dim=1)
    from_eyes = landmarks_NL2 - eyes[:, None]
    depth_NL, place_NL = (from_eyes * down[:, None]).sum(2), (from_eyes * along[:, None]).sum(2)
    deepest = depth_NL.amax(1, keepdim=True)
    low = (depth_NL > deepest / 2).double()
    place = (place_NL * low).sum(1, keepdim=True) / low.sum(1, keepdim=True).clamp(min=1)
    chin = eyes + place * along + torch.maximum(deepest, 1.25 * apart) * down
    share = torch.tensor(_NOSE_BASE, dtype=torch.float64)
    return torch.stack((left, right, share[0] * left + share[1] * right + share[2] * chin, chin), dim=1)


def _up(skeleton_NK2: Tensor) -> Tensor:
    """Return the vector from the nose base to the brows, a third of a face."""
    return skeleton_NK2[:, [18, 21]].mean(1) - skeleton_NK2[:, _BASE]


def _draws(landmarks_NL2: Tensor, seed: int, count: int) -> Tensor:
    """Return numbers from 0 to 1, (N, count): a hash of each face's shape and the seed, so that order does not matter.

    The shape is that of four landmarks, rounded, whatever the position and size of the face.
    """
    centred = landmarks_NL2 - landmarks_NL2.mean(1, keepdim=True)
    shape = centred / centred.square().mean((1, 2), keepdim=True).sqrt().clamp(min=1e-6)
    some = torch.linspace(0, landmarks_NL2.shape[1] - 1, 4).long()
    words = (64 * shape[:, some]).round().long().flatten(1).numpy().astype(np.uint64)
    state = np.full(len(words), seed % (1 << 64), np.uint64)
    for word in words.T:
        state = _mixed(state ^ word)
    counter = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return torch.from_numpy((_mixed(state[:, None] + counter) >> np.uint64(11)) * 2.0**-53)


def _mixed(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014)."""
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def _dress(p: Tensor, hull_NP2: Tensor, level: MaskLevel, draws: Tensor) -> Masks:
    """Return everything that faces wear, from their points p (N, 33, 2) and their random numbers."""
    eyes, down = p[:, 28] - p[:, 23], p[:, _CHIN] - (p[:, 23] + p[:, 28]) / 2
    unit = down.norm(dim=1, keepdim=True).clamp(min=1)
    width = torch.maximum(eyes.norm(dim=1, keepdim=True), 0.7 * unit)
    across = torch.stack((down[:, 1], -down[:, 0]), dim=1) / (unit * width)
    kind, own, other = draws[:, :1, None], *draws[:, 1:].chunk(2, dim=1)
    mask = _mask(p, level) + _jitter(own, unit)
    layers = [cut(_outline(mask), own, surgical=True)]
    if level == "hard":
        cap = _cap(p)
        extra = torch.where(kind < 0.5, cap, torch.where(kind < 0.75, _scarf(p), _scarf(p[:, _MIRROR])))
        layers.append(cut(_outline(extra + _jitter(other, unit)), other, surgical=False))
        for growth in 1.25 ** torch.arange(9):  # the last hides everything; few faces need even the first
            short = hidden_share(hull_NP2, layers) < _HALF
            if not short.any():
                break
            larger = _outline(torch.lerp(cap.mean(1, keepdim=True), cap, growth.double()))
            outline_NV2 = torch.where(short[:, None, None], larger, layers[1].outline_NV2)
            layers[1] = layers[1]._replace(outline_NV2=outline_NV2)
    return Masks(p[:, _BASE], across, down / unit.square(), _straps(p, mask), tuple(layers))


def _jitter(draws: Tensor, unit_N1: Tensor) -> Tensor:
    """Return offsets for the points around a piece of cloth, at most 1.5 % of the distance from eyes to chin."""
    return (draws[:, LOOKS:].reshape(-1, _CONTROLS, 2) - 0.5) * 0.03 * unit_N1[..., None]


def _mask(p: Tensor, level: MaskLevel) -> Tensor:
    """Return twelve points around a mask: along the jaw from left to right, and back over the nose."""
    end, drop, first, second, share = _EDGE[level]
    base = p[:, _BASE, None]
    place = torch.linspace(end, 16 - end, 7, dtype=torch.float64)
    before = place.long().clamp(max=15)
    jaw = torch.lerp(p[:, before], p[:, before + 1], (place - before)[:, None])
    # Near the ears the cloth ends inside the outline of the face, but it goes around the far side of a turned face.
    wide = (p[:, [3, 13]] - base).norm(dim=2)
    away = (0.5 - wide / wide.sum(1, keepdim=True).clamp(min=1e-6)).clamp(-0.2, 0.3)
    sides = 0.02 + 0.35 * torch.where(place < 8, away[:, :1], away[:, 1:])
    grow = 0.1 + (sides - 0.1) * (place - 8).abs() / 8
    jaw = jaw + grow[..., None] * (jaw - base)
    drop_N2 = drop * (p[:, _BASE] - p[:, [25, 26]].mean(1))
    left, right = p[:, 24] + drop_N2, p[:, 27] + drop_N2
    middle = torch.lerp(p[:, first], p[:, second], share)
    top = (torch.lerp(jaw[:, 6], right, 0.55), right, middle, left, torch.lerp(jaw[:, 0], left, 0.55))
    return torch.cat((jaw, torch.stack(top, dim=1)), dim=1)


def _cap(p: Tensor) -> Tensor:
    """Return twelve points around a cap that is pulled down to the brows."""
    up, middle = _up(p), p[:, [19, 20]].mean(1)
    left, right = (torch.lerp(p[:, _BASE], p[:, ear], 1.08) for ear in (0, 16))
    rim = (left, p[:, 17], p[:, 18], middle, p[:, 21], p[:, 22], right)
    over = (p[:, 21] + 1.75 * up, middle + 1.95 * up, p[:, 18] + 1.75 * up)
    return torch.stack((*rim, torch.lerp(left, right, 1.06) + up, *over, torch.lerp(right, left, 1.06) + up), dim=1)


def _scarf(p: Tensor) -> Tensor:
    """Return twelve points around a scarf over the left eye and most of the forehead (the right eye for mirrored p)."""
    up, middle = _up(p), p[:, [19, 20]].mean(1)
    ear, far = (torch.lerp(p[:, _BASE], p[:, out], 1.08) for out in (1, 22))
    nose = torch.lerp(p[:, 25], p[:, _ROOT], 0.6)
    rim = (ear, torch.lerp(p[:, 23], p[:, 4], 0.35), p[:, 24] - 0.35 * up, nose - 0.2 * up, nose + 0.35 * up)
    over = (p[:, 20] + 0.45 * up, p[:, 21] + 0.6 * up, far + 0.8 * up)
    crown = (p[:, 21] + 1.7 * up, middle + 1.9 * up, p[:, 18] + 1.75 * up, ear + 1.2 * up)
    return torch.stack((*rim, *over, *crown), dim=1)


def _straps(p: Tensor, mask: Tensor) -> Tensor:
    """Return two lines on each side from the mask to the ear, (N, 4, 2 ends, 2)."""
    ears = p[:, [0, 1, 16, 15]]
    return torch.stack((mask[:, [0, 1, 6, 5]], ears + 0.06 * (ears - p[:, _BASE, None])), dim=2)


def _outline(controls_NC2: Tensor) -> Tensor:
    return _rounded(_smoothing() @ controls_NC2)


@cache
def _smoothing() -> Tensor:
    """Return the matrix (edges, controls) that turns control points into a closed Catmull-Rom spline."""
    t = torch.arange(_STEPS, dtype=torch.float64)[:, None] / _STEPS
    weights = torch.cat((-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2), 1) / 2
    first = F.pad(weights, (0, _CONTROLS - 4)).roll(-1, 1)
    return torch.cat([first.roll(i, 1) for i in range(_CONTROLS)])


def hidden_share(hull_NP2: Tensor, layers: Sequence[Cloth]) -> Tensor:
    """Return the share of the points' convex hull that lies within the outlines, (N,)."""
    low, high = hull_NP2.amin(1), hull_NP2.amax(1)
    cell = (torch.arange(_GRID, dtype=torch.float64) + 0.5) / _GRID
    x, y = (low[:, i, None] + cell * (high - low)[:, i, None] for i in (0, 1))
    angles = torch.arange(_DIRECTIONS, dtype=torch.float64) * (2 * math.pi / _DIRECTIONS)
    face = torch.ones((), dtype=torch.bool)
    for cos, sin in zip(angles.cos().tolist(), angles.sin().tolist(), strict=True):  # tangent by tangent
        farthest = (hull_NP2[..., 0] * cos + hull_NP2[..., 1] * sin).amax(1)[:, None, None]
        face = face & ((x * cos)[:, None] + (y * sin)[:, :, None] <= farthest)
    hidden = torch.stack([inside(layer.outline_NV2, x, y) for layer in layers]).any(0)
    return (face & hidden).sum((1, 2)).double() / face.sum((1, 2)).clamp(min=1)
