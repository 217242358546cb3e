"""Faces behind masks: synthetic ones for measuring robustness, and plain patches for training.

A mask is drawn from the landmarks alone. Some thirty points of the face (jaw, brows, lids, nose) are affine
combinations of the landmarks of any mark-up; closed splines through them outline the mask, and for the hard level a
cap or a scarf too. Outlines are small and made on the CPU; pixels are made where the faces are, a few faces at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from nasface.data.base import Scheme
from nasface.errors import RecipeError

if TYPE_CHECKING:
    from nasface.data.augment import DeviceFaces

Level = Literal["light", "half", "hard"]
Fill = Literal["mean", "noise"]

# The points a mask is drawn from: 17 of the jaw, from ear to ear as 300W has them; brows (outer end, top, inner end) of
# the left of the picture, then mirrored; so eyes (outer corner, lower lid, inner corner); nose root, ridge, base; lip.
_JAW, _BROWS, _EYES, _ROOT, _RIDGE, _BASE, _LIP, _CHIN = slice(0, 17), slice(17, 23), slice(23, 29), 29, 30, 31, 32, 8
_MIRROR = (*range(16, -1, -1), *range(22, 16, -1), *range(28, 22, -1), 29, 30, 31, 32)
_ANCHORS = (23, 28, 31, 8)

# Each point from four anchors: outer eye corner left and right, nose base, chin. Weights fitted to the faces of 300W.
_HALF_JAW = (
    (1.69, 0.05, -1.30, 0.56), (1.57, -0.05, -1.20, 0.68), (1.45, -0.12, -1.14, 0.81), (1.31, -0.18, -1.08, 0.95),
    (1.10, -0.22, -0.92, 1.04), (0.84, -0.22, -0.67, 1.05), (0.54, -0.21, -0.38, 1.05), (0.24, -0.16, -0.09, 1.01),
)  # fmt: skip
_HALF_BROW = ((1.28, -0.05, -0.19, -0.04), (0.94, 0.09, 0.30, -0.33), (0.53, 0.25, 0.64, -0.42))
_HALF_EYE = ((1.0, 0.0, 0.0, 0.0), (0.80, 0.07, 0.16, -0.03), (0.65, 0.22, 0.19, -0.06))
_MIDDLE = ((0.32, 0.32, 0.65, -0.29), (0.07, 0.07, 1.14, -0.28), (0.0, 0.0, 1.0, 0.0), (-0.01, -0.01, 0.83, 0.19))
_NOSE_BASE = (0.28, 0.28, 0.44)  # of a mark-up that is not known: from the eyes and the chin

# The same points in the mark-ups themselves: the mean of some landmarks, () where there is none.
_MARKED: dict[int, tuple[tuple[int, ...], ...]] = {
    68: (*((i,) for i in range(17)), (17,), (19,), (21,), (22,), (24,), (26,),
         (36,), (40, 41), (39,), (42,), (46, 47), (45,), (27,), (29,), (33,), (51,)),
    98: (*((2 * i,) for i in range(17)), (33,), (35,), (37,), (42,), (44,), (46,),
         (60,), (66,), (64,), (68,), (74,), (72,), (51,), (53,), (57,), (79,)),
    29: (*((28,) if i == 8 else () for i in range(17)), (0,), (4,), (2,), (3,), (6,), (1,),
         (8,), (13,), (10,), (11,), (15,), (9,), (), (), (21,), (24,)),
}  # fmt: skip

# Upper edge of a mask: the place along the jaw where it ends, how far below the lids it runs (in lengths of the nose),
# and its middle, between two points.
_EDGE = {
    "light": (3.0, 0.95, _BASE, _LIP, 0.4),
    "half": (2.2, 0.5, _ROOT, _RIDGE, 0.75),
    "hard": (1.2, 0.15, _ROOT, _RIDGE, 0.4),
}
_HALF = 0.5  # of the face is hidden by the hard level, at least
_CONTROLS, _STEPS = 12, 4  # of an outline: points that are drawn, and edges from one to the next
_GRID, _DIRECTIONS = 48, 64  # coverage: points across a face, and tangents of its convex hull
_CELL = 4  # pixels: the distance to an outline is computed this coarsely and interpolated
_EDGE_WIDTH = 1 / 150  # of the crop
_SHADOW = 0.06  # of eyes to chin: how far the shadow of cloth falls
_AT_ONCE = {"cpu": 16}  # faces, 128 elsewhere: what stays in the CPU's cache

# Colour (RGB) of a cloth, and 1 where it is a surgical mask with pleats. Nothing here has the colour of skin.
_CLOTHS = (
    (152, 198, 226, 1), (236, 239, 242, 1), (160, 206, 222, 1), (230, 234, 236, 1), (176, 214, 196, 1),
    (30, 30, 34, 0), (40, 40, 44, 0), (228, 230, 234, 0), (30, 46, 98, 0), (20, 92, 84, 0),
    (96, 100, 110, 0), (92, 44, 128, 0), (60, 120, 180, 0), (44, 110, 52, 0), (140, 20, 60, 0),
)  # fmt: skip
_SURGICAL = 5  # of them, the first
_PATTERNS = ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (0.5, 0.5, 0.0), (0.0, 0.0, 1.0))
_LOOKS = 10  # random numbers for the looks of a cloth


class _Cloth(NamedTuple):
    """A piece of cloth on each of N faces."""

    outline_NV2: Tensor
    colours_N23: Tensor  # of the ground and of the pattern
    pattern_N3: Tensor  # weights of stripes, stripes across and dots
    wave_N2: Tensor  # of the pattern: angle, waves in an eye distance
    phase_N3: Tensor  # of the wrinkles
    pleated_N1: Tensor
    lit_N2: Tensor  # from which side, and how brightly


class _Masks(NamedTuple):
    """What N faces wear, in pixels of the crop. Its axes u and v go along the eyes and down to the chin."""

    base_N2: Tensor  # of the nose: u = v = 0
    across_N2: Tensor  # gradient of u
    down_N2: Tensor  # gradient of v
    straps_NS22: Tensor
    layers: tuple[_Cloth, ...]

    def to(self, device: torch.device) -> _Masks:
        """The same in float32 on a device."""
        layers = (_Cloth(*(t.float().to(device) for t in layer)) for layer in self.layers)
        base, across, down, straps = (t.float().to(device) for t in self[:-1])
        return _Masks(base, across, down, straps, tuple(layers))


def cover(faces: DeviceFaces, level: Level, seed: int = 0) -> DeviceFaces:
    """Put a mask on every face.

    The mask of a face follows from its landmarks and the seed alone: whatever the batch, the device, the place in the
    picture or the size of the crop. The levels of one seed differ in how far the same mask reaches. What is black
    because it lies outside the photograph stays black.

    Args:
        faces: of any mark-up. 68, 98 and 29 points are known; of others the two ends of the inter-ocular distance and
            the lowest points are used.
        level: 'light' hides mouth and chin, 'half' also the nose up to its ridge, 'hard' all below the eyes, and by a
            cap or a scarf so much of the rest that at least half of every face is hidden (see `coverage`).
        seed: of shapes, cloths and colours.

    Returns:
        Faces whose crops are new and whose landmarks are those given.

    Raises:
        RecipeError: no such level.
    """
    images = faces.images_NHWC.clone()
    size = images.shape[1]
    for few, _, masks in _plans(faces, level, seed, _AT_ONCE.get(images.device.type, 128)):
        part = F.pad(images[few], (0, 0, 0, -size % _CELL, 0, -size % _CELL))
        _paint(part, masks.to(images.device))
        images[few] = part[:, :size, :size]
    return replace(faces, images_NHWC=images)


def coverage(faces: DeviceFaces, level: Level, seed: int = 0) -> Tensor:
    """How much of each face the masks of `cover` hide.

    The face is the convex hull of its landmarks, its jaw and its forehead, which reaches as far above the brows as the
    nose base lies below them. Straps and shadows do not count; what lies outside the crop does.

    Returns:
        float64 (N,) shares, on the CPU, measured on 48 x 48 points a face.

    Raises:
        RecipeError: no such level.
    """
    shares = [_share(hull_NP2, masks.layers) for _, hull_NP2, masks in _plans(faces, level, seed, 64)]
    return torch.cat(shares) if shares else torch.zeros(0, dtype=torch.float64)


def random_mask(
    images_B3HW: Tensor,
    probability: float,
    size: tuple[float, float],
    random: torch.Generator,
    *,
    fill: Fill = "mean",
    aspect: float = 1.5,
) -> Tensor:
    """Hide a rectangle of a random size at a random place in some images, as section 3.2 of the paper does to students.

    Args:
        images_B3HW: normalised images.
        probability: that an image gets a rectangle.
        size: least and largest side of the rectangle, as shares of the image's side; drawn uniformly for each image.
        random: a CPU generator; it is drawn from as often whatever the probability.
        fill: 'mean' is the mean colour, zero; 'noise' a random colour for each image, grained.
        aspect: width over height is drawn from 1 / aspect to aspect, at the same area.

    Returns:
        New images, in the memory format of the given ones.

    Raises:
        RecipeError: a size that is no pair of shares, the smaller first.
    """
    if not 0 <= size[0] <= size[1] <= 1:
        raise RecipeError(f"the sides of a random mask must be two shares of 0 to 1, the smaller first, not {size}")
    n, _, h, w = images_B3HW.shape
    device = images_B3HW.device
    side_B1 = size[0] + (size[1] - size[0]) * torch.rand(n, 1, generator=random)
    stretch_B1 = aspect ** (torch.rand(n, 1, generator=random) - 0.5)
    sides_B2 = torch.cat((side_B1 * stretch_B1, side_B1 / stretch_B1), dim=1).clamp(max=1)
    low_B2 = torch.rand(n, 2, generator=random) * (1 - sides_B2)
    chosen_B = torch.rand(n, generator=random) < probability
    filling = torch.zeros(1, 1, 1, 1)
    if fill == "noise":  # normalised colours have unit deviation
        filling = torch.randn(n, 3, 1, 1, generator=random) + 0.5 * torch.randn(1, 3, h, w, generator=random)
    low, high, chosen, filling = (t.to(device) for t in (low_B2, low_B2 + sides_B2, chosen_B, filling))
    x, y = ((torch.arange(pixels, device=device) + 0.5) / pixels for pixels in (w, h))
    columns = (x >= low[:, :1]) & (x < high[:, :1]) & chosen[:, None]
    rows = (y >= low[:, 1:]) & (y < high[:, 1:])
    return torch.where(rows[:, None, :, None] & columns[:, None, None, :], filling.to(images_B3HW), images_B3HW)


def _plans(faces: DeviceFaces, level: Level, seed: int, at_once: int) -> Iterator[tuple[slice, Tensor, _Masks]]:
    """A few faces at a time: which, points whose convex hull is the face, and what they wear; on the CPU."""
    if level not in get_args(Level):
        raise RecipeError(f"the level of a mask must be one of {', '.join(get_args(Level))}, not {level!r}")
    rising = torch.tensor([0.5, 0.9, 1.0, 1.0, 0.9, 0.5], dtype=torch.float64)[:, None]
    for start in range(0, len(faces), at_once):
        few = slice(start, start + at_once)
        landmarks_NL2 = faces.landmarks_NL2[few].double().cpu()
        p = _skeleton(landmarks_NL2, faces.scheme)
        hull_NP2 = torch.cat((landmarks_NL2, p[:, _JAW], p[:, _BROWS] + rising * _up(p)[:, None]), dim=1)
        draws = _draws(landmarks_NL2, seed, 1 + 2 * (_LOOKS + 2 * _CONTROLS))
        yield few, hull_NP2, _dress(p, hull_NP2, level, draws)


def _skeleton(landmarks_NL2: Tensor, scheme: Scheme) -> Tensor:
    """The points that masks are drawn from, (N, 33, 2)."""
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
    """Places to a thousandth of a pixel: what the size of a batch does to the last digits must not show."""
    return (points * 1024).round() / 1024


def _anchors(landmarks_NL2: Tensor, scheme: Scheme) -> Tensor:
    """Eyes, nose base and chin (N, 4, 2) of a mark-up of which only the eyes are known.

    The chin is as low as the lowest landmark and no higher than chins usually are, below the lower half of the points.
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
    """From the nose base to the brows: a third of a face."""
    return skeleton_NK2[:, [18, 21]].mean(1) - skeleton_NK2[:, _BASE]


