"""Charts of cost against error: the networks of a sweep with their front, and the fronts of two topologies.

Every function takes data and returns a matplotlib figure. A sweep's table is what pareto.csv holds, with one row per
network; NMEs in it are shares and are drawn in percent. Shape letters: N networks, G costs of a grid.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerPathCollection
from matplotlib.lines import Line2D
from matplotlib.transforms import Bbox

from nasface import pareto as fronts
from nasface.errors import RunError, did_you_mean
from nasface.report import COLUMN, PAGE, Colour, Look, log_if_wide, settle, styled
from nasface.report.labels import Label, place_labels
from nasface.report.published import costs_and_nme
from nasface.scores import DEFAULT_NORMALISER, SUPERNET, Score, Stage

__all__ = ["figure6", "pareto", "score_label"]

_TOPOLOGIES = {"hrnet": ("HRNet", Colour.orange, "s"), "hrsupernet": ("HRSuperNet", Colour.blue, "o")}
_PANELS = {"residual": "a   residual units", "mbconv": "b   stacked MBConvs"}
FIGURE6 = tuple(f"{topology}-{encoder}" for encoder in _PANELS for topology in _TOPOLOGIES)
"""The names of the curves of Figure 6."""
_FRAME = 2.5  # the highest NME shown, as a multiple of the lowest one of the sweep
_FRAME6 = 1.6  # the same in Figure 6, whose curves lie close together
_NOTE = "#5a5a5a"
_HOW = {"latency_batch": "batch {:.0f}", "latency_runtime": "{}", "threads": "threads {:.0f}", "device": "{}"}


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
    """Draw NME against cost for a sweep's networks, their front and the supernet (Figure 1 of the paper).

    The area of a circle is proportional to the number of parameters, and its colour stands for the pruner. The front is
    that of the slim networks in the two columns shown. Networks with more than 2.5 times the lowest NME lie above the
    frame, and a note counts them.

    Args:
        table: of a sweep.
        cost: column of the x axis.
        score: column of NMEs.
        label: the score in words; by default made from the column's name and the number of images.
        published: show the other methods of Tables 1 and 2 of the paper where they can be compared, that is, where the
            cost is `macs` or `params` and the score is the NME of a test subset of 300W.
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
    slim = own[own["network"] != SUPERNET]
    front = slim[fronts.front(slim[["x", "y"]])].sort_values("x")

    figure = Figure(figsize=(COLUMN, 3.4), layout="constrained")
    axes = figure.subplots()
    _draw_networks(axes, own, others, front)
    axes.set(xlabel=cost_words, ylabel=label or score_label(own, score))
    _note_those_above(axes, far["y"])
    log_if_wide(axes, shown["x"])
    axes.dataLim = Bbox.null()
    axes.update_datalim(shown[["x", "y"]])
    axes.margins(0.08)
    handles = [*axes.get_legend_handles_labels()[0], *_sizes(rows["params"], per_param)]
    dots = {PathCollection: HandlerPathCollection(sizes=[25])}  # otherwise they have the mean size of all
    figure.legend(handles=handles, handler_map=dots, loc="outside lower center", ncols=2, labelspacing=0.8)
    settle(figure)  # the labels are placed on the final layout
    _write_names(axes, own, others, front.drop(index=far.index, errors="ignore"))
    return figure


def _draw_networks(axes: Axes, own: pd.DataFrame, others: pd.DataFrame, front: pd.DataFrame) -> None:
    """Draw published methods, slim networks by pruner, their front, and the supernet (columns `x`, `y`, `area`)."""
    supernet, slim = own[own["network"] == SUPERNET], own[own["network"] != SUPERNET]
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


