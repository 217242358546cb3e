"""The head in front of a camera: pose, perspective, the visible outline and the landmarks of a scheme.

The contour needs care, because annotators mark the visible outline. An arc of surface points runs from each point
of the jaw line towards the nose; after projection, the outermost point of the arc is on the visible outline
(`silhouette`). On the side that is turned to the camera, that is the jaw line itself. Along the outline, annotators
space the contour landmarks evenly between ear and chin, whatever the pose (`evenly`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from nasface.data.synthetic.anatomy import outward
from nasface.data.synthetic.head3d import head
from nasface.data.synthetic.smooth import Floats

CHIN = 32  # its number on the outline, which begins at the viewer's left temple
PIVOT = (0.0, 0.30, 0.35)  # the head turns about this point


@dataclass(frozen=True)
class Camera:
    """A weak-perspective camera in front of a turned head.

    Attributes:
        rotation_33: from the head's frame to the camera's.
        distance: from the head's pivot to the camera, in head units.
        scale: pixels per head unit at the pivot.
        shift: x and y of the pivot in pixels.
    """

    rotation_33: Floats
    distance: float
    scale: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)

    def turn(self, points: NDArray[np.floating]) -> NDArray[np.floating]:
        """Convert points (..., 3) from the head's frame to the camera's, relative to the pivot."""
        pivot = np.asarray(PIVOT, points.dtype)
        return (points - pivot) @ self.rotation_33.T.astype(points.dtype)

    def flatten(self, turned: NDArray[np.floating]) -> NDArray[np.floating]:
        """Project turned points (..., 3) to pixels (..., 2)."""
        zoom = self.scale * self.distance / (self.distance - turned[..., 2:])
        flat: NDArray[np.floating] = turned[..., :2] * zoom + np.asarray(self.shift, turned.dtype)
        return flat

    def project(self, points: NDArray[np.floating]) -> NDArray[np.floating]:
        """Project points (..., 3) of the head's frame to pixels (..., 2)."""
        return self.flatten(self.turn(points))


@dataclass(frozen=True)
class Figure:
    """A head of one shape in one pose, projected.

    Attributes:
        change_C: coefficients of the model.
        camera: the projection.
        roll: of the head in degrees.
        marks_K2: points on the curves, in pixels.
        arcs_AR2: arcs in pixels.
        outline_A2: the visible outline of the head, closed; the first 65 points are the jaw line.
        reach_A: position of each outline point along its arc.
    """

    change_C: Floats
    camera: Camera
    roll: float
    marks_K2: Floats
    arcs_AR2: Floats
    outline_A2: Floats
    reach_A: Floats

    def placed(self, scale: float, shift: tuple[float, float]) -> Figure:
        """Return the same figure, enlarged and moved; weak perspective is linear in both."""
        camera = Camera(self.camera.rotation_33, self.camera.distance, self.camera.scale * scale, shift)
        flat = (self.marks_K2, self.arcs_AR2, self.outline_A2)
        marks, arcs, outline = ((part - self.camera.shift) * scale + shift for part in flat)
        return Figure(self.change_C, camera, self.roll, marks, arcs, outline, self.reach_A)


def figure(change_C: Floats, camera: Camera, roll: float) -> Figure:
    """Shape, turn and project the curves and arcs of the model."""
    model = head()
    moved = model.points_N3 + (change_C @ model.points_CN).reshape(-1, 3)
    flat = camera.project(moved).astype(np.float64)
    marks = flat[: len(model.marks_K3)]
    arcs = flat[len(model.marks_K3) :].reshape(*model.arcs_AR3.shape[:2], 2)
    outline, reach = silhouette(arcs, roll)
    return Figure(change_C, camera, roll, marks, arcs, outline, reach)


def rotation(yaw: float, pitch: float, roll: float) -> Floats:
    """Return the rotation (3, 3) for angles in degrees; positive yaw turns the nose to the viewer's right."""
    (cy, cp, cr), (sy, sp, sr) = (f(np.radians((yaw, pitch, roll))) for f in (np.cos, np.sin))
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    turn: Floats = about_z @ about_x @ about_y
    return turn


def silhouette(arcs_AR2: Floats, roll: float) -> tuple[Floats, Floats]:
    """Find the outermost point of each projected arc.

    Args:
        arcs_AR2: projected arcs, outermost surface point first.
        roll: of the head in degrees.

    Returns:
        Points (A, 2) in pixels and their fractional positions (A,) along the arcs.
    """
    outward_A2 = outward()
    cos, sin = np.cos(np.radians(roll)), np.sin(np.radians(roll))
    turned_A2 = outward_A2 @ np.array([[cos, sin], [-sin, cos]])
    reach_AR = np.einsum("ard,ad->ar", arcs_AR2, turned_A2)
    last = reach_AR.shape[1] - 1
    best = np.argmax(reach_AR, axis=1)
    rows = np.arange(len(best))
    mid = np.clip(best, 1, last - 1)
    # With a parabola through the three samples around the maximum, the outline moves smoothly with the pose.
    before, here, after = (reach_AR[rows, mid + step] for step in (-1, 0, 1))
    bend = before - 2 * here + after
    peak = np.where(np.abs(bend) > 1e-9, 0.5 * (before - after) / np.where(bend == 0, 1.0, bend), 0.0)
    offset = np.where(best == mid, np.clip(peak, -1, 1), best - mid)
    weights = np.stack([offset * (offset - 1) / 2, 1 - offset**2, offset * (offset + 1) / 2], axis=-1)
    around = np.stack([arcs_AR2[rows, mid + step] for step in (-1, 0, 1)], axis=1)
    return np.einsum("ak,akd->ad", weights, around), mid + offset