def _draws(landmarks_NL2: Tensor, seed: int, count: int) -> Tensor:
    """Numbers of 0 to 1, (N, count), from the shape of each face and the seed: a hash, so that no order matters.

    The shape is that of four landmarks, coarsely, wherever and however large the face is.
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


def _dress(p: Tensor, hull_NP2: Tensor, level: Level, draws: Tensor) -> _Masks:
    """Everything that faces wear, from their points p (N, 33, 2) and their random numbers."""
    eyes, down = p[:, 28] - p[:, 23], p[:, _CHIN] - (p[:, 23] + p[:, 28]) / 2
    unit = down.norm(dim=1, keepdim=True).clamp(min=1)
    width = torch.maximum(eyes.norm(dim=1, keepdim=True), 0.7 * unit)
    across = torch.stack((down[:, 1], -down[:, 0]), dim=1) / (unit * width)
    kind, own, other = draws[:, :1, None], *draws[:, 1:].chunk(2, dim=1)
    mask = _mask(p, level) + _jitter(own, unit)
    layers = [_cloth(mask, own, surgical=True)]
    if level == "hard":
        cap = _cap(p)
        extra = torch.where(kind < 0.5, cap, torch.where(kind < 0.75, _scarf(p), _scarf(p[:, _MIRROR])))
        layers.append(_cloth(extra + _jitter(other, unit), other, surgical=False))
        for growth in 1.25 ** torch.arange(9):  # until the last, which hides all; faces that need the first are rare
            short = _share(hull_NP2, layers) < _HALF
            if not short.any():
                break
            larger = _outline(torch.lerp(cap.mean(1, keepdim=True), cap, growth.double()))
            outline_NV2 = torch.where(short[:, None, None], larger, layers[1].outline_NV2)
            layers[1] = layers[1]._replace(outline_NV2=outline_NV2)
    return _Masks(p[:, _BASE], across, down / unit.square(), _straps(p, mask), tuple(layers))


def _jitter(draws: Tensor, unit_N1: Tensor) -> Tensor:
    """What moves the points around a piece of cloth, at most 1.5 % of eyes to chin."""
    return (draws[:, _LOOKS:].reshape(-1, _CONTROLS, 2) - 0.5) * 0.03 * unit_N1[..., None]


def _mask(p: Tensor, level: Level) -> Tensor:
    """Twelve points around a mask: along the jaw from left to right, and back over the nose."""
    end, drop, first, second, share = _EDGE[level]
    base = p[:, _BASE, None]
    place = torch.linspace(end, 16 - end, 7, dtype=torch.float64)
    before = place.long().clamp(max=15)
    jaw = torch.lerp(p[:, before], p[:, before + 1], (place - before)[:, None])
    # near the ears the cloth ends before the outline of the face does, but goes around the far side of a turned face
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
    """Twelve points around a cap drawn down to the brows."""
    up, middle = _up(p), p[:, [19, 20]].mean(1)
    left, right = (torch.lerp(p[:, _BASE], p[:, ear], 1.08) for ear in (0, 16))
    rim = (left, p[:, 17], p[:, 18], middle, p[:, 21], p[:, 22], right)
    over = (p[:, 21] + 1.75 * up, middle + 1.95 * up, p[:, 18] + 1.75 * up)
    return torch.stack((*rim, torch.lerp(left, right, 1.06) + up, *over, torch.lerp(right, left, 1.06) + up), dim=1)


def _scarf(p: Tensor) -> Tensor:
    """Twelve points around a scarf over the left eye and most of the forehead; right, from mirrored points."""
    up, middle = _up(p), p[:, [19, 20]].mean(1)
    ear, far = (torch.lerp(p[:, _BASE], p[:, out], 1.08) for out in (1, 22))
    nose = torch.lerp(p[:, 25], p[:, _ROOT], 0.6)
    rim = (ear, torch.lerp(p[:, 23], p[:, 4], 0.35), p[:, 24] - 0.35 * up, nose - 0.2 * up, nose + 0.35 * up)
    over = (p[:, 20] + 0.45 * up, p[:, 21] + 0.6 * up, far + 0.8 * up)
    crown = (p[:, 21] + 1.7 * up, middle + 1.9 * up, p[:, 18] + 1.75 * up, ear + 1.2 * up)
    return torch.stack((*rim, *over, *crown), dim=1)


def _straps(p: Tensor, mask: Tensor) -> Tensor:
    """Two lines on each side from the mask to the ear, (N, 4, 2 ends, 2)."""
    ears = p[:, [0, 1, 16, 15]]
    return torch.stack((mask[:, [0, 1, 6, 5]], ears + 0.06 * (ears - p[:, _BASE, None])), dim=2)


def _cloth(controls_NC2: Tensor, draws: Tensor, surgical: bool) -> _Cloth:
    """Spread cloth between points and choose its looks."""
    cloths = torch.tensor(_CLOTHS, dtype=torch.float64)
    dyed = cloths[_SURGICAL:]

    def chosen(number: int, of: Tensor) -> Tensor:
        return of[(draws[:, number] * len(of)).long()]

    ground, second = chosen(0, cloths if surgical else dyed), chosen(1, dyed)
    pleated = ground[:, 3:]
    return _Cloth(
        outline_NV2=_outline(controls_NC2),
        colours_N23=torch.stack((ground, second), dim=1)[..., :3],
        pattern_N3=chosen(2, torch.tensor(_PATTERNS, dtype=torch.float64)) * (1 - pleated),
        wave_N2=torch.stack((draws[:, 3] * math.pi, 4 + 6 * draws[:, 4]), dim=1),
        phase_N3=draws[:, 5:8] * 2 * math.pi,
        pleated_N1=pleated,
        lit_N2=torch.stack((draws[:, 8] - 0.5, 0.85 + 0.25 * draws[:, 9]), dim=1),
    )


def _outline(controls_NC2: Tensor) -> Tensor:
    return _rounded(_smoothing() @ controls_NC2)


@cache
def _smoothing() -> Tensor:
    """What makes a closed Catmull-Rom spline of controls, (edges, controls)."""
    t = torch.arange(_STEPS, dtype=torch.float64)[:, None] / _STEPS
    weights = torch.cat((-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2), 1) / 2
    first = F.pad(weights, (0, _CONTROLS - 4)).roll(-1, 1)
    return torch.cat([first.roll(i, 1) for i in range(_CONTROLS)])


def _share(hull_NP2: Tensor, layers: Sequence[_Cloth]) -> Tensor:
    """Share of the convex hull of some points that lies within outlines, (N,)."""
    low, high = hull_NP2.amin(1), hull_NP2.amax(1)
    cell = (torch.arange(_GRID, dtype=torch.float64) + 0.5) / _GRID
    x, y = (low[:, i, None] + cell * (high - low)[:, i, None] for i in (0, 1))
    angles = torch.arange(_DIRECTIONS, dtype=torch.float64) * (2 * math.pi / _DIRECTIONS)
    face = torch.ones((), dtype=torch.bool)
    for cos, sin in zip(angles.cos().tolist(), angles.sin().tolist(), strict=True):  # tangent by tangent
        farthest = (hull_NP2[..., 0] * cos + hull_NP2[..., 1] * sin).amax(1)[:, None, None]
        face = face & ((x * cos)[:, None] + (y * sin)[:, :, None] <= farthest)
    hidden = torch.stack([_inside(layer.outline_NV2, x, y) for layer in layers]).any(0)
    return (face & hidden).sum((1, 2)).double() / face.sum((1, 2)).clamp(min=1)


def _paint(images_NHWC: Tensor, masks: _Masks) -> None:
    """Draw straps and layers on crops of uint8, in place. Their side is a multiple of _CELL."""
    size = images_NHWC.shape[1]
    rows_NH, columns_NW = (images_NHWC.amax((axis, 3)) > 0 for axis in (2, 1))  # in the photograph
    plane_N3, tint_N1 = _light(images_NHWC, masks)
    ambient, *slopes = plane_N3[..., None, None].unbind(1)
    unit_N1 = 1 / masks.down_N2.norm(dim=1, keepdim=True)
    face = torch.arange(len(images_NHWC), device=images_NHWC.device)[:, None, None]
    for layer in masks.layers:
        tied = layer is masks.layers[0]
        ends_NP2 = torch.cat((layer.outline_NV2, masks.straps_NS22.flatten(1, 2)), 1) if tied else layer.outline_NV2
        x_NW, y_NH = _window(ends_NP2, _SHADOW * unit_N1 + 2 * _CELL, size)
        shown = (rows_NH.gather(1, y_NH)[:, :, None] & columns_NW.gather(1, x_NW)[:, None]).float()
        dx, dy = x_NW - masks.base_N2[:, :1], y_NH - masks.base_N2[:, 1:]
        u, v = ((dx * to[:, :1])[:, None] + (dy * to[:, 1:])[:, :, None] for to in (masks.across_N2, masks.down_N2))
        light = (ambient + slopes[0] * u + slopes[1] * v).clamp(0.3, 1.3)[:, None]
        depth = _depth(layer.outline_NV2, x_NW, y_NH)
        opaque = shown * (0.5 + depth / max(1.0, _EDGE_WIDTH * size)).clamp(0, 1)
        depth = depth / unit_N1[..., None]
        shadow = shown * 0.4 * (1 + depth / _SHADOW).clamp(0, 1).square()
        cloth = _lit(_woven(layer, u, v, depth.clamp(min=0)), light, tint_N1)

        place = (face, y_NH[:, :, None], x_NW[:, None])
        pixels = images_NHWC[place].permute(0, 3, 1, 2).float()
        if tied:
            colour = torch.where(layer.pleated_N1 > 0, 215.0, layer.colours_N23[:, 0])[..., None, None]
            strap = shown * _straps_at(masks.straps_NS22, x_NW, y_NH, 0.012 * unit_N1)
            pixels = torch.lerp(pixels, _lit(colour, light, tint_N1), strap[:, None])
        pixels = torch.lerp(pixels * (1 - shadow)[:, None], cloth, opaque[:, None])
        images_NHWC[place] = pixels.round_().to(torch.uint8).permute(0, 2, 3, 1)


def _window(points_NP2: Tensor, margin_N1: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Columns (N, W) and rows (N, H) about points, as many for every face, from a multiple of _CELL on.

    A window as large as the largest face needs: what a pixel gets does not depend on where its window begins.
    """
    cells = size // _CELL
    low = ((points_NP2.amin(1) - margin_N1) / _CELL).floor().clamp(0, cells - 1).long()
    high = ((points_NP2.amax(1) + margin_N1) / _CELL).ceil().clamp(1, cells).long()
    most = (high - low).amax(0).clamp(min=1)
    start = _CELL * torch.minimum(low, cells - most)
    across, down = (torch.arange(_CELL * n, device=low.device) for n in most.tolist())
    return start[:, :1] + across, start[:, 1:] + down


