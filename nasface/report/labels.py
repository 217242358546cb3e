"""Names beside the points of a chart, each placed where it covers as little as possible."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from nasface.report import Colour

__all__ = ["Label", "place_labels"]


@dataclass(frozen=True)
class Label:
    """A name beside a point.

    Attributes:
        text: the name.
        xy: the point, in the units of the data.
        radius: of the point's marker, in typographic points.
        colour: of the text.
        optional: leave the label out where there is no free place close by.
    """

    text: str
    xy: tuple[float, float]
    radius: float
    colour: str = Colour.black
    optional: bool = False


def place_labels(axes: Axes, labels: Sequence[Label], keep_clear_N2: NDArray[np.float64], size: float = 5.5) -> None:
    """Write each label where it covers least of earlier labels, of the labels' circles, and of points to keep clear.

    A label is written inside its circle if it fits, and one that has to move away gets a thin line to its point. The
    figure must be settled.

    Args:
        axes: to write on.
        labels: in the order in which they are placed.
        keep_clear_N2: points that no label should cover, in the units of the data.
        size: of the text.
    """
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    point = figure.dpi / 72  # pixels
    around = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    centres_L2 = axes.transData.transform(np.reshape([label.xy for label in labels], (-1, 2)))
    radii_L = point * np.array([label.radius for label in labels])
    circles_L24 = centres_L2[:, None] + radii_L[:, None, None] * np.column_stack([np.cos(around), np.sin(around)])
    busy = np.vstack([axes.transData.transform(np.reshape(keep_clear_N2, (-1, 2))), circles_L24.reshape(-1, 2)])
    busy_M4 = np.hstack([busy - point, busy + point])
    taken_K4 = np.empty((0, 4))
    frame_14 = np.array([axes.get_window_extent().extents])
    angles, distances = np.deg2rad([0, 45, 315, 90, 270, 135, 225, 180]), np.array([1.5, 5.0, 10.0, 16.0, 23.0])
    directions_C2 = np.tile(np.column_stack([np.cos(angles), np.sin(angles)]).round(6), (len(distances), 1))
    gaps_C = np.append(np.repeat(distances, len(angles)), 0) * point  # the last place is inside the circle
    for label, centre, radius in zip(labels, centres_L2, radii_L, strict=True):
        measured = axes.text(0, 0, label.text, fontsize=size)
        half = np.array(measured.get_window_extent().size) / 2
        measured.remove()
        beside_C2 = directions_C2 * (radius + gaps_C[:-1, None]) + np.sign(directions_C2) * half
        offsets_C2 = np.vstack([beside_C2, [0, 0]])
        low = centre + offsets_C2 - half
        boxes_C4, area = np.hstack([low, low + 2 * half]), 4 * half.prod()
        covered_C = 4 * _overlap(boxes_C4, taken_K4).sum(axis=1) + 2 * _overlap(boxes_C4, busy_M4).sum(axis=1)
        covered_C += 20 * (area - _overlap(boxes_C4, frame_14)[:, 0])
        best = int(np.argmin(covered_C + gaps_C * 0.5 * point))
        is_far = bool(gaps_C[best] >= 10 * point)
        if label.optional and (is_far or covered_C[best] > 0.2 * area):
            continue
        line = {"arrowstyle": "-", "linewidth": 0.4, "color": Colour.grey, "shrinkA": 0, "shrinkB": label.radius}
        axes.annotate(
            label.text, label.xy, tuple(offsets_C2[best] / point), textcoords="offset points", ha="center",
            va="center", fontsize=size, color=label.colour, zorder=6,
            arrowprops=line if is_far else None,
        )  # fmt: skip
        taken_K4 = np.vstack([taken_K4, boxes_C4[best]])


def _overlap(boxes_C4: NDArray[np.float64], others_M4: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (C, M) the area that each pair of boxes (left, bottom, right, top) shares."""
    low = np.maximum(boxes_C4[:, None, :2], others_M4[None, :, :2])
    high = np.minimum(boxes_C4[:, None, 2:], others_M4[None, :, 2:])
    shared: NDArray[np.float64] = np.clip(high - low, 0, None).prod(axis=2)
    return shared
