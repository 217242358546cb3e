"""The neutral head: its outline, its surface and the curves of its features.

The surface is a dome over the head's outline (a disc around the nose) plus bumps for nose, sockets, lips and chin.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from nasface.data.synthetic.smooth import Floats, bump, ramp, spline

CENTRE = (0.0, 0.35)  # x and y of the centre of the outline disc, the middle of the nose
LIP_LINE = 0.765  # y of the closed lips

# Proportions set by hand for a camera about nine units away, which shows the jaw smaller than the nearer eyes.
# Only the viewer's right half (x >= 0), which is mirrored. Columns: x, y, z.
_CRANIUM = [(0.885, -0.28, -0.04), (0.870, -0.58, -0.06), (0.755, -0.91, -0.08), (0.505, -1.18, -0.09)]
_VERTEX = (0.0, -1.30, -0.09)
_JAW = [
    (0.870, -0.03, 0.02),
    (0.855, 0.20, 0.01),
    (0.825, 0.42, 0.00),
    (0.780, 0.64, 0.03),
    (0.692, 0.84, 0.15),
    (0.557, 1.00, 0.32),
    (0.386, 1.14, 0.51),
    (0.202, 1.235, 0.68),
]
_CHIN = (0.0, 1.265, 0.80)
# Curves of the viewer's left side (x < 0), from the outside inwards.
_BROW_UPPER = [(-0.667, -0.143), (-0.565, -0.227), (-0.423, -0.256), (-0.280, -0.236), (-0.142, -0.186)]
_BROW_LOWER = [(-0.667, -0.143), (-0.560, -0.172), (-0.420, -0.186), (-0.280, -0.165), (-0.150, -0.118)]
_LID_UPPER = [(-0.500, 0.000), (-0.412, -0.050), (-0.306, -0.048), (-0.216, 0.021)]
_LID_LOWER = [(-0.500, 0.000), (-0.419, 0.038), (-0.315, 0.040), (-0.216, 0.021)]
_LIP_OUTER_UPPER = [(-0.282, 0.755), (-0.180, 0.712), (-0.076, 0.687), (0.0, 0.704)]
_LIP_OUTER_LOWER = [(-0.282, 0.755), (-0.190, 0.823), (-0.085, 0.862), (0.0, 0.870)]
_LIP_INNER = [(-0.238, 0.755), (-0.078, 0.759), (0.0, 0.764)]
_BRIDGE = [(0.0, -0.019), (0.0, 0.126), (0.0, 0.269), (0.0, 0.416)]
_NOSE_BASE = [(-0.160, 0.491), (-0.083, 0.519), (0.0, 0.544)]


@lru_cache(maxsize=1)
def outline() -> Floats:
    """Return the head's outline (104, 3): the jaw from the viewer's left temple to the right one, then the cranium."""
    right_jaw, left_jaw = _JAW, [(-x, y, z) for x, y, z in _JAW]
    left_cranium = [(-x, y, z) for x, y, z in reversed(_CRANIUM)]
    ring = [*left_jaw, _CHIN, *reversed(right_jaw), *_CRANIUM, _VERTEX, *left_cranium]
    return spline(np.array(ring), 4, closed=True)


@lru_cache(maxsize=1)
def outward() -> Floats:
    """Return unit vectors (A, 2) that point outwards from the outline, in the canonical plane."""
    xy = outline()[:, :2]
    tangent = np.roll(xy, -1, axis=0) - np.roll(xy, 1, axis=0)
    normal = np.stack([-tangent[:, 1], tangent[:, 0]], axis=-1)
    normal *= np.sign(np.sum(normal * (xy - CENTRE), axis=-1, keepdims=True))
    unit: Floats = normal / np.linalg.norm(normal, axis=-1, keepdims=True)
    return unit


def disc_of(xy: Floats) -> tuple[Floats, Floats]:
    """Return the relative radius (...,) of canonical positions in the outline disc, and the rim's z on their ray."""
    rim = outline()
    rim_angle = np.arctan2(rim[:, 1] - CENTRE[1], rim[:, 0] - CENTRE[0])
    order = np.argsort(rim_angle)
    rim_radius = np.hypot(rim[:, 0] - CENTRE[0], rim[:, 1] - CENTRE[1])
    angle = np.arctan2(xy[..., 1] - CENTRE[1], xy[..., 0] - CENTRE[0])
    reach = np.interp(angle, rim_angle[order], rim_radius[order], period=2 * np.pi)
    depth = np.interp(angle, rim_angle[order], rim[order, 2], period=2 * np.pi)
    radius = np.hypot(xy[..., 0] - CENTRE[0], xy[..., 1] - CENTRE[1]) / reach
    return np.minimum(radius, 1.0), depth