def _lit(colour: Tensor, light: Tensor, tint_N1: Tensor) -> Tensor:
    """Colour (N, 3, ...) in the light of a photograph, and as colourful as that is."""
    grey = colour.mean(1, keepdim=True)
    return (torch.lerp(grey, colour, tint_N1[..., None, None]) * light).clamp_(0, 255)


def _light(images_NHWC: Tensor, masks: _Masks) -> tuple[Tensor, Tensor]:
    """The light on a face, a plane (N, 3: at the nose, along u, along v), and how colourful the photograph is, (N, 1).

    A plane tells from where the light comes, and nothing of what the mask hides.
    """
    axis = torch.linspace(-0.5, 0.5, 16, device=images_NHWC.device)
    u, v = (t.flatten() for t in torch.meshgrid(axis, axis, indexing="ij"))
    right, down = (to[:, None] / to.square().sum(1)[:, None, None] for to in (masks.across_N2, masks.down_N2))
    places = masks.base_N2[:, None] + u[:, None] * right + v[:, None] * down
    x, y = places.round().long().clamp(0, images_NHWC.shape[1] - 1).unbind(2)
    seen = images_NHWC[torch.arange(len(x), device=axis.device)[:, None], y, x].float()
    fit_3P = torch.linalg.pinv(torch.stack((torch.ones_like(u), u, v), dim=1).cpu()).to(axis.device)
    plane = (seen.mean(2)[:, None] * fit_3P).sum(2)
    slopes = (plane[:, 1:] / plane[:, :1].clamp(min=20)).clamp(-0.6, 0.6)
    gain = (0.3 + plane[:, :1] / 200).clamp(0.35, 1) * masks.layers[0].lit_N2[:, 1:]
    tint = ((seen.amax(2) - seen.amin(2)).mean(1, keepdim=True) / 12).clamp(max=1)
    return gain * torch.cat((torch.ones_like(gain), slopes), dim=1), tint


