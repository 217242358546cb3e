"""A parametric 3-D head: smooth face curves, a surface and linear shape and expression changes.

Everything lives in one canonical frame: x to the viewer's right, y down, z towards the viewer; the unit is
the distance of the outer eye corners of the mean face, the origin lies midway between them. The surface is
a dome over the head's outline (a disc around the nose) plus bumps for nose, sockets, lips and chin. Shape
and expression are linear: points = neutral + sum of coefficient * basis, with every basis a smooth function
of the canonical position, so that mark-up points and rendered surface move together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

CENTRE = (0.0, 0.35)  # of the outline disc, in x and y: the middle of the nose
ARC_RADII = np.sin(np.radians(np.arange(90, 22, -6)))  # even in angle: the dome is steep at its rim
LIP_LINE = 0.765  # y of the closed lips

# Proportions set by hand for a camera some nine units away, which shows the jaw smaller than the nearer eyes.
# Only the viewer's right half (x >= 0), the left one mirrors it. Columns x, y, z.
_CRANIUM = [(0.885, -0.28, -0.04), (0.870, -0.58, -0.06), (0.755, -0.91, -0.08), (0.505, -1.18, -0.09)]
_VERTEX = (0.0, -1.30, -0.09)
_JAW = [
    (0.873, -0.03, -0.06),
    (0.857, 0.20, -0.05),
    (0.825, 0.42, 0.00),
    (0.777, 0.64, 0.08),
    (0.688, 0.84, 0.24),
    (0.552, 1.00, 0.42),
    (0.382, 1.14, 0.60),
    (0.200, 1.235, 0.74),
]
_CHIN = (0.0, 1.265, 0.80)
# Curves of the viewer's left side (x < 0), from the outside inwards.
_BROW_UPPER = [(-0.667, -0.143), (-0.565, -0.227), (-0.423, -0.256), (-0.280, -0.236), (-0.142, -0.186)]
_BROW_LOWER = [(-0.667, -0.143), (-0.560, -0.172), (-0.420, -0.186), (-0.280, -0.165), (-0.150, -0.118)]
_LID_UPPER = [(-0.500, 0.000), (-0.412, -0.050), (-0.306, -0.048), (-0.216, 0.021)]
_LID_LOWER = [(-0.500, 0.000), (-0.419, 0.038), (-0.315, 0.040), (-0.216, 0.021)]
_LIP_OUTER_UPPER = [(-0.310, 0.755), (-0.199, 0.712), (-0.084, 0.687), (0.0, 0.704)]
_LIP_OUTER_LOWER = [(-0.310, 0.755), (-0.205, 0.823), (-0.091, 0.865), (0.0, 0.873)]
_LIP_INNER = [(-0.265, 0.757), (-0.086, 0.763), (0.0, 0.767)]
_BRIDGE = [(0.0, -0.019), (0.0, 0.126), (0.0, 0.269), (0.0, 0.416)]
_NOSE_BASE = [(-0.160, 0.491), (-0.083, 0.519), (0.0, 0.544)]


@dataclass(frozen=True)
class Head:
    """The linear model at its sample points.

    Attributes:
        names: name of each of the C coefficients.
        marks_K3: neutral curve points; `at` names groups of rows.
        arcs_AR3: neutral arcs, outermost point first. The first 65 arcs start on the jaw line from the
            viewer's left temple over the chin to the right one, the rest go on over the vertex.
        points_N3: marks and arcs in one table, with their bases points_CN (N counts coordinates).
        mesh_HW3: neutral surface grid.
        skirt_ST3: strip from the outline backwards (cheek to ear, jaw to neck).
        surface_CN: bases of grid and skirt (N counts coordinates).
        plane_HW2: canonical x and y of the grid.
        at: row indices of `marks_K3` by curve name; curves of the eyes and brows end in '_l' or '_r'.
    """

    names: tuple[str, ...]
    marks_K3: Floats
    arcs_AR3: Floats
    points_N3: Floats
    points_CN: Floats
    mesh_HW3: NDArray[np.float32]
    skirt_ST3: NDArray[np.float32]
    surface_CN: NDArray[np.float32]
    plane_HW2: Floats
    at: Mapping[str, NDArray[np.intp]]

    def coefficients(self, values: Mapping[str, float]) -> Floats:
        """A (C,) vector from named values, zero where unnamed."""
        return np.array([values.get(name, 0.0) for name in self.names])

    def surface(self, change_C: Floats) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Grid (H, W, 3) and skirt (S, T, 3) of a changed head, in head units."""
        moved = (change_C.astype(np.float32) @ self.surface_CN).reshape(-1, 3)
        count = self.mesh_HW3.shape[0] * self.mesh_HW3.shape[1]
        grid = self.mesh_HW3 + moved[:count].reshape(self.mesh_HW3.shape)
        return grid, self.skirt_ST3 + moved[count:].reshape(self.skirt_ST3.shape)