def disc_grid(rows: int, columns: int) -> tuple[Floats, Floats, Floats]:
    """Return a grid over the disc: canonical positions (H, W, 2), relative radius and the rim's z, both (H, W)."""
    v, u = np.meshgrid(np.linspace(-1, 1, rows), np.linspace(-1, 1, columns), indexing="ij")
    disc = np.stack([u * np.sqrt(1 - v**2 / 2), v * np.sqrt(1 - u**2 / 2)], axis=-1)
    flat = np.hypot(disc[..., 0], disc[..., 1])
    # Denser towards the rim, where the dome is steep and is seen from the side when the head turns.
    radius = np.sin(np.minimum(flat, 1.0) * 1.45) / np.sin(1.45)
    ray = disc / np.maximum(flat, 1e-9)[..., None] * (0.8, 1.29) * 0.01
    unit_radius, depth = disc_of(ray + CENTRE)
    reach = np.hypot(ray[..., 0], ray[..., 1]) / np.maximum(unit_radius, 1e-12)
    direction = ray / np.maximum(np.hypot(ray[..., 0], ray[..., 1]), 1e-12)[..., None]
    return CENTRE + direction * (radius * reach)[..., None], radius, depth


def lift(xy: Floats, radius: Floats, rim_z: Floats) -> Floats:
    """Return the points (..., 3) of the neutral surface over canonical positions."""
    dome = np.sqrt(np.maximum(1 - radius**2.3, 0.0))
    z = rim_z + (1.0 - rim_z) * dome + _relief(xy) * ramp(dome, 0.0, 0.45)
    return np.concatenate([xy, z[..., None]], axis=-1)


def _relief(xy: Floats) -> Floats:
    """Return the height (...,) of the facial features above the dome."""
    y = np.linspace(-0.3, 0.8, 441)
    knots = [-0.28, -0.03, 0.126, 0.269, 0.39, 0.44, 0.48, 0.52, 0.56, 0.62]
    ridge = np.interp(y, knots, [0.0, 0.09, 0.14, 0.20, 0.285, 0.285, 0.235, 0.13, 0.045, 0.0])
    width = np.interp(y, [-0.15, 0.1, 0.3, 0.42, 0.5, 0.6], [0.075, 0.07, 0.085, 0.10, 0.105, 0.09])
    kernel = np.exp(-0.5 * (np.arange(-20, 21) / 6.0) ** 2)
    ridge, width = (np.convolve(v, kernel / kernel.sum(), "same") for v in (ridge, width))
    x_abs = np.abs(xy[..., 0])
    nose = np.interp(xy[..., 1], y, ridge)
    nose = nose * np.exp(-((x_abs / np.interp(xy[..., 1], y, np.maximum(width, 0.05))) ** 2.2) / 1.4)
    nose = nose + 0.105 * bump(xy, 0.125, 0.462, 0.042, 0.042, both=True)
    eyes = -0.115 * bump(xy, 0.33, -0.01, 0.16, 0.085, both=True)
    eyes = eyes - 0.05 * bump(xy, 0.19, 0.0, 0.05, 0.07, both=True)
    eyes = eyes + 0.055 * bump(xy, 0.36, 0.0, 0.10, 0.055, both=True)
    brow = 0.06 * bump(xy, 0.36, -0.20, 0.26, 0.06, both=True) + 0.04 * bump(xy, 0.0, -0.20, 0.16, 0.09)
    cheek = 0.045 * bump(xy, 0.50, 0.28, 0.17, 0.14, both=True)
    hollow = -0.035 * bump(xy, 0.52, 0.72, 0.14, 0.16, both=True)
    muzzle = 0.045 * bump(xy, 0.0, 0.76, 0.24, 0.16) - 0.04 * bump(xy, 0.34, 0.76, 0.07, 0.10, both=True)
    lips = 0.045 * bump(xy, 0.0, 0.73, 0.17, 0.030) + 0.055 * bump(xy, 0.0, 0.812, 0.15, 0.036)
    lips = lips - 0.03 * bump(xy, 0.0, LIP_LINE, 0.24, 0.014) - 0.02 * bump(xy, 0.0, 0.62, 0.025, 0.05)
    chin = 0.075 * bump(xy, 0.0, 1.11, 0.17, 0.095) - 0.05 * bump(xy, 0.0, 0.945, 0.18, 0.045)
    fold = _fold(xy)
    relief: Floats = nose + eyes + brow + cheek + hollow + muzzle + lips + chin - 0.018 * fold
    return relief


