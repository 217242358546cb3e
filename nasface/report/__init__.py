"""Figures and reports: what all figures share, their style and how they are written. No display, no pyplot state."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import ParamSpec
from xml.etree import ElementTree

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from nasface.errors import RunError
from nasface.rundir import atomic

__all__ = ["COLUMN", "PAGE", "Colour", "Label", "place_labels", "save", "settle", "styled", "svg", "write"]

COLUMN, PAGE = 3.5, 7.16  # inches: one column of a two-column paper, and both


class Colour:
    """Okabe and Ito's palette (2008), which colour-blind readers can tell apart, and two greys."""

    black, grey, light = "#000000", "#8a8a8a", "#e9e9e9"
    orange, sky, green, yellow = "#E69F00", "#56B4E9", "#009E73", "#F0E442"
    blue, red, purple = "#0072B2", "#D55E00", "#CC79A7"
    cycle = (blue, red, green, orange, purple, sky)


STYLE = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # matplotlib brings it along: the same figure on every machine
    "font.size": 7,
    "axes.titlesize": 7.5,
    "axes.labelsize": 7,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "legend.fontsize": 6.5,
    "legend.frameon": False,
    "lines.linewidth": 1.0,
    "lines.markersize": 3.5,
    "text.parse_math": False,  # a '$' in a name is a '$'
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "nasface",  # ids by content, not by chance
    "pdf.fonttype": 42,
}
_FORMATS = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}, ".png": {}}
_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"

P = ParamSpec("P")


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """A function that draws a figure in the style of all, whatever the user's matplotlibrc says, and lays it out."""

    @wraps(draw)
    def call(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with style.context(["default", STYLE]):
            figure = draw(*args, **kwargs)
            settle(figure)
        return figure

    return call


def settle(figure: Figure) -> None:
    """Lay the figure out now and for good: places on it are final, and every save gives the same."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")


def write(figure: Figure, path: Path) -> Path:
    """Write a figure atomically as .svg, .pdf or .png (200 dpi), the same bytes every time; gives `path`.

    Raises:
        RunError: for another suffix, or when the file cannot be written.
    """
    kind = path.suffix.lower()
    if kind not in _FORMATS:
        raise RunError(f"cannot write a figure as '{path.name}'; give a name that ends in {', '.join(_FORMATS)}")
    with atomic(path) as temporary, style.context(["default", STYLE]):
        figure.savefig(temporary, format=kind[1:], dpi=200, metadata=_FORMATS[kind])
    return path


def save(figure: Figure, stem: Path) -> tuple[Path, Path]:
    """Write `<stem>.svg` and `<stem>.png`; gives both paths. See `write`."""
    vector, raster = (write(figure, stem.with_name(stem.name + suffix)) for suffix in (".svg", ".png"))
    return vector, raster


def svg(figure: Figure, prefix: str = "") -> str:
    """A figure as an <svg> element to stand inside an HTML page.

    Args:
        figure: any.
        prefix: begins every id, so that the figures of a page do not share any; by default one made of the content.
    """
    buffer = io.BytesIO()
    with style.context(["default", STYLE]):
        figure.savefig(buffer, format="svg", dpi=200, metadata=_FORMATS[".svg"])
    prefix = prefix or f"f{hashlib.sha256(buffer.getvalue()).hexdigest()[:8]}"
    root = ElementTree.fromstring(buffer.getvalue())
    for part in root.findall(f"{{{_SVG}}}metadata"):
        root.remove(part)
    for element in root.iter():
        for name, value in element.attrib.items():
            if name == "id":
                element.set(name, f"{prefix}-{value}")
            elif name == f"{{{_XLINK}}}href" and value.startswith("#"):
                element.set(name, f"#{prefix}-{value[1:]}")
            else:
                element.set(name, re.sub(r"url\(#", f"url(#{prefix}-", value))
        if element.tag == f"{{{_SVG}}}style" and element.text:
            element.text = f"#{prefix} {element.text.strip()}"  # its rule is for '*': all of the page otherwise
    root.set("id", prefix)
    root.set("role", "img")
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _XLINK)
    return ElementTree.tostring(root, encoding="unicode")


@dataclass(frozen=True)
class Label:
    """A name beside a point.

    Attributes:
        text, xy: the name, and its point in the units of the data.
        radius: of the point's marker, in typographic points.
        colour: of the text.
        optional: leave it out where there is no free place close by.
    """

    text: str
    xy: tuple[float, float]
    radius: float
    colour: str = Colour.black
    optional: bool = False


def place_labels(axes: Axes, labels: Sequence[Label], keep_clear_N2: NDArray[np.float64], size: float = 5.5) -> None:
    """Write each label where it covers least: of those before it, of the labels' circles, and of what to keep clear.

    A label stands inside its circle if it fits in; one that had to move away gets a thin line to its point. The figure
    must be settled.

    Args:
        axes: to write on.
        labels: in the order in which they choose their places.
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
    """(C, M) the area that boxes (left, bottom, right, top) share."""
    low = np.maximum(boxes_C4[:, None, :2], others_M4[None, :, :2])
    high = np.minimum(boxes_C4[:, None, 2:], others_M4[None, :, 2:])
    shared: NDArray[np.float64] = np.clip(high - low, 0, None).prod(axis=2)
    return shared