@lru_cache(maxsize=1)
def head() -> Head:
    """The model, built once per process."""
    outline_A3 = _outline()
    radii_R = ARC_RADII
    arcs_xy = CENTRE + (outline_A3[:, None, :2] - CENTRE) * radii_R[:, None]
    arcs_AR3 = _lift(arcs_xy, np.broadcast_to(radii_R, arcs_xy.shape[:2]), outline_A3[:, None, 2])
    mesh_xy, mesh_r, rim_z = _disc_grid(100, 84)
    mesh_HW3 = _lift(mesh_xy, mesh_r, rim_z)
    marks_xy, lower_K, at = _marks()
    marks_K3 = _lift(marks_xy, *_disc_of(marks_xy))
    ears_K3 = _ears()
    skirt_ST3 = _skirt(outline_A3)

    at["ear_l"] = np.arange(len(ears_K3) // 2) + len(marks_K3)
    at["ear_r"] = at["ear_l"] + len(ears_K3) // 2
    marks_K3 = np.concatenate([marks_K3, ears_K3])
    lower_K = np.concatenate([lower_K, np.zeros(len(ears_K3))])
    bases = _bases()
    names = tuple(bases)

    def changes(points: Floats, radius: Floats, lower: Floats) -> Floats:
        return np.stack([np.broadcast_to(bases[name](points, radius, lower), points.shape) for name in names])

    mesh_lower = (mesh_xy[..., 1] > LIP_LINE).astype(float)
    marks_radius = np.concatenate([_disc_of(marks_xy)[0], np.ones(len(ears_K3))])
    marks_CK3 = changes(marks_K3, marks_radius, lower_K)
    _add_lid_changes(marks_K3, marks_CK3, names, at)
    arcs_lower = (arcs_xy[..., 1] > LIP_LINE).astype(float)
    arcs_CAR3 = changes(arcs_AR3, np.broadcast_to(radii_R, arcs_xy.shape[:2]), arcs_lower)
    # The skirt follows the outline it hangs on.
    rim_S13 = np.broadcast_to(np.concatenate([outline_A3, outline_A3[:1]])[:, None], skirt_ST3.shape)
    rim_lower = (rim_S13[..., 1] > LIP_LINE).astype(float)
    mesh_CHW3 = changes(mesh_HW3, mesh_r, mesh_lower)
    skirt_CST3 = changes(rim_S13, np.ones(skirt_ST3.shape[:2]), rim_lower)
    return Head(
        names=names,
        marks_K3=marks_K3,
        arcs_AR3=arcs_AR3,
        points_N3=np.concatenate([marks_K3, arcs_AR3.reshape(-1, 3)]),
        points_CN=np.concatenate([part.reshape(len(names), -1) for part in (marks_CK3, arcs_CAR3)], axis=1),
        mesh_HW3=mesh_HW3.astype(np.float32),
        skirt_ST3=skirt_ST3.astype(np.float32),
        surface_CN=np.concatenate(
            [part.reshape(len(names), -1).astype(np.float32) for part in (mesh_CHW3, skirt_CST3)], axis=1
        ),
        plane_HW2=mesh_xy,
        at=at,
    )


def bump(xy: Floats, x: float, y: float, wide: float, high: float, *, both: bool = False) -> Floats:
    """A Gaussian hill (...,) of height 1 over canonical positions (..., 2); `both` mirrors it in x."""
    across = np.abs(xy[..., 0]) - x if both else xy[..., 0] - x
    hill: Floats = np.exp(-0.5 * ((across / wide) ** 2 + ((xy[..., 1] - y) / high) ** 2))
    return hill


def ramp(value: Floats, start: float, stop: float) -> Floats:
    """A smooth step from 0 at `start` to 1 at `stop`."""
    t = np.clip((value - start) / (stop - start), 0.0, 1.0)
    step: Floats = t * t * (3 - 2 * t)
    return step


def spline(points: Floats, per: int, *, closed: bool = False) -> Floats:
    """A Catmull-Rom curve through points (n, d) with `per` samples a stretch; control points are kept."""
    if closed:
        padded = np.concatenate([points[-1:], points, points[:2]])
    else:
        padded = np.concatenate([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    before, start, stop, after = padded[:-3], padded[1:-2], padded[2:-1], padded[3:]
    t = (np.arange(per) / per)[None, :, None]
    a, b, c, d = (part[:, None] for part in (before, start, stop, after))
    curve = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
    flat: Floats = curve.reshape(-1, points.shape[1])
    return flat if closed else np.concatenate([flat, points[-1:]])


@lru_cache(maxsize=1)
def _outline() -> Floats:
    """The head's outline (104, 3): jaw from the viewer's left temple to the right one, then the cranium."""
    right_jaw, left_jaw = _JAW, [(-x, y, z) for x, y, z in _JAW]
    left_cranium = [(-x, y, z) for x, y, z in reversed(_CRANIUM)]
    ring = [*left_jaw, _CHIN, *reversed(right_jaw), *_CRANIUM, _VERTEX, *left_cranium]
    return spline(np.array(ring), 4, closed=True)


@lru_cache(maxsize=1)
def outward() -> Floats:
    """Unit vectors (A, 2), from the outline outwards, in the canonical plane."""
    xy = _outline()[:, :2]
    tangent = np.roll(xy, -1, axis=0) - np.roll(xy, 1, axis=0)
    normal = np.stack([-tangent[:, 1], tangent[:, 0]], axis=-1)
    normal *= np.sign(np.sum(normal * (xy - CENTRE), axis=-1, keepdims=True))
    unit: Floats = normal / np.linalg.norm(normal, axis=-1, keepdims=True)
    return unit


def _disc_of(xy: Floats) -> tuple[Floats, Floats]:
    """Relative radius (...,) of canonical positions in the outline disc and the rim's z on their ray."""
    rim = _outline()
    rim_angle = np.arctan2(rim[:, 1] - CENTRE[1], rim[:, 0] - CENTRE[0])
    order = np.argsort(rim_angle)
    rim_radius = np.hypot(rim[:, 0] - CENTRE[0], rim[:, 1] - CENTRE[1])
    angle = np.arctan2(xy[..., 1] - CENTRE[1], xy[..., 0] - CENTRE[0])
    reach = np.interp(angle, rim_angle[order], rim_radius[order], period=2 * np.pi)
    depth = np.interp(angle, rim_angle[order], rim[order, 2], period=2 * np.pi)
    radius = np.hypot(xy[..., 0] - CENTRE[0], xy[..., 1] - CENTRE[1]) / reach
    return np.minimum(radius, 1.0), depth


def _disc_grid(rows: int, columns: int) -> tuple[Floats, Floats, Floats]:
    """A grid over the disc: canonical positions (H, W, 2), relative radius and the rim's z (H, W)."""
    v, u = np.meshgrid(np.linspace(-1, 1, rows), np.linspace(-1, 1, columns), indexing="ij")
    disc = np.stack([u * np.sqrt(1 - v**2 / 2), v * np.sqrt(1 - u**2 / 2)], axis=-1)
    flat = np.hypot(disc[..., 0], disc[..., 1])
    # Denser towards the rim, where the dome is steep and seen from the side when the head turns.
    radius = np.sin(np.minimum(flat, 1.0) * 1.45) / np.sin(1.45)
    ray = disc / np.maximum(flat, 1e-9)[..., None] * (0.8, 1.29) * 0.01
    unit_radius, depth = _disc_of(ray + CENTRE)
    reach = np.hypot(ray[..., 0], ray[..., 1]) / np.maximum(unit_radius, 1e-12)
    direction = ray / np.maximum(np.hypot(ray[..., 0], ray[..., 1]), 1e-12)[..., None]
    return CENTRE + direction * (radius * reach)[..., None], radius, depth


def _lift(xy: Floats, radius: Floats, rim_z: Floats) -> Floats:
    """The neutral surface points (..., 3) over canonical positions."""
    dome = np.sqrt(np.maximum(1 - radius**2.3, 0.0))
    z = rim_z + (1.0 - rim_z) * dome + _relief(xy) * ramp(dome, 0.0, 0.45)
    return np.concatenate([xy, z[..., None]], axis=-1)


def _relief(xy: Floats) -> Floats:
    """Height (...,) of the facial features above the dome."""
    y = np.linspace(-0.3, 0.8, 441)
    knots = [-0.15, -0.03, 0.126, 0.269, 0.39, 0.44, 0.48, 0.52, 0.56, 0.62]
    ridge = np.interp(y, knots, [0.0, 0.035, 0.095, 0.18, 0.285, 0.285, 0.235, 0.13, 0.045, 0.0])
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
    brow = 0.045 * bump(xy, 0.36, -0.20, 0.22, 0.06, both=True)
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
    """The crease (...,) from the nose wings past the mouth corners."""
    line_x = np.interp(xy[..., 1], [0.44, 0.55, 0.65, 0.78, 0.9], [0.18, 0.25, 0.32, 0.38, 0.39])
    fall = ramp(xy[..., 1], 0.42, 0.52) * (1 - ramp(xy[..., 1], 0.70, 0.90))
    crease: Floats = np.exp(-0.5 * ((np.abs(xy[..., 0]) - line_x) / 0.032) ** 2) * fall
    return crease


def _marks() -> tuple[Floats, Floats, dict[str, NDArray[np.intp]]]:
    """Curve points (K, 2), how far each belongs to the lower jaw (K,), and the rows of each curve."""
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


def _ears() -> Floats:
    """Ear outlines (2 * 16, 3), the viewer's left one first: an upright leaf behind the temples."""
    t = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    across = np.cos(t) * (0.115 - 0.035 * np.sin(t))
    z = -0.10 + 1.05 * across
    y = 0.17 + 0.285 * np.sin(t) - 0.15 * across
    x = 0.90 - 0.55 * across
    right = np.stack([x, y, z], axis=-1)
    return np.concatenate([right * (-1, 1, 1), right])


def _skirt(outline_A3: Floats) -> Floats:
    """Strip (A + 1, T, 3) from the outline backwards, drawn in so that it hides behind a frontal face."""
    back = np.linspace(0, 1, 8)[None, :, None]
    rim = np.concatenate([outline_A3, outline_A3[:1]])[:, None]
    towards = np.array([0.0, 0.30, -0.45])
    strip: Floats = rim + (towards - rim) * np.concatenate([0.10 * back**2, 0.16 * back**2, 0.5 * back], -1)
    return strip


Change = Callable[[Floats, Floats, Floats], Floats]


def _shift(x: Floats | float = 0.0, y: Floats | float = 0.0, z: Floats | float = 0.0) -> Floats:
    x, y, z = np.broadcast_arrays(x, y, z)
    return np.stack([x, y, z], axis=-1)


def _jaw_weight(p: Floats, lower: Floats) -> Floats:
    """How far points (..., 3) follow the opening jaw."""
    inside = 1 - ramp(np.abs(p[..., 0]), 0.14, 0.40)
    weight: Floats = inside * lower + (1 - inside) * ramp(p[..., 1], 0.50, 1.08)
    return weight


def _bases() -> dict[str, Change]:
    """Named changes: canonical points (..., 3), relative radius (...,), jaw share (...,) to (..., 3)."""

    def eye(p: Floats) -> Floats:
        return bump(p, 0.36, 0.0, 0.17, 0.075, both=True)

    def brow(p: Floats) -> Floats:
        return bump(p, 0.40, -0.21, 0.24, 0.08, both=True)

    def mouth(p: Floats) -> Floats:
        return bump(p, 0.0, 0.78, 0.30, 0.12)

    def corner(p: Floats, wide: float = 0.11) -> Floats:
        return bump(p, 0.315, 0.755, wide, 0.09, both=True)

    def side(p: Floats) -> Floats:
        return np.tanh(p[..., 0] / 0.05)

    def nose(p: Floats) -> Floats:
        return bump(p, 0.0, 0.44, 0.15, 0.13)

    return {
        # identity
        "face_width": lambda p, r, j: _shift(0.055 * p[..., 0] * ramp(r, 0.45, 1.0)),
        "face_length": lambda p, r, j: _shift(y=0.085 * np.maximum(p[..., 1] - 0.3, 0)),
        "middle_length": lambda p, r, j: _shift(y=0.03 * ramp(p[..., 1], 0.0, 0.5)),
        "jaw_width": lambda p, r, j: _shift(0.08 * p[..., 0] * ramp(r, 0.5, 1) * ramp(p[..., 1], 0.3, 1.0)),
        "chin_width": lambda p, r, j: _shift(
            0.045 * np.tanh(p[..., 0] / 0.3) * ramp(r, 0.6, 1) * ramp(p[..., 1], 0.80, 1.10)
        ),
        "chin_depth": lambda p, r, j: _shift(z=0.05 * ramp(p[..., 1], 0.8, 1.15)),
        "cheeks": lambda p, r, j: _shift(
            0.03 * side(p) * bump(p, 0.72, 0.55, 0.2, 0.25, both=True),
            z=0.035 * bump(p, 0.5, 0.5, 0.2, 0.25, both=True),
        ),
        "forehead": lambda p, r, j: _shift(y=0.08 * np.minimum(p[..., 1] + 0.35, 0)),
        "depth": lambda p, r, j: _shift(z=0.08 * (p[..., 2] - 0.7)),
        "eye_gap": lambda p, r, j: _shift(0.014 * side(p) * eye(p)),
        "eye_size": lambda p, r, j: _shift(
            0.06 * side(p) * (np.abs(p[..., 0]) - 0.36) * eye(p), 0.12 * p[..., 1] * eye(p)
        ),
        "eye_tilt": lambda p, r, j: _shift(y=-0.09 * (np.abs(p[..., 0]) - 0.36) * eye(p)),
        "eye_depth": lambda p, r, j: _shift(z=-0.03 * eye(p)),
        "brow_height": lambda p, r, j: _shift(y=-0.028 * brow(p)),
        "brow_arch": lambda p, r, j: _shift(y=-0.022 * bump(p, 0.47, -0.22, 0.10, 0.08, both=True)),
        "brow_tilt": lambda p, r, j: _shift(y=0.08 * (np.abs(p[..., 0]) - 0.40) * brow(p)),
        "brow_gap": lambda p, r, j: _shift(0.02 * side(p) * brow(p)),
        "brow_thick": lambda p, r, j: _shift(),  # on the lower curve only, see _add_lid_changes
        "nose_length": lambda p, r, j: _shift(y=0.035 * nose(p)),
        "nose_width": lambda p, r, j: _shift(0.13 * p[..., 0] * nose(p)),
        "nose_height": lambda p, r, j: _shift(z=0.045 * bump(p, 0, 0.40, 0.12, 0.13)),
        "nose_tip": lambda p, r, j: _shift(y=-0.028 * bump(p, 0, 0.42, 0.07, 0.06)),
        "nose_hump": lambda p, r, j: _shift(z=0.025 * bump(p, 0, 0.17, 0.07, 0.1)),
        "mouth_width": lambda p, r, j: _shift(0.10 * p[..., 0] * mouth(p)),
        "mouth_height": lambda p, r, j: _shift(y=0.022 * mouth(p)),
        "lip_thick": lambda p, r, j: _shift(y=0.20 * (p[..., 1] - LIP_LINE) * bump(p, 0, 0.77, 0.3, 0.09)),
        "lip_lower": lambda p, r, j: _shift(y=0.20 * np.maximum(p[..., 1] - LIP_LINE, 0) * bump(p, 0, 0.8, 0.3, 0.09)),
        "skew": lambda p, r, j: _shift(0.014 * bump(p, 0, 0.6, 0.5, 0.3)),
        # expression
        "jaw_open": lambda p, r, j: _shift(
            y=0.25 * _jaw_weight(p, j) - 0.012 * (1 - j) * bump(p, 0, 0.72, 0.2, 0.06),
            z=-0.06 * _jaw_weight(p, j),
        ),
        "jaw_side": lambda p, r, j: _shift(0.06 * _jaw_weight(p, j)),
        "smile": lambda p, r, j: _shift(
            0.075 * side(p) * corner(p, 0.13),
            -0.045 * corner(p) + 0.018 * bump(p, 0, 0.74, 0.12, 0.08),
            -0.05 * corner(p) + 0.03 * bump(p, 0.42, 0.42, 0.12, 0.12, both=True),
        ),
        "frown": lambda p, r, j: _shift(0.0, 0.035 * corner(p), 0.0),
        "pucker": lambda p, r, j: _shift(-0.30 * p[..., 0] * mouth(p), 0.0, 0.06 * mouth(p)),
        "lip_raise": lambda p, r, j: _shift(y=-0.045 * (1 - j) * bump(p, 0, 0.72, 0.17, 0.07)),
        "lip_drop": lambda p, r, j: _shift(y=0.045 * j * bump(p, 0, 0.81, 0.17, 0.08)),
        "brow_up": lambda p, r, j: _shift(y=-0.075 * brow(p)),
        "brow_down": lambda p, r, j: _shift(
            -0.018 * side(p) * brow(p), 0.05 * bump(p, 0.25, -0.2, 0.2, 0.075, both=True)
        ),
        "brow_inner": lambda p, r, j: _shift(y=-0.055 * bump(p, 0.17, -0.18, 0.10, 0.08, both=True)),
        "brow_lift": lambda p, r, j: _shift(y=-0.05 * bump(p, -0.42, -0.21, 0.2, 0.08)),
        # lids and pupils, see _add_lid_changes
        "close_l": lambda p, r, j: _shift(),
        "close_r": lambda p, r, j: _shift(),
        "squint": lambda p, r, j: _shift(),
        "gaze_x": lambda p, r, j: _shift(),
        "gaze_y": lambda p, r, j: _shift(),
    }


def _add_lid_changes(
    marks_K3: Floats, marks_CK3: Floats, names: tuple[str, ...], at: Mapping[str, NDArray[np.intp]]
) -> None:
    """Changes that move single curves against the skin: lids, pupils, brow thickness."""
    row = names.index
    for k, side in enumerate("lr"):
        upper, lower, pupil = at[f"lid_upper_{side}"], at[f"lid_lower_{side}"], at["pupil"][k]
        gap = marks_K3[lower] - marks_K3[upper]
        marks_CK3[row(f"close_{side}"), upper] = gap
        marks_CK3[row(f"close_{side}"), at[f"crease_{side}"]] = 0.35 * gap
        marks_CK3[row(f"close_{side}"), pupil, 1] = 0.036
        marks_CK3[row("squint"), lower] = -0.28 * gap
        marks_CK3[row("gaze_x"), pupil, 0] = 0.030
        marks_CK3[row("gaze_y"), pupil, 1] = 0.012
        arch = np.sin(np.linspace(0.05, 0.9, 13) * np.pi) * 0.014
        marks_CK3[row("brow_thick"), at[f"brow_lower_{side}"], 1] = arch
