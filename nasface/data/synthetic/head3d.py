"""A parametric 3-D head: a neutral surface with its curves, and linear changes of shape and expression.

Everything lives in one canonical frame: x to the viewer's right, y down, z towards the viewer; the unit is the distance
between the outer eye corners of the mean face, the origin lies midway between them. Shape and expression are linear:
points = neutral + sum of coefficient * basis. Every basis is a smooth function of the canonical position, so that
landmarks and the rendered surface move together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from nasface.data.synthetic.anatomy import CENTRE, LIP_LINE, disc_grid, disc_of, ears, lift, marks, outline, skirt
from nasface.data.synthetic.movements import add_lid_changes, bases
from nasface.data.synthetic.smooth import Floats

_ARC_RADII = np.sin(np.radians(np.arange(90, 22, -6)))  # evenly spaced in angle, as the dome is steep at its rim


@dataclass(frozen=True)
class Head:
    """The linear model at its sample points.

    Attributes:
        names: name of each of the C coefficients.
        marks_K3: neutral points on the curves; `at` names groups of rows.
        arcs_AR3: neutral arcs, outermost point first. The first 65 arcs start on the jaw line from the
            viewer's left temple over the chin to the right one, the rest go on over the vertex.
        points_N3: marks and arcs in one table.
        points_CN: their bases (N counts coordinates).
        mesh_HW3: neutral surface grid.
        skirt_ST3: strip that runs from the outline backwards (cheek to ear, jaw to neck).
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
        """Return a vector (C,) of named values; coefficients without a value are zero."""
        return np.array([values.get(name, 0.0) for name in self.names])

    def surface(self, change_C: Floats) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the grid (H, W, 3) and the skirt (S, T, 3) of a changed head, in head units."""
        moved = (change_C.astype(np.float32) @ self.surface_CN).reshape(-1, 3)
        count = self.mesh_HW3.shape[0] * self.mesh_HW3.shape[1]
        grid = self.mesh_HW3 + moved[:count].reshape(self.mesh_HW3.shape)
        return grid, self.skirt_ST3 + moved[count:].reshape(self.skirt_ST3.shape)


@lru_cache(maxsize=1)
def head() -> Head:
    """Build the model, once per process."""
    outline_A3 = outline()
    radii_R = _ARC_RADII
    arcs_xy = CENTRE + (outline_A3[:, None, :2] - CENTRE) * radii_R[:, None]
    arcs_AR3 = lift(arcs_xy, np.broadcast_to(radii_R, arcs_xy.shape[:2]), outline_A3[:, None, 2])
    mesh_xy, mesh_r, rim_z = disc_grid(100, 84)
    mesh_HW3 = lift(mesh_xy, mesh_r, rim_z)
    marks_xy, lower_K, at = marks()
    marks_K3 = lift(marks_xy, *disc_of(marks_xy))
    ears_K3 = ears()
    skirt_ST3 = skirt(outline_A3)

    at["ear_l"] = np.arange(len(ears_K3) // 2) + len(marks_K3)
    at["ear_r"] = at["ear_l"] + len(ears_K3) // 2
    marks_K3 = np.concatenate([marks_K3, ears_K3])
    lower_K = np.concatenate([lower_K, np.zeros(len(ears_K3))])
    changes_by_name = bases()
    names = tuple(changes_by_name)

    def changes(points: Floats, radius: Floats, lower: Floats) -> Floats:
        return np.stack([np.broadcast_to(changes_by_name[name](points, radius, lower), points.shape) for name in names])

    mesh_lower = (mesh_xy[..., 1] > LIP_LINE).astype(float)
    marks_radius = np.concatenate([disc_of(marks_xy)[0], np.ones(len(ears_K3))])
    marks_CK3 = changes(marks_K3, marks_radius, lower_K)
    add_lid_changes(marks_K3, marks_CK3, names, at)
    arcs_lower = (arcs_xy[..., 1] > LIP_LINE).astype(float)
    arcs_CAR3 = changes(arcs_AR3, np.broadcast_to(radii_R, arcs_xy.shape[:2]), arcs_lower)
    # The skirt follows the outline that it hangs on.
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
