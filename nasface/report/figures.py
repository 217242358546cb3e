"""Charts of what was measured: cost against error, fronts of two topologies, CED, example faces, training curves.

Every function takes data and gives a matplotlib Figure. NMEs come as shares and are shown in percent. A sweep table
is what pareto.csv holds, a row for each network. Shape letters: N networks or faces, L landmarks, G costs of a grid.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.legend_handler import HandlerPathCollection
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from matplotlib.transforms import Bbox
from numpy.typing import ArrayLike, NDArray

from nasface import metrics
from nasface import pareto as fronts
from nasface.errors import RunError, did_you_mean
from nasface.report import COLUMN, PAGE, Colour, save, settle, styled, svg
from nasface.report.labels import Label, place_labels
from nasface.report.published import costs_and_nme

__all__ = ["ced", "faces", "figure6", "pareto", "save", "score_label", "svg", "training"]

Look = dict[str, Any]
"""Properties of a matplotlib artist."""

_STAGES = {"inherited": "as pruned", "recalibrated": "BN recalibrated", "finetuned": "fine-tuned"}
_TOPOLOGIES = {"hrnet": ("HRNet", Colour.orange, "s"), "hrsupernet": ("HRSuperNet", Colour.blue, "o")}
_PANELS = {"residual": "a   residual units", "mbconv": "b   stacked MBConvs"}
_FRAME = 2.5  # times the lowest NME of a sweep
_FRAME6 = 1.6  # the same in Figure 6, whose curves lie close together
_DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1)))


@styled
def pareto(
    table: pd.DataFrame,
    *,
    cost: str = "macs",
    score: str,
    label: str = "",
    published: bool = True,
    input_size: int,
) -> Figure:
    """NME against cost of a sweep's networks, their front and the supernet (the paper's Figure 1).

    A circle's area is proportional to the parameters, its colour is the pruner's. The front is that of the slim
    networks in the two columns shown. Networks with more than 2.5 times the lowest NME lie above the frame; a note
    counts them.

    Args:
        table: of a sweep.
        cost: column of the x axis.
        score: column of NMEs.
        label: words for the score; by default made of the column's name and the number of images.
        published: show what Tables 1 and 2 of the paper say of other methods, where it can stand beside the columns:
            `macs` or `params`, and the NME of a test subset of 300W.
        input_size: of the sweep, in pixels.

    Raises:
        RunError: when no network of the table has both figures.
    """
    own = _measured(table, cost, score)
    others = _comparable(cost, score) if published else None
    rows = pd.concat([own, others], ignore_index=True)
    unit, cost_words = _cost_axis(own, cost, rows[cost].max(), input_size)
    per_param = min(90 / own["params"].max(), 900 / rows["params"].max())  # areas in square points
    rows = rows.assign(x=rows[cost] / unit, y=100 * rows[score], area=(per_param * rows["params"]).fillna(12))
    frame = _FRAME * rows["y"][: len(own)].min()
    own, others = rows[: len(own)], rows[len(own) :].query("y <= @frame")
    far, shown = own[own["y"] > frame], rows[rows["y"] <= frame]
    supernet, slim = own[own["network"] == "supernet"], own[own["network"] != "supernet"]
    front = slim[fronts.front(slim[["x", "y"]])].sort_values("x")

    figure = Figure(figsize=(COLUMN, 3.4), layout="constrained")
    axes = figure.subplots()
    if len(others):
        axes.scatter(
            others["x"], others["y"], s=others["area"], facecolors="none", edgecolors=Colour.grey, linewidths=0.7,
            label="published, 256 px, trained on all 3148 faces", zorder=1, clip_on=False,
        )  # fmt: skip
    groups = list(slim.groupby("pruner", sort=False))
    for i, (pruner, part) in enumerate(groups):
        words = f"slim networks, {pruner}" if len(groups) > 1 else "slim networks"
        colour = (Colour.blue, Colour.green, Colour.purple, Colour.orange)[i % 4]
        axes.scatter(part["x"], part["y"], s=part["area"], color=colour, alpha=0.8, linewidths=0, label=words, zorder=3)
    axes.step(front["x"], front["y"], where="post", color=Colour.black, linewidth=0.7, label="front", zorder=2)
    if len(supernet):
        axes.scatter(
            supernet["x"], supernet["y"], s=60, marker="*", color=Colour.red, linewidths=0, label="supernet", zorder=4
        )
    axes.set(xlabel=cost_words, ylabel=label or score_label(own, score))
    if len(far):
        note = f"{len(far)} more above, up to {far['y'].max():.0f} %"
        axes.set_title(note, loc="right", fontsize=6, color="#5a5a5a")
    _log_if_wide(axes, shown["x"])
    axes.dataLim = Bbox.null()
    axes.update_datalim(shown[["x", "y"]])
    axes.margins(0.08)
    handles = [*axes.get_legend_handles_labels()[0], *_sizes(rows["params"], per_param)]
    dots = {PathCollection: HandlerPathCollection(sizes=[25])}  # instead of the mean size of all
    figure.legend(handles=handles, handler_map=dots, loc="outside lower center", ncols=2, labelspacing=0.8)
    settle(figure)  # labels find their places on what is final
    _write_names(axes, own, others, front.drop(index=far.index, errors="ignore"))
    return figure


def _write_names(axes: Axes, own: pd.DataFrame, others: pd.DataFrame, front: pd.DataFrame) -> None:
    """Names of all published methods, and of networks of the front where there is room (columns `x`, `y`, `area`)."""
    steps_N2 = np.repeat(front[["x", "y"]].to_numpy(), 2, axis=0)
    corners_N2 = np.column_stack([steps_N2[1:, 0], steps_N2[:-1, 1]])
    line_N2 = np.concatenate([np.linspace(start, end, 12) for start, end in pairwise(corners_N2)] or [corners_N2])
    short = front["network"].astype(str).str.partition("-")[0]  # 'e068' of 'e068-fa33d5'
    labels = [
        Label(name, (x, y), math.sqrt(area) / 2, colour, optional)
        for rows, names, colour, optional in (
            (others, others["network"], "#5a5a5a", False),
            (front, short, Colour.blue, True),
        )
        for name, x, y, area in zip(names, rows["x"], rows["y"], rows["area"], strict=True)
    ]
    place_labels(axes, labels, np.vstack([own[["x", "y"]], line_N2]))


@styled
def figure6(curves: Mapping[str, Sequence[pd.DataFrame]], *, cost: str = "macs", score: str) -> Figure:
    """Two topologies with equal blocks, NME against cost (the paper's Figure 6).

    The supernets themselves are left out, and a note counts the networks of more than 1.6 times the lowest NME, which
    lie above the frame. With several seeds, the thick line is the mean over seeds of the NME of the network with the
    lowest held-out NME at no more than that cost, from where every seed has one; the band is one standard deviation to
    either side.

    Args:
        curves: sweep tables, one a seed, by 'hrnet-residual', 'hrsupernet-residual', 'hrnet-mbconv' and
            'hrsupernet-mbconv'. A panel without curves is left out.
        cost: column of the x axis.
        score: column of NMEs.

    Raises:
        RunError: for another name, or when nothing can be drawn.
    """
    known = [f"{topology}-{encoder}" for encoder in _PANELS for topology in _TOPOLOGIES]
    for name in curves:
        if name not in known:
            raise RunError(f"there is no curve '{name}' in Figure 6; {did_you_mean(name, known)}")
    measured: dict[str, list[pd.DataFrame]] = {name: [] for name in known}
    for name, tables in curves.items():
        for rows in (_measured(table, cost, score) for table in tables):
            if len(slim := rows[rows["network"] != "supernet"]):
                measured[name].append(slim)
    panels = [encoder for encoder in _PANELS if any(measured[f"{topology}-{encoder}"] for topology in _TOPOLOGIES)]
    if not panels:
        raise RunError(f"no curve of Figure 6 has a slim network; give tables for {', '.join(known)}")
    every = pd.concat([table for tables in measured.values() for table in tables])
    unit, cost_words = _cost_axis(every, cost, every[cost].max())
    held_out = re.sub(r"^nme_.+_", "held_out_nme_", score)
    chooser = held_out if all(held_out in table for tables in measured.values() for table in tables) else score

    figure = Figure(figsize=(PAGE if len(panels) > 1 else COLUMN, 2.7), layout="constrained")
    for axes, encoder in zip(figure.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels, strict=True):
        drawn = []
        for topology, (words, colour, marker) in _TOPOLOGIES.items():
            if tables := measured[f"{topology}-{encoder}"]:
                drawn += tables
                scaled = [
                    table.assign(x=table[cost] / unit, y=100 * table[score], chooser=table[chooser]) for table in tables
                ]
                _curve(axes, scaled, words, colour, marker)
        axes.set_title(_PANELS[encoder], loc="left", fontweight="bold")
        axes.set_xlabel(cost_words)
        _log_if_wide(axes, pd.concat(drawn)[cost], every[score])
        axes.legend()
    figure.axes[0].set_ylabel(score_label(every, score))
    frame = _FRAME6 * every[score].min()
    if len(far := every.loc[every[score] > frame, score]):
        figure.axes[0].set_ylim(top=100 * frame)
        note = f"{len(far)} more above, up to {100 * far.max():.0f} %"
        figure.axes[0].set_title(note, loc="right", fontsize=6, color="#5a5a5a")
    return figure


def _curve(axes: Axes, tables: Sequence[pd.DataFrame], words: str, colour: str, marker: str) -> None:
    """One topology (columns `x`, `y`, `chooser`): a thin line a seed, and the mean front of several."""
    several = len(tables) > 1
    line: Look = {"linewidth": 0.6, "markersize": 2.5, "alpha": 0.5} if several else {"label": f"{words}, 1 seed"}
    for table in tables:
        ordered = table.sort_values("x")
        axes.plot(ordered["x"], ordered["y"], color=colour, marker=marker, markeredgewidth=0, **line)
    if several:
        spread = fronts.spread(tables, "x", "y", np.unique(pd.concat(tables)["x"]), by="chooser")
        x_G, low_G, high_G = spread.grid_G, spread.mean_G - spread.std_G, spread.mean_G + spread.std_G
        label = f"{words}, mean of {len(tables)} seeds ± std"
        axes.step(x_G, spread.mean_G, where="post", color=colour, linewidth=1.5, label=label)
        axes.fill_between(x_G, low_G, high_G, step="post", color=colour, alpha=0.18, linewidth=0)


@styled
def ced(curves: Mapping[str, ArrayLike], limit: float = 0.1, title: str = "") -> Figure:
    """Cumulative error distribution: the share of images at or below each NME.

    Args:
        curves: NME of every image, by what it is called in the legend.
        limit: NME up to which the curves, the area below them (AUC) and the failure rate (FR) go.
        title: of the figure.

    Raises:
        RunError: when there is no curve, or one without images.
    """
    values = {name: np.asarray(nmes_N, dtype=np.float64) for name, nmes_N in curves.items()}
    for name in [name for name, nmes_N in values.items() if not nmes_N.size] or ([] if values else ["any network"]):
        raise RunError(f"there is no image's NME for {name}, so there is no CED to draw; evaluate it on test images")
    one_count = len({nmes_N.size for nmes_N in values.values()}) == 1
    figure = Figure(figsize=(COLUMN, 2.5 + 0.14 * len(values)), layout="constrained")
    axes = figure.subplots()
    for i, (name, nmes_N) in enumerate(values.items()):
        sorted_N, share_N = metrics.ced(nmes_N)
        reached = np.isfinite(sorted_N)  # an image without a figure is a failure: the curve ends below 100 %
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
    """Example faces with predicted and true landmarks, joined by short lines (the paper's Figure 5).

    Args:
        images_NHWC: RGB, 0 to 255.
        predicted_NL2: (x, y) in pixels of the images, integers at pixel centres.
        true_NL2: the same of the annotation.
        nmes_N: shares, shown with each face.
        titles: what to say of each face before its NME.

    Raises:
        RunError: when there is no face, or not as many of everything.
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
        axes.set_title(f"{word}NME {100 * nme:.2f} %", fontsize=6, pad=2)
    dots: Look = {"linestyle": "none", "marker": "o", "markeredgecolor": Colour.grey, "markeredgewidth": 0.3}
    keys = [Line2D([], [], color=c, label=w, **dots) for c, w in ((Colour.sky, "true"), (Colour.yellow, "predicted"))]
    figure.legend(handles=keys, loc="outside lower center", ncols=2)
    return figure


@styled
def training(rows: pd.DataFrame) -> Figure:
    """Loss and held-out NME by epoch, stage after stage.

    Args:
        rows: of metrics.csv: `stage`, `epoch`, `phase`, `loss` and, where it was measured, `held_out_nme`.

    Raises:
        RunError: when a column is missing, or there is no epoch.
    """
    if missing := [name for name in ("stage", "epoch", "phase", "loss") if name not in rows]:
        raise RunError(f"training curves need the column '{missing[0]}'; give the metrics.csv of a run")
    if rows.empty:
        raise RunError("metrics.csv holds no epoch yet, so there is no training curve; let a training begin first")
    lengths = rows.groupby("stage", sort=False)["epoch"].max()
    starts = lengths.cumsum() - lengths
    rows = rows.assign(x=rows["epoch"] + rows["stage"].map(starts), y=100 * rows.get("held_out_nme", np.nan))
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
    _log_if_wide(losses, ys=rows["loss"])
    _log_if_wide(errors, ys=rows["y"])
    return figure


def score_label(table: pd.DataFrame, score: str) -> str:
    """What a score column of a sweep table is, for an axis: unit, normaliser, subset, number of images, weights."""
    found = re.fullmatch(rf"(?:nme_(?P<subset>.+?)|held_out_nme)(?:_(?P<stage>{'|'.join(_STAGES)}))?", score)
    if found is None:
        return f"{score.replace('_', ' ')} (%)"
    subset = found["subset"] or "held_out"
    counts = table.get(f"images_{subset}", pd.Series(dtype=float)).dropna()
    of = [subset.replace("held_out", "held-out faces").replace("_", " ")]
    of += [f"{counts.max():.0f} images"] if len(counts) else []
    of += [_STAGES[found["stage"]]] if found["stage"] else []
    return f"inter-ocular NME (%)\n{', '.join(of)}"


def _measured(table: pd.DataFrame, cost: str, score: str) -> pd.DataFrame:
    """The networks that have both figures, with the columns that are drawn, whatever else is missing.

    A supernet has one state only, so that its figures `inherited` stand beside those of any stage.
    """
    for name in (cost, score):
        if name not in table:
            raise RunError(f"the table of networks has no column '{name}'; {did_you_mean(name, map(str, table))}")
    numbers = {name: pd.to_numeric(table[name], errors="coerce") for name in (cost, score)}
    is_super = table.get("network", pd.Series("", table.index)) == "supernet"
    first = re.sub("recalibrated$|finetuned$", "inherited", score)
    if first in table:
        numbers[score] = numbers[score].mask(is_super & numbers[score].isna(), table[first])
    filled = {name: table.get(name, default) for name, default in (("network", ""), ("pruner", ""), ("params", np.nan))}
    found = table.assign(**(filled | numbers)).fillna({"network": "", "pruner": ""})
    found["pruner"] = found["pruner"].str.extract(r"(\w*)", expand=False)  # of 'random seed=0, share' the first word
    found = found[np.isfinite(found[[cost, score]]).all(axis=1)]
    if found.empty:
        raise RunError(f"no network has both '{cost}' and '{score}', so there is nothing to draw; evaluate some first")
    return found.reset_index(drop=True)


def _comparable(cost: str, score: str) -> pd.DataFrame | None:
    """Published methods as rows of a sweep table, if they have figures that can stand beside the two columns."""
    subset = re.fullmatch(r"nme_(common|challenge|full)_\w+", score)
    if cost not in ("macs", "params") or subset is None:
        return None
    table = costs_and_nme("300w").rename(columns={"method": "network", subset[1]: score})
    return table[["network", "params", "macs", score]].dropna(subset=[cost, score])


def _cost_axis(table: pd.DataFrame, cost: str, largest: float, input_size: int | None = None) -> tuple[float, str]:
    """By what a cost is divided for its axis, and the axis label."""
    size = "" if input_size is None else f", sweep at {input_size} px"
    if cost == "latency_ms":
        told = {name: table[name].iloc[0] for name in ("latency_batch", "threads", "device") if name in table}
        how = {"latency_batch": "batch {:.0f}", "threads": "threads {:.0f}", "device": "{}"}
        return 1, ", ".join(["latency (ms)", *(how[name].format(value) for name, value in told.items())]) + size
    if cost == "prunable_share":
        return 0.01, "share of the prunable MACs (%)"
    what = {"macs": "MACs", "macs_no_head": "MACs without head", "macs_prunable": "prunable MACs"}.get(cost)
    if what is None:
        what = {"params": "parameters", "params_no_head": "parameters without head"}.get(cost, cost.replace("_", " "))
        size = ""
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if largest >= unit:
            return unit, f"{what} ({letter}){size}"
    return 1, f"{what}{size}"


def _log_if_wide(axes: Axes, xs: ArrayLike = (), ys: ArrayLike = ()) -> None:
    """A logarithmic axis with plain numbers where the figures differ by more than a factor of six."""
    for axis, set_scale, values in ((axes.xaxis, axes.set_xscale, xs), (axes.yaxis, axes.set_yscale, ys)):
        finite = np.asarray(values, float)[np.isfinite(np.asarray(values, float))]
        if len(finite) and 0 < 6 * finite.min() < finite.max():
            set_scale("log")
            axis.set_major_locator(LogLocator(subs=(1, 2, 5) if finite.max() < 1000 * finite.min() else (1,)))
            axis.set_minor_locator(NullLocator())
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _sizes(params: pd.Series, per_param: float) -> list[Line2D]:
    """Legend entries for two round numbers of parameters among those that occur."""
    low, high = params.min(), params.max()
    powers = [10.0**power for power in range(2, 11) if low <= 10.0**power <= high]
    digits = [size for power in range(2, 11) for size in np.array([1, 2, 5]) * 10.0**power if low <= size <= high]
    look: Look = {"linestyle": "none", "marker": "o", "markerfacecolor": "none", "markeredgewidth": 0.5}
    return [
        Line2D([], [], markersize=math.sqrt(per_param * size), color="black", label=f"{size / 1e6:g} M params", **look)
        for size in (powers[-2:] if len(powers) > 1 else sorted({*digits[:1], *digits[-1:]}))
    ]