def _straps_at(straps_NS22: Tensor, x_NW: Tensor, y_NH: Tensor, half_N1: Tensor) -> Tensor:
    """How much of each pixel straps cover, (N, H, W): each a line of some half width."""
    covered = torch.zeros((), device=x_NW.device)
    for ends in straps_NS22.unbind(1):
        way = ends[:, 1] - ends[:, 0]
        distance = _to_line(x_NW - ends[:, 0, :1], y_NH - ends[:, 0, 1:], way[:, :1], way[:, 1:]).sqrt_()
        covered = torch.maximum(covered, half_N1.clamp(min=0.6)[..., None] + 0.5 - distance)
    return covered.clamp(max=1)


def _depth(outline_NV2: Tensor, x_NW: Tensor, y_NH: Tensor) -> Tensor:
    """How deep within polygons pixels lie, (N, H, W) in pixels, negative outside: exact every _CELL pixels."""
    x, y = (line[:, ::_CELL] + (_CELL - 1) / 2 for line in (x_NW, y_NH))
    nearest = torch.full((), math.inf, device=outline_NV2.device)
    for start, end in _edges(outline_NV2):
        way = end - start
        nearest = torch.minimum(nearest, _to_line(x - start[:, :1], y - start[:, 1:], way[:, :1], way[:, 1:]))
    depth = torch.where(_inside(outline_NV2, x, y), 1, -1) * nearest.sqrt()
    return F.interpolate(depth[:, None], scale_factor=_CELL, mode="bilinear")[:, 0]