def _write_names(axes: Axes, own: pd.DataFrame, others: pd.DataFrame, front: pd.DataFrame) -> None:
    """Name all published methods, and networks of the front where there is room (columns `x`, `y`, `area`)."""
    steps_N2 = np.repeat(front[["x", "y"]].to_numpy(), 2, axis=0)
    corners_N2 = np.column_stack([steps_N2[1:, 0], steps_N2[:-1, 1]])
    line_N2 = np.concatenate([np.linspace(start, end, 12) for start, end in pairwise(corners_N2)] or [corners_N2])
    short = front["network"].astype(str).str.partition("-")[0]  # 'e068' of 'e068-fa33d5'
    labels = [
        Label(name, (x, y), math.sqrt(area) / 2, colour, optional)
        for rows, names, colour, optional in (
            (others, others["network"], _NOTE, False),
            (front, short, Colour.blue, True),
        )
        for name, x, y, area in zip(names, rows["x"], rows["y"], rows["area"], strict=True)
    ]
    place_labels(axes, labels, np.vstack([own[["x", "y"]], line_N2]))


@styled
def figure6(curves: Mapping[str, Sequence[pd.DataFrame]], *, cost: str = "macs", score: str) -> Figure:
    """Draw NME against cost for two topologies with equal blocks (Figure 6 of the paper).

    The supernets themselves are left out. Networks with more than 1.6 times the lowest NME lie above the frame, and a
    note counts them. With several seeds, the thick line is the mean over seeds of the NME of the network that has the
    lowest held-out NME at no more than that cost; it begins where every seed has such a network. The band is one
    standard deviation to either side.

    Args:
        curves: the tables of sweeps, one per seed, by the names in `FIGURE6`. A panel without curves is left out.
        cost: column of the x axis.
        score: column of NMEs.

    Raises:
        RunError: for another name, or when nothing can be drawn.
    """
    for name in curves:
        if name not in FIGURE6:
            raise RunError(f"there is no curve '{name}' in Figure 6; {did_you_mean(name, FIGURE6)}")
    measured: dict[str, list[pd.DataFrame]] = {name: [] for name in FIGURE6}
    for name, tables in curves.items():
        for rows in (_measured(table, cost, score) for table in tables):
            if len(slim := rows[rows["network"] != SUPERNET]):
                measured[name].append(slim)
    panels = [encoder for encoder in _PANELS if any(measured[f"{topology}-{encoder}"] for topology in _TOPOLOGIES)]
    if not panels:
        raise RunError(f"no curve of Figure 6 has a slim network; give tables for {', '.join(FIGURE6)}")
    every = pd.concat([table for tables in measured.values() for table in tables])
    unit, cost_words = _cost_axis(every, cost, every[cost].max())
    held_out = _held_out(score)
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
                _draw_curve(axes, scaled, words, colour, marker)
        axes.set_title(_PANELS[encoder], loc="left", fontweight="bold")
        axes.set_xlabel(cost_words)
        log_if_wide(axes, pd.concat(drawn)[cost], every[score])
        axes.legend()
    figure.axes[0].set_ylabel(score_label(every, score))
    frame = _FRAME6 * every[score].min()
    if len(far := every.loc[every[score] > frame, score]):
        figure.axes[0].set_ylim(top=100 * frame)
    _note_those_above(figure.axes[0], 100 * far)
    return figure


def _draw_curve(axes: Axes, tables: Sequence[pd.DataFrame], words: str, colour: str, marker: str) -> None:
    """Draw one topology (columns `x`, `y`, `chooser`): a thin line per seed, and the mean front of several seeds."""
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


def score_label(table: pd.DataFrame, score: str) -> str:
    """Describe a column of scores for an axis: unit, normaliser, faces, number of images, and stage of the weights."""
    found = Score.parse(score)
    if found is None:
        return f"{score.replace('_', ' ')} (%)"
    counts = table.get(found.images_column, pd.Series(dtype=float)).dropna()
    of = [f"{found.faces} faces" if found.subset is None else found.faces.replace("_", " ")]
    of += [f"{counts.max():.0f} images"] if len(counts) else []
    of += [found.stage.words] if found.stage else []
    return f"{DEFAULT_NORMALISER.adjective} NME (%)\n{', '.join(of)}"


