"""Smooth functions that the head is made of: hills, steps and curves."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def bump(xy: Floats, x: float, y: float, wide: float, high: float, *, both: bool = False) -> Floats:
    """Return a Gaussian hill (...,) of height 1 over canonical positions (..., 2); `both` mirrors it in x."""
    across = np.abs(xy[..., 0]) - x if both else xy[..., 0] - x
    hill: Floats = np.exp(-0.5 * ((across / wide) ** 2 + ((xy[..., 1] - y) / high) ** 2))
    return hill


def ramp(value: Floats, start: float, stop: float) -> Floats:
    """Return a smooth step from 0 at `start` to 1 at `stop`."""
    t = np.clip((value - start) / (stop - start), 0.0, 1.0)
    step: Floats = t * t * (3 - 2 * t)
    return step


def spline(points: Floats, per: int, *, closed: bool = False) -> Floats:
    """Return a Catmull-Rom curve through points (n, d) with `per` samples per stretch, control points included."""
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