def _fold(xy: Floats) -> Floats:
    """Return the depth (...,) of the crease from the wings of the nose past the corners of the mouth."""
    line_x = np.interp(xy[..., 1], [0.44, 0.55, 0.65, 0.78, 0.9], [0.18, 0.25, 0.32, 0.38, 0.39])
    fall = ramp(xy[..., 1], 0.42, 0.52) * (1 - ramp(xy[..., 1], 0.70, 0.90))
    crease: Floats = np.exp(-0.5 * ((np.abs(xy[..., 0]) - line_x) / 0.032) ** 2) * fall
    return crease


def marks() -> tuple[Floats, Floats, dict[str, NDArray[np.intp]]]:
    """Return points on curves (K, 2), how far each follows the lower jaw (K,), and the rows of each curve."""
    points: list[Floats] = []
    lower: list[Floats] = []
    at: dict[str, NDArray[np.intp]] = {}

    def add(name: str, curve: Floats, jaw: float | Floats = 0.0) -> None:
        start = sum(map(len, points))
        points.append(curve)
        lower.append(np.broadcast_to(np.asarray(jaw, float), (len(curve),)))
        at[name] = np.arange(start, start + len(curve))

    mirror = np.array([-1.0, 1.0])
    for side, sign in (("l", np.ones(2)), ("r", mirror)):
        for name, curve, per in (
            ("brow_upper", _BROW_UPPER, 3),
            ("brow_lower", _BROW_LOWER, 3),
            ("lid_upper", _LID_UPPER, 4),
            ("lid_lower", _LID_LOWER, 4),
        ):
            add(f"{name}_{side}", spline(np.array(curve), per) * sign)
        lift = np.array([(0.0, -0.012), (0.0, -0.045), (0.0, -0.045), (0.0, -0.03)])
        crease = spline(np.array(_LID_UPPER) + lift, 4)
        add(f"crease_{side}", crease * sign)
        fold_y = np.linspace(0.47, 0.84, 9)
        fold_x = np.interp(fold_y, [0.44, 0.55, 0.65, 0.78, 0.9], [-0.18, -0.25, -0.32, -0.38, -0.39])
        add(f"fold_{side}", np.stack([fold_x, fold_y], axis=-1) * sign, ramp(fold_y, 0.7, 0.95))
        wing = np.array([(-0.135, 0.415), (-0.178, 0.445), (-0.176, 0.487), (-0.14, 0.50)])
        add(f"wing_{side}", spline(wing, 4) * sign)
        t = np.linspace(0, 2 * np.pi, 12, endpoint=False)
        hole = np.stack([-0.072 + 0.040 * np.cos(t), 0.503 + 0.017 * np.sin(t) - 0.3 * 0.04 * np.cos(t)], -1)
        add(f"nostril_{side}", hole * sign)
    add("pupil", np.array([(-0.358, -0.004), (0.358, -0.004)]))
    add("ala", np.array([(-0.178, 0.455), (0.178, 0.455)]))
    add("bridge", np.array(_BRIDGE))
    add("base", np.array([*_NOSE_BASE, *[(-x, y) for x, y in _NOSE_BASE[1::-1]]]))
    corners = np.zeros(13)
    corners[[0, 12]] = 0.5

    def lip(half: list[tuple[float, float]], per: int) -> Floats:
        return spline(np.array([*half, *[(-x, y) for x, y in half[-2::-1]]]), per)

    add("lip_outer_upper", lip(_LIP_OUTER_UPPER, 2), corners)
    add("lip_outer_lower", lip(_LIP_OUTER_LOWER, 2), 1 - corners)
    add("lip_inner_upper", lip(_LIP_INNER, 3), corners)
    add("lip_inner_lower", lip(_LIP_INNER, 3), 1 - corners)
    return np.concatenate(points), np.concatenate(lower), at


def ears() -> Floats:
    """Return the outlines of the ears (2 * 16, 3), the viewer's left one first: upright leaves behind the temples."""
    t = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    across = np.cos(t) * (0.115 - 0.035 * np.sin(t))
    z = -0.10 + 1.05 * across
    y = 0.17 + 0.285 * np.sin(t) - 0.15 * across
    x = 0.90 - 0.55 * across
    right = np.stack([x, y, z], axis=-1)
    return np.concatenate([right * (-1, 1, 1), right])


def skirt(outline_A3: Floats) -> Floats:
    """Return a strip (A + 1, T, 3) from the outline backwards, narrowing so that a frontal face hides it."""
    back = np.linspace(0, 1, 8)[None, :, None]
    rim = np.concatenate([outline_A3, outline_A3[:1]])[:, None]
    towards = np.array([0.0, 0.30, -0.45])
    strip: Floats = rim + (towards - rim) * np.concatenate([0.10 * back**2, 0.16 * back**2, 0.5 * back], -1)
    return strip
