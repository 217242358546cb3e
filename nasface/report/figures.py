"""Charts of what was measured. Every function takes data and returns a matplotlib figure.

The charts of cost against error are in `fronts` and can be had from here too. NMEs are given as shares and drawn in
percent. Shape letters: N faces, L landmarks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from nasface import metrics
from nasface.errors import RunError
from nasface.report import COLUMN, PAGE, Colour, Look, log_if_wide, save, styled, svg
from nasface.report.fronts import figure6, pareto, score_label
from nasface.scores import HELD_OUT, percent

__all__ = ["ced", "faces", "figure6", "pareto", "save", "score_label", "svg", "training"]

_DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1)))


@styled
def ced(curves: Mapping[str, ArrayLike], limit: float = 0.1, title: str = "") -> Figure:
    """Draw cumulative error distributions: the share of images at or below each NME.

    Args:
        curves: the NME of every image, by the name in the legend.
        limit: the NME up to which the curves are drawn and their areas (AUC) and failure rates (FR) are taken.
        title: of the figure.

    Raises:
        RunError: when there is no curve, or one without images.
    """
    values = {name: np.asarray(nmes_N, dtype=np.float64) for name, nmes_N in curves.items()}
    for name in [name for name, nmes_N in values.items() if not nmes_N.size] or ([] if values else ["any network"]):
        raise RunError(f"no image has an NME of {name}, so there is no CED to draw; evaluate it on test images")
    one_count = len({nmes_N.size for nmes_N in values.values()}) == 1
    figure = Figure(figsize=(COLUMN, 2.5 + 0.14 * len(values)), layout="constrained")
    axes = figure.subplots()
    for i, (name, nmes_N) in enumerate(values.items()):
        sorted_N, share_N = metrics.ced(nmes_N)
        reached = np.isfinite(sorted_N)  # an image without an NME is a failure, so the curve ends below 100 %
        x_N = np.concatenate([[0], sorted_N[reached], [max(limit, *sorted_N[reached], 0)]])
        y_N = np.concatenate([[0], share_N[reached], [max(0, *share_N[reached], 0)]])
        auc, failures = metrics.auc(nmes_N, limit), metrics.failure_rate(nmes_N, limit)
        images = "" if one_count else f", {nmes_N.size} images"
        label = f"{name}{images}: AUC {auc:.3f}, FR {100 * failures:.1f} %"
        axes.step(100 * x_N, 100 * y_N, where="post", color=Colour.cycle[i % 6], linestyle=_DASHES[i % 3], label=label)
    count = f"{next(iter(values.values())).size} " if one_count else ""
    axes.set(xlim=(0, 100 * limit), ylim=(0, 101), xlabel="NME (%)", ylabel=f"share of the {count}images (%)")
    axes.set_title(title)
    axes.grid(color=Colour.light, linewidth=0.5)
    title = f"AUC and failure rate (FR) at {100 * limit:g} % NME"
    figure.legend(loc="outside lower center", title=title, title_fontsize=6.5)
    return figure


@styled
def faces(
    images_NHWC: NDArray[np.uint8],
    predicted_NL2: ArrayLike,
    true_NL2: ArrayLike,
    nmes_N: ArrayLike,
    titles: Sequence[str] | None = None,
) -> Figure:
    """Draw example faces with predicted and true landmarks, joined by short lines (Figure 5 of the paper).

    Args:
        images_NHWC: RGB, 0 to 255.
        predicted_NL2: (x, y) in pixels of the images, with integers at pixel centres.
        true_NL2: the annotated points in the same pixels.
        nmes_N: shares, shown with each face.
        titles: text before the NME of each face.

    Raises:
        RunError: when there is no face, or the numbers of the parts differ.
    """
    predicted, true, nmes = (np.asarray(part, dtype=np.float64) for part in (predicted_NL2, true_NL2, nmes_N))
    words = [""] * len(images_NHWC) if titles is None else [f"{title}, " for title in titles]
    if not len(images_NHWC) or len({len(images_NHWC), len(predicted), len(true), len(nmes), len(words)}) > 1:
        raise RunError(
            f"cannot draw {len(images_NHWC)} faces with {len(predicted)} predictions, {len(true)} annotations, "
            f"{len(nmes)} NMEs and {len(words)} titles; give one of each for at least one face"
        )
    rows = math.ceil(len(words) / 6)
    columns = math.ceil(len(words) / rows)
    side = PAGE / 6
    tight = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02)
    figure = Figure(figsize=(max(columns, 2) * side, rows * (side + 0.16) + 0.2), layout=tight)
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in grid:
        axes.set_axis_off()
    for axes, image, found_L2, wanted_L2, nme, word in zip(
        grid, images_NHWC, predicted, true, nmes, words, strict=False
    ):
        axes.imshow(image)
        axes.plot(*np.stack([wanted_L2, found_L2]).transpose(2, 0, 1), color="white", linewidth=0.6)
        axes.plot(*wanted_L2.T, "o", color=Colour.sky, markersize=1.5, markeredgewidth=0)
        axes.plot(*found_L2.T, "o", color=Colour.yellow, markersize=1.5, markeredgewidth=0)
        axes.set(xlim=(-0.5, image.shape[1] - 0.5), ylim=(image.shape[0] - 0.5, -0.5))
        axes.set_title(f"{word}NME {percent(nme)} %", fontsize=6, pad=2)
    dots: Look = {"linestyle": "none", "marker": "o", "markeredgecolor": Colour.grey, "markeredgewidth": 0.3}
    keys = [Line2D([], [], color=c, label=w, **dots) for c, w in ((Colour.sky, "true"), (Colour.yellow, "predicted"))]
    figure.legend(handles=keys, loc="outside lower center", ncols=2)
    return figure


@styled
def training(rows: pd.DataFrame) -> Figure:
    """Draw the loss and the held-out NME by epoch, one stage of the run after another.

    Args:
        rows: of metrics.csv: `stage`, `epoch`, `phase`, `loss` and, where it was measured, the held-out NME.

    Raises:
        RunError: when a column is missing, or there is no epoch.
    """
    if missing := [name for name in ("stage", "epoch", "phase", "loss") if name not in rows]:
        raise RunError(
            f"training curves need the column '{missing[0]}', which is missing; give the metrics.csv of a run"
        )
    if rows.empty:
        raise RunError("metrics.csv holds no epoch yet, so there is no training curve; let a training begin first")
    lengths = rows.groupby("stage", sort=False)["epoch"].max()
    starts = lengths.cumsum() - lengths
    rows = rows.assign(x=rows["epoch"] + rows["stage"].map(starts), y=100 * rows.get(HELD_OUT.column, np.nan))
    figure = Figure(figsize=(COLUMN, 3.2), layout="constrained")
    losses, errors = figure.subplots(2, 1, sharex=True)
    phases = list(rows["phase"].unique())
    for (_, phase), part in rows.groupby(["stage", "phase"], sort=False):
        i = phases.index(phase)
        look: Look = {"linestyle": _DASHES[i % 3], "marker": "." if len(part) < 3 else ""}
        losses.plot(part["x"], part["loss"], color=Colour.cycle[i % 6], **look)
        known = part.dropna(subset="y")
        errors.plot(known["x"], known["y"], color=Colour.cycle[i % 6], **look)
    for stage, start in starts.items():
        for axes in (losses, errors):
            if start:
                axes.axvline(start + 0.5, color=Colour.grey, linewidth=0.5)
        place = start + 0.5 + lengths[stage] / 2
        losses.text(place, 1.02, str(stage), transform=losses.get_xaxis_transform(), ha="center", va="bottom")
    if len(phases) > 1:
        keys = [Line2D([], [], color=Colour.cycle[i % 6], linestyle=_DASHES[i % 3]) for i in range(len(phases))]
        figure.legend(keys, [f"{phase} phase" for phase in phases], loc="outside lower center", ncols=len(phases))
    errors.xaxis.set_major_locator(MaxNLocator(integer=True))
    losses.set_ylabel("training loss")
    errors.set(ylabel="held-out NME (%)", xlabel="epoch", xlim=(0.5, lengths.sum() + 0.5))
    log_if_wide(losses, ys=rows["loss"])
    log_if_wide(errors, ys=rows["y"])
    return figure