def along_arcs(arcs_AR2: Floats, position_A: Floats) -> Floats:
    """Return points (A, 2) at fractional positions along each arc, by linear interpolation."""
    last = arcs_AR2.shape[1] - 1
    low = np.clip(np.floor(position_A), 0, last - 1).astype(np.intp)
    part = np.clip(position_A - low, 0, 1)[:, None]
    rows = np.arange(len(arcs_AR2))
    return arcs_AR2[rows, low] * (1 - part) + arcs_AR2[rows, low + 1] * part


def landmarks(figure: Figure, count: int) -> Floats:
    """Return the landmarks (count, 2) of a scheme in pixels.

    Points that the turned head hides are moved to the visible outline, where annotators put them; only the nose may
    stand out.
    """
    steps, pairs = _rows(count)
    rest = (figure.marks_K2[pairs[:, 0]] + figure.marks_K2[pairs[:, 1]]) / 2
    nose = head().at["bridge"][0], head().at["base"][-1]
    free = (pairs[:, 0] >= nose[0]) & (pairs[:, 0] <= nose[1])
    rest = np.where(free[:, None], rest, _within(rest, figure))
    if not steps:
        return np.concatenate([rest, figure.outline_A2[[CHIN]]])
    jaw = figure.outline_A2[: 2 * CHIN + 1]
    left, right = evenly(jaw[: CHIN + 1], steps), evenly(jaw[CHIN:], steps)
    return np.concatenate([left, right[1:], rest])


def evenly(curve_N2: Floats, steps: int) -> Floats:
    """Return points (steps + 1, 2) that divide a curve into pieces of the same length."""
    length_N = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(curve_N2, axis=0).T))])
    wanted = np.linspace(0, length_N[-1], steps + 1)
    return np.stack([np.interp(wanted, length_N, curve_N2[:, k]) for k in range(2)], axis=-1)


def _within(points_N2: Floats, figure: Figure) -> Floats:
    """Move points that lie outside the outline sideways onto it, in the head's own directions."""
    cos, sin = np.cos(np.radians(figure.roll)), np.sin(np.radians(figure.roll))
    upright = np.array([[cos, -sin], [sin, cos]])
    points, outline = points_N2 @ upright, figure.outline_A2 @ upright
    # Both sides from the top of the head down to the chin.
    sides = np.concatenate([outline[88:], outline[:33]]), outline[80:31:-1]
    low, high = (np.interp(points[:, 1], np.maximum.accumulate(side[:, 1]), side[:, 0]) for side in sides)
    points[:, 0] = np.clip(points[:, 0], low, np.maximum(low, high))
    inside: Floats = points @ upright.T
    return inside


@lru_cache(maxsize=8)
def _rows(count: int) -> tuple[int, NDArray[np.intp]]:
    """Say where on the curves the landmarks of a scheme lie.

    Args:
        count: 68, 98 or 29 landmarks.

    Returns:
        The number of steps from an end of the contour to the chin, and pairs of rows of `marks_K3` (n, 2), the means
        of which are the other landmarks. The contour comes first; with 29 landmarks (0 steps) it is the chin alone,
        which comes last.
    """
    if count == 29:
        return 0, np.array(_rows_29(), np.intp)
    return 8 if count == 68 else 16, np.array(_rows_68_98(count), np.intp)


def _rows_29() -> list[tuple[int, int]]:
    at = head().at
    rows: list[tuple[int, int]] = []
    for position in (0, 12):
        for side in "lr":
            upper, lower = at[f"brow_upper_{side}"], at[f"brow_lower_{side}"]
            rows += [(int(upper[position]), int(lower[position]))]
    for side in "lr":
        rows += _take(f"brow_upper_{side}", 6)
        rows += _take(f"brow_lower_{side}", 6)
    for position in (0, 12):
        for side in "lr":
            rows += _take(f"lid_upper_{side}", position)
    for side in "lr":
        rows += _take(f"lid_upper_{side}", 6)
        rows += _take(f"lid_lower_{side}", 6)
    rows += _take("pupil", 0, 1)
    rows += _take("ala", 0, 1)
    rows += _take("bridge", 3)
    rows += _take("base", 2)
    rows += _take("lip_outer_upper", 0, 12)
    rows += _take("lip_outer_upper", 6)
    rows += _take("lip_inner_upper", 6)
    rows += _take("lip_inner_lower", 6)
    rows += _take("lip_outer_lower", 6)
    return rows


def _rows_68_98(count: int) -> list[tuple[int, int]]:
    rows: list[tuple[int, int]] = []
    rows += _take("brow_upper_l", 0, 3, 6, 9, 12)
    if count == 98:
        rows += _take("brow_lower_l", 12, 9, 6, 3)
    rows += _take("brow_upper_r", 12, 9, 6, 3, 0)
    if count == 98:
        rows += _take("brow_lower_r", 3, 6, 9, 12)
    rows += _take("bridge", 0, 1, 2, 3)
    rows += _take("base", 0, 1, 2, 3, 4)
    lids = (3, 6, 9) if count == 98 else (4, 8)
    rows += _take("lid_upper_l", 0, *lids, 12)
    rows += _take("lid_lower_l", *reversed(lids))
    rows += _take("lid_upper_r", 12, *reversed(lids), 0)
    rows += _take("lid_lower_r", *lids)
    rows += _take("lip_outer_upper", *range(0, 13, 2))
    rows += _take("lip_outer_lower", *range(10, 0, -2))
    rows += _take("lip_inner_upper", 0, 3, 6, 9, 12)
    rows += _take("lip_inner_lower", 9, 6, 3)
    if count == 98:
        rows += _take("pupil", 0, 1)
    return rows


def _take(name: str, *positions: int) -> list[tuple[int, int]]:
    return [(int(row), int(row)) for row in head().at[name][list(positions)]]
