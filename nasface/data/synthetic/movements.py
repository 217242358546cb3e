"""How a head changes: the bases of identity and expression, each a smooth function of the canonical position."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from nasface.data.synthetic.anatomy import LIP_LINE
from nasface.data.synthetic.smooth import Floats, bump, ramp

Change = Callable[[Floats, Floats, Floats], Floats]
"""From canonical points (..., 3), relative radius (...,) and share in the lower jaw (...,) to offsets (..., 3)."""


def _shift(x: Floats | float = 0.0, y: Floats | float = 0.0, z: Floats | float = 0.0) -> Floats:
    x, y, z = np.broadcast_arrays(x, y, z)
    return np.stack([x, y, z], axis=-1)


def _jaw_weight(p: Floats, lower: Floats) -> Floats:
    """Return how far points (..., 3) follow the opening jaw."""
    inside = 1 - ramp(np.abs(p[..., 0]), 0.14, 0.40)
    weight: Floats = inside * lower + (1 - inside) * ramp(p[..., 1], 0.50, 1.08)
    return weight


def _eye(p: Floats) -> Floats:
    return bump(p, 0.36, 0.0, 0.17, 0.075, both=True)


def _brow(p: Floats) -> Floats:
    return bump(p, 0.40, -0.21, 0.24, 0.08, both=True)


def _mouth(p: Floats) -> Floats:
    return bump(p, 0.0, 0.78, 0.30, 0.12)


def _corner(p: Floats, wide: float = 0.11) -> Floats:
    return bump(p, 0.315, 0.755, wide, 0.09, both=True)


def _side(p: Floats) -> Floats:
    return np.tanh(p[..., 0] / 0.05)


def _nose(p: Floats) -> Floats:
    return bump(p, 0.0, 0.44, 0.15, 0.13)


def bases() -> dict[str, Change]:
    """Return all changes by name."""
    return _identity() | _expression()


def _identity() -> dict[str, Change]:
    """Return the changes that tell people apart."""
    return {
        "face_width": lambda p, r, j: _shift(0.055 * p[..., 0] * ramp(r, 0.45, 1.0)),
        "face_length": lambda p, r, j: _shift(y=0.085 * np.maximum(p[..., 1] - 0.3, 0)),
        "middle_length": lambda p, r, j: _shift(y=0.03 * ramp(p[..., 1], 0.0, 0.5)),
        "jaw_width": lambda p, r, j: _shift(0.08 * p[..., 0] * ramp(r, 0.5, 1) * ramp(p[..., 1], 0.3, 1.0)),
        "chin_width": lambda p, r, j: _shift(
            0.045 * np.tanh(p[..., 0] / 0.3) * ramp(r, 0.6, 1) * ramp(p[..., 1], 0.80, 1.10)
        ),
        "chin_depth": lambda p, r, j: _shift(z=0.05 * ramp(p[..., 1], 0.8, 1.15)),
        "cheeks": lambda p, r, j: _shift(
            0.03 * _side(p) * bump(p, 0.72, 0.55, 0.2, 0.25, both=True),
            z=0.035 * bump(p, 0.5, 0.5, 0.2, 0.25, both=True),
        ),
        "forehead": lambda p, r, j: _shift(y=0.08 * np.minimum(p[..., 1] + 0.35, 0)),
        "depth": lambda p, r, j: _shift(z=0.08 * (p[..., 2] - 0.7)),
        "eye_gap": lambda p, r, j: _shift(0.014 * _side(p) * _eye(p)),
        "eye_size": lambda p, r, j: _shift(
            0.06 * _side(p) * (np.abs(p[..., 0]) - 0.36) * _eye(p), 0.12 * p[..., 1] * _eye(p)
        ),
        "eye_tilt": lambda p, r, j: _shift(y=-0.09 * (np.abs(p[..., 0]) - 0.36) * _eye(p)),
        "eye_depth": lambda p, r, j: _shift(z=-0.03 * _eye(p)),
        "brow_height": lambda p, r, j: _shift(y=-0.036 * _brow(p)),
        "brow_arch": lambda p, r, j: _shift(y=-0.026 * bump(p, 0.47, -0.22, 0.10, 0.08, both=True)),
        "brow_tilt": lambda p, r, j: _shift(y=0.13 * (np.abs(p[..., 0]) - 0.40) * _brow(p)),
        "brow_gap": lambda p, r, j: _shift(0.032 * _side(p) * _brow(p)),
        "brow_thick": lambda p, r, j: _shift(),  # on the lower curve only, see add_lid_changes
        "nose_length": lambda p, r, j: _shift(y=0.035 * _nose(p)),
        "brow_length": lambda p, r, j: _shift(0.10 * _side(p) * (np.abs(p[..., 0]) - 0.40) * _brow(p)),
        "brow_end": lambda p, r, j: _shift(y=-0.04 * bump(p, 0.66, -0.15, 0.10, 0.06, both=True)),
        "nose_width": lambda p, r, j: _shift(0.16 * p[..., 0] * _nose(p)),
        "nose_height": lambda p, r, j: _shift(z=0.045 * bump(p, 0, 0.40, 0.12, 0.13)),
        "nose_tip": lambda p, r, j: _shift(y=-0.028 * bump(p, 0, 0.42, 0.07, 0.06)),
        "nose_hump": lambda p, r, j: _shift(z=0.025 * bump(p, 0, 0.17, 0.07, 0.1)),
        "mouth_width": lambda p, r, j: _shift(0.13 * p[..., 0] * _mouth(p)),
        "mouth_height": lambda p, r, j: _shift(y=0.032 * _mouth(p)),
        "lip_thick": lambda p, r, j: _shift(y=0.20 * (p[..., 1] - LIP_LINE) * bump(p, 0, 0.77, 0.3, 0.09)),
        "lip_lower": lambda p, r, j: _shift(y=0.20 * np.maximum(p[..., 1] - LIP_LINE, 0) * bump(p, 0, 0.8, 0.3, 0.09)),
        "skew": lambda p, r, j: _shift(0.014 * bump(p, 0, 0.6, 0.5, 0.3)),
        "lean": lambda p, r, j: _shift(0.032 * p[..., 1]),
        "eye_inner": lambda p, r, j: _shift(
            0.014 * _side(p) * bump(p, 0.21, 0.02, 0.06, 0.06, both=True),
            0.008 * bump(p, 0.21, 0.02, 0.06, 0.06, both=True),
        ),
    }


def _expression() -> dict[str, Change]:
    """Return the changes that one person's face can make."""
    return {
        "jaw_open": lambda p, r, j: _shift(
            y=0.25 * _jaw_weight(p, j) - 0.012 * (1 - j) * bump(p, 0, 0.72, 0.2, 0.06),
            z=-0.06 * _jaw_weight(p, j),
        ),
        "jaw_side": lambda p, r, j: _shift(0.06 * _jaw_weight(p, j)),
        "smile": lambda p, r, j: _shift(
            0.075 * _side(p) * _corner(p, 0.13),
            -0.045 * _corner(p) + 0.018 * bump(p, 0, 0.74, 0.12, 0.08),
            -0.05 * _corner(p) + 0.03 * bump(p, 0.42, 0.42, 0.12, 0.12, both=True),
        ),
        "frown": lambda p, r, j: _shift(0.0, 0.035 * _corner(p), 0.0),
        "pucker": lambda p, r, j: _shift(-0.30 * p[..., 0] * _mouth(p), 0.0, 0.06 * _mouth(p)),
        "lip_raise": lambda p, r, j: _shift(y=-0.045 * (1 - j) * bump(p, 0, 0.72, 0.17, 0.07)),
        "lip_drop": lambda p, r, j: _shift(y=0.045 * j * bump(p, 0, 0.81, 0.17, 0.08)),
        "brow_up": lambda p, r, j: _shift(y=-0.075 * _brow(p)),
        "brow_down": lambda p, r, j: _shift(
            -0.018 * _side(p) * _brow(p), 0.05 * bump(p, 0.25, -0.2, 0.2, 0.075, both=True)
        ),
        "brow_inner": lambda p, r, j: _shift(y=-0.055 * bump(p, 0.17, -0.18, 0.10, 0.08, both=True)),
        "brow_lift": lambda p, r, j: _shift(y=-0.05 * bump(p, -0.42, -0.21, 0.2, 0.08)),
        # lids and pupils, see add_lid_changes
        "close_l": lambda p, r, j: _shift(),
        "close_r": lambda p, r, j: _shift(),
        "squint": lambda p, r, j: _shift(),
        "gaze_x": lambda p, r, j: _shift(),
        "gaze_y": lambda p, r, j: _shift(),
    }


def add_lid_changes(
    marks_K3: Floats, marks_CK3: Floats, names: tuple[str, ...], at: Mapping[str, NDArray[np.intp]]
) -> None:
    """Fill in the changes that move single curves against the skin: lids, pupils and the thickness of the brows."""
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