def _inside(outline_NV2: Tensor, x_NW: Tensor, y_NH: Tensor) -> Tensor:
    """Whether the points of grids lie within polygons, bool (N, H, W).

    Edges are counted with the side they pass on, so that what is folded over lies within too.
    """
    winding = torch.zeros((), device=x_NW.device)
    for start, end in _edges(outline_NV2):
        way = end - start
        upwards = ((start[:, 1:] <= y_NH).float() - (end[:, 1:] <= y_NH).float())[:, :, None]
        side = (way[:, :1] * (y_NH - start[:, 1:]))[:, :, None] - (way[:, 1:] * (x_NW - start[:, :1]))[:, None]
        winding = winding + upwards * (side * upwards > 0)
    return winding != 0


def _edges(outline_NV2: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """The ends of one edge of every polygon, each (N, 2), and so edge by edge."""
    return zip(outline_NV2.unbind(1), outline_NV2.roll(-1, 1).unbind(1), strict=True)


def _to_line(dx_NW: Tensor, dy_NH: Tensor, ex_N1: Tensor, ey_N1: Tensor) -> Tensor:
    """Squared distance (N, H, W) of the points of a grid from the line that leads from 0 to e."""
    squared = (ex_N1.square() + ey_N1.square()).clamp(min=1e-6)
    along = ((dx_NW * ex_N1 / squared)[:, None] + (dy_NH * ey_N1 / squared)[:, :, None]).clamp_(0, 1)
    x = torch.addcmul(dx_NW[:, None], along, ex_N1[..., None], value=-1)
    y = torch.addcmul(dy_NH[:, :, None], along, ey_N1[..., None], value=-1)
    return x.square_().addcmul_(y, y)


def _woven(cloth: _Cloth, u: Tensor, v: Tensor, depth: Tensor) -> Tensor:
    """The colours (N, 3, H, W) of cloth with its pattern, folds and roundness, before the picture's light."""

    def each(values_N: Tensor) -> Tensor:
        return values_N[:, None, None]

    bow, wrap = v + 0.12 * u.square(), u + 0.25 * u**3
    cos, sin = each(cloth.wave_N2[:, 0].cos()), each(cloth.wave_N2[:, 0].sin())
    waves, phase = each(2 * math.pi * cloth.wave_N2[:, 1]), cloth.phase_N3
    p, q = wrap * cos + bow * sin, bow * cos - wrap * sin
    stripes, across = torch.sin(waves * p), torch.sin(waves * q)
    kinds = torch.sigmoid(torch.stack((5 * stripes, 5 * across, 6 * stripes * across - 2), dim=1))
    pattern = (kinds * cloth.pattern_N3[..., None, None]).sum(1, keepdim=True)

    pleated, side = each(cloth.pleated_N1[:, 0]), each(cloth.lit_N2[:, 0])
    pleat = (bow + 0.06) / 0.15
    below = pleat.frac()
    fold = (0.22 * torch.exp(-7 * below) - 0.06 * below) * ((pleat > 0) & (pleat < 3)) * (depth * 20).clamp(max=1)
    nose = torch.exp(-(u / 0.13).square() - ((v + 0.2) / 0.3).square())
    seam = 0.18 * (1 - pleated) * torch.exp(-(u / 0.015).square()) * (v > -0.5)
    wrinkles = torch.sin(9 * p + 2 * torch.sin(3 * q + each(phase[:, 0])) + each(phase[:, 1]))
    wrinkles = wrinkles + torch.sin(17 * q + 2 * torch.sin(5 * p + each(phase[:, 2])))
    hem = 0.13 * torch.exp(-((depth - 0.035) / 0.007).square()) + 0.25 * torch.exp(-depth / 0.012)
    shade = 1.03 + (0.5 * side - 0.5 * u) * u - 0.5 * (v - 0.3).clamp(min=0) + nose * (0.08 + 1.6 * side * u)
    shade = shade - pleated * fold - seam - hem + 0.03 * wrinkles
    ground, second = cloth.colours_N23[:, :, :, None, None].unbind(1)
    return torch.lerp(ground, second, pattern) * shade.clamp(min=0.15)[:, None]
