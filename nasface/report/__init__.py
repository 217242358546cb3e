"""Figures and reports. Here is what all figures share: style, axes and files. Needs no display and no pyplot state."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec
from xml.etree import ElementTree

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from numpy.typing import ArrayLike

from nasface.errors import RunError
from nasface.places import begins_with
from nasface.rundir import atomic

__all__ = [
    "COLUMN", "PAGE", "Colour", "Look", "files_of", "is_figure", "log_if_wide", "save", "settle", "styled", "svg",
    "write",
]  # fmt: skip

COLUMN, PAGE = 3.5, 7.16  # inches: one column of a two-column paper, and both
Look = dict[str, Any]
"""Properties of a matplotlib artist."""


class Colour:
    """The palette of Okabe and Ito (2008), which colour-blind readers can tell apart, and two greys."""

    black, grey, light = "#000000", "#8a8a8a", "#e9e9e9"
    orange, sky, green, yellow = "#E69F00", "#56B4E9", "#009E73", "#F0E442"
    blue, red, purple = "#0072B2", "#D55E00", "#CC79A7"
    cycle = (blue, red, green, orange, purple, sky)


STYLE = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib, so that figures are the same on every machine
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
    "text.parse_math": False,  # a dollar sign in a name begins no formula
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "nasface",  # ids depend on the content alone
    "pdf.fonttype": 42,
}
_LIBRARY = "https://matplotlib.org/"  # stands in every figure that matplotlib has written
_MAKER = f"nasface, with {_LIBRARY}"
_FORMATS = {
    ".svg": {"Date": None, "Creator": _MAKER},
    ".pdf": {"CreationDate": None, "Creator": _MAKER},
    ".png": {"Software": _MAKER},
}
_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"

P = ParamSpec("P")


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Decorate a function so that it draws and lays out in the common style, whatever the user's matplotlibrc says."""

    @wraps(draw)
    def call(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with style.context(["default", STYLE]):
            figure = draw(*args, **kwargs)
            settle(figure)
        return figure

    return call


def settle(figure: Figure) -> None:
    """Lay out the figure once and for all, so that positions on it are final and every save gives the same file."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")


def write(figure: Figure, path: Path) -> Path:
    """Write a figure atomically as .svg, .pdf or .png (200 dpi), with the same bytes every time.

    Returns:
        `path`.

    Raises:
        RunError: for another suffix, or when the file cannot be written.
    """
    check_name(path)
    kind = path.suffix.lower()
    with atomic(path) as temporary, style.context(["default", STYLE]):
        figure.savefig(temporary, format=kind[1:], dpi=200, metadata=_FORMATS[kind])
    return path


def check_name(path: Path) -> None:
    """Raise a RunError if `write` does not write figures of such a name."""
    if path.suffix.lower() not in _FORMATS:
        raise RunError(f"cannot write a figure as '{path.name}'; give a name that ends in {', '.join(_FORMATS)}")


def save(figure: Figure, stem: Path) -> tuple[Path, Path]:
    """Write `<stem>.svg` and `<stem>.png` as `write` does, and return both paths."""
    vector, raster = (write(figure, path) for path in files_of(stem))
    return vector, raster


def files_of(stem: Path) -> tuple[Path, Path]:
    """Return the paths that `save` writes."""
    return stem.with_name(f"{stem.name}.svg"), stem.with_name(f"{stem.name}.png")


def is_figure(path: Path, unmarked: bool) -> bool:
    """Return whether nasface has written a figure.

    Args:
        path: the file.
        unmarked: whether one by matplotlib without nasface's mark counts too, as version 0.1 wrote them.
    """
    return begins_with(path, _MAKER, *([_LIBRARY] if unmarked else []))


def log_if_wide(axes: Axes, xs: ArrayLike = (), ys: ArrayLike = ()) -> None:
    """Make an axis logarithmic, with plain numbers, where its values differ by more than a factor of six."""
    for axis, set_scale, values in ((axes.xaxis, axes.set_xscale, xs), (axes.yaxis, axes.set_yscale, ys)):
        finite = np.asarray(values, float)[np.isfinite(np.asarray(values, float))]
        if len(finite) and 0 < 6 * finite.min() < finite.max():
            set_scale("log")
            axis.set_major_locator(LogLocator(subs=(1, 2, 5) if finite.max() < 1000 * finite.min() else (1,)))
            axis.set_minor_locator(NullLocator())
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def svg(figure: Figure, prefix: str = "") -> str:
    """Render a figure as an <svg> element for an HTML page.

    Args:
        figure: the figure.
        prefix: put before every id, so that the figures of a page share none; by default it is made from the content.
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
            element.text = f"#{prefix} {element.text.strip()}"  # the rule is for '*', which would be the whole page
    root.set("id", prefix)
    root.set("role", "img")
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _XLINK)
    return ElementTree.tostring(root, encoding="unicode")