def _note_those_above(axes: Axes, far: pd.Series) -> None:
    """Count the networks above the frame, whose NMEs are given in percent."""
    if len(far):
        axes.set_title(f"{len(far)} more above, up to {far.max():.0f} %", loc="right", fontsize=6, color=_NOTE)


def _held_out(score: str) -> str:
    """The held-out score at the same stage: the one that chooses networks."""
    found = Score.parse(score)
    return score if found is None else Score(stage=found.stage).column


def _measured(table: pd.DataFrame, cost: str, score: str) -> pd.DataFrame:
    """Select the networks that have both figures, with all columns that are drawn, whatever else is missing.

    The weights of the supernet are as the search left them, so its scores as inherited also stand for later stages.
    """
    for name in (cost, score):
        if name not in table:
            raise RunError(f"the table of networks has no column '{name}'; {did_you_mean(name, map(str, table))}")
    numbers = {name: pd.to_numeric(table[name], errors="coerce") for name in (cost, score)}
    is_super = table.get("network", pd.Series("", table.index)) == SUPERNET
    parsed = Score.parse(score)
    first = parsed.at(Stage.INHERITED).column if parsed and parsed.stage else score
    if first in table:
        numbers[score] = numbers[score].mask(is_super & numbers[score].isna(), table[first])
    filled = {name: table.get(name, default) for name, default in (("network", ""), ("pruner", ""), ("params", np.nan))}
    found = table.assign(**(filled | numbers)).fillna({"network": "", "pruner": ""})
    found["pruner"] = found["pruner"].str.extract(r"(\w*)", expand=False)  # the first word of 'random seed=0, share'
    found = found[np.isfinite(found[[cost, score]]).all(axis=1)]
    if found.empty:
        raise RunError(f"no network has both '{cost}' and '{score}', so there is nothing to draw; evaluate some first")
    return found.reset_index(drop=True)


def _comparable(cost: str, score: str) -> pd.DataFrame | None:
    """Return published methods as rows of a sweep's table, if they have figures comparable to the two columns."""
    found = Score.parse(score)
    if cost not in ("macs", "params") or found is None or found.masked or found.stage is None:
        return None
    if found.subset not in ("common", "challenge", "full"):
        return None
    table = costs_and_nme("300w").rename(columns={"method": "network", found.subset: score})
    return table[["network", "params", "macs", score]].dropna(subset=[cost, score])


def _cost_axis(table: pd.DataFrame, cost: str, largest: float, input_size: int | None = None) -> tuple[float, str]:
    """Return the unit by which a cost is divided for its axis, and the label of the axis."""
    size = "" if input_size is None else f", sweep at {input_size} px"
    if cost == "latency_ms":
        told = {name: table[name].iloc[0] for name in _HOW if name in table}
        return 1, ", ".join(
            ["latency (ms)", *(_HOW[name].format(value) for name, value in told.items() if not pd.isna(value))]
        ) + size
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


def _sizes(params: pd.Series, per_param: float) -> list[Line2D]:
    """Return legend entries for two round numbers of parameters among those that occur."""
    low, high = params.min(), params.max()
    powers = [10.0**power for power in range(2, 11) if low <= 10.0**power <= high]
    digits = [size for power in range(2, 11) for size in np.array([1, 2, 5]) * 10.0**power if low <= size <= high]
    look: Look = {"linestyle": "none", "marker": "o", "markerfacecolor": "none", "markeredgewidth": 0.5}
    return [
        Line2D([], [], markersize=math.sqrt(per_param * size), color="black", label=f"{size / 1e6:g} M params", **look)
        for size in (powers[-2:] if len(powers) > 1 else sorted({*digits[:1], *digits[-1:]}))
    ]
