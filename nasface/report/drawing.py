"""Drawings of graphs: a sub-network inside its search space. Heat maps of its factors are in `heatmap`."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch, Patch, PathPatch
from matplotlib.path import Path as Curve

from nasface import rundir
from nasface.arch import check_digest
from nasface.errors import RunError, printable
from nasface.graph import Edge, Graph, Node
from nasface.model.source import Source, read_factors
from nasface.report import PAGE, Colour, Look, styled
from nasface.report.heatmap import Layout, alpha_heatmap, check, layout
from nasface.rundir import RunDir

__all__ = ["Layout", "alpha_heatmap", "architecture", "layout", "read_alphas"]

_WIDTH, _HEIGHT = 0.52, 0.36  # of a node's box, in columns and rows
_INK, _FAINT = "#404040", "#b0b0b0"
_GONE: Look = {"color": _FAINT, "linewidth": 0.4, "linestyle": (0, (3, 2))}
_FIXED: Look = {"color": Colour.orange, "linewidth": 1.2}


@styled
def architecture(full: Graph, kept: Graph, values: Mapping[Edge, float] | None = None, title: str = "") -> Figure:
    """Draw a sub-network inside its search space (Figures 2 and 7 of the paper).

    Args:
        full: the graph of the space.
        kept: a sub-graph of it; `full` itself draws the whole space.
        values: alpha by edge; the width and opacity of a kept edge grow with its magnitude. None draws all edges with
            the same width.
        title: of the figure; how much is kept is written to its right.

    Raises:
        GraphError: when `kept` is not a sub-graph of `full`.
    """
    check(full, kept)
    grid = layout(full)
    rows = len(grid.strides)
    figure = Figure(figsize=(max(PAGE, 0.42 * (grid.columns + 2.6)), 0.52 * rows + 1.0), layout="constrained")
    axes = figure.subplots()
    axes.set_axis_off()
    axes.set(xlim=(-1.95, grid.columns + 0.4), ylim=(rows - 0.5, -0.85))
    for i, (stage, first, last) in enumerate(grid.stages):
        if i % 2:
            axes.axvspan(first - 0.5, last + 0.5, color="#f5f5f5", linewidth=0, zorder=0)
        axes.text((first + last) / 2, -0.68, str(stage), ha="center", va="center", color=_INK)
    axes.text(-0.62, -0.68, "stage", ha="right", va="center", color=_INK)
    for row, stride in enumerate(grid.strides):
        axes.text(-1.62, row, f"1/{stride}", ha="right", va="center", color=_INK)
    shown = _edges(axes, full, kept, values, grid)
    for node in full.nodes:
        _node(axes, node, grid, node.id in kept.node)
    _ends(axes, full, kept, grid)
    axes.set_title(printable(title) or " ", loc="left", fontweight="bold", parse_math=False)
    counts = f"{len(kept.edges)} of {len(full.edges)} edges, {len(kept.blocks)} of {len(full.blocks)} prunable blocks"
    axes.set_title(counts, loc="right")
    figure.legend(handles=_legend(full, kept, shown), loc="outside lower center", ncols=4, columnspacing=1.5)
    return figure


def _edges(
    axes: Axes, full: Graph, kept: Graph, values: Mapping[Edge, float] | None, grid: Layout
) -> dict[Edge, float]:
    """Draw all edges, the strongest on top, and return the magnitudes that widths stand for."""
    chosen = set(kept.edges)
    shown = {edge: abs(values[edge]) for edge in kept.prunable if edge in values} if values else {}
    largest = max(shown.values(), default=0) or 1
    for edge in sorted(full.edges, key=lambda edge: shown.get(edge, 0)):
        if edge not in chosen:
            state, look = "pruned", {**_GONE, "alpha": 0.6}
        elif edge in full.fixed:
            state, look = "fixed", _FIXED
        else:
            state, look = "kept", _strong(shown.get(edge, 0.5 * largest) / largest)
        curve = PathPatch(_curve(*(grid.place[end] for end in edge)), fill=False, capstyle="butt", **look)
        curve.set(gid=f"{state}:{edge[0]}->{edge[1]}", zorder=1 if state == "pruned" else 2)
        axes.add_patch(curve)
    return shown


def _strong(share: float) -> Look:
    """Style an edge whose factor is this share of the largest one."""
    return {"color": Colour.blue, "linewidth": 0.3 + 2.2 * share, "alpha": 0.3 + 0.65 * share}


def _curve(src: tuple[int, int], dst: tuple[int, int]) -> Curve:
    """Draw from the right side of a box to the left side of another, passing over the boxes between them in a row."""
    (x0, y0), (x1, y1) = src, dst
    lean = 0.09 * np.clip(y1 - y0, -1.5, 1.5)  # so that the edges of a node do not start or end in one point
    start, end = (x0 + _WIDTH / 2, y0 + lean), (x1 - _WIDTH / 2, y1 - lean)
    reach = 0.55 * (end[0] - start[0])
    bow = -0.75 if y0 == y1 and x1 - x0 > 1 else 0.0
    return Curve(
        [start, (start[0] + reach, start[1] + bow), (end[0] - reach, end[1] + bow), end],
        [Curve.MOVETO, Curve.CURVE4, Curve.CURVE4, Curve.CURVE4],
    )


def _node(axes: Axes, node: Node, grid: Layout, is_kept: bool) -> None:
    column, row = grid.place[node.id]
    box = _box(column, row, 1, _node_look(is_kept, node.block))
    box.set(gid=f"{'node' if is_kept else 'pruned-node'}:{node.id}", zorder=4 if is_kept else 1.5)
    axes.add_patch(box)
    colour = Colour.black if is_kept else _FAINT
    axes.text(column, row, str(node.channels), ha="center", va="center", fontsize=6, color=colour, zorder=box.zorder)


def _node_look(is_kept: bool, block: bool) -> Look:
    if not is_kept:
        return {"facecolor": "white", "edgecolor": _FAINT, "linewidth": 0.5, "linestyle": _GONE["linestyle"]}
    return {"facecolor": "#cfe5f3" if block else "white", "edgecolor": Colour.blue, "linewidth": 0.8}


def _box(column: float, row: float, rows: float, look: Look) -> FancyBboxPatch:
    """Return a rounded box of this many rows around a place."""
    height = _HEIGHT + rows - 1
    corner = (column - _WIDTH / 2, row - height / 2)
    return FancyBboxPatch(corner, _WIDTH, height, boxstyle="round,pad=0,rounding_size=0.12", zorder=4, **look)


def _ends(axes: Axes, full: Graph, kept: Graph, grid: Layout) -> None:
    """Draw the stem and the head, with lines to the nodes that they feed and read."""
    look = {"facecolor": Colour.light, "edgecolor": _INK, "linewidth": 0.8}
    for word, names, used, column, side in (
        ("stem", full.inputs, kept.inputs, -1.1, -_WIDTH / 2),
        ("head", full.outputs, kept.outputs, grid.columns + 0.1, _WIDTH / 2),
    ):
        rows = [grid.place[name][1] for name in names]
        top, bottom = min(rows), max(rows)
        middle = (top + bottom) / 2
        axes.add_patch(_box(column, middle, bottom - top + 1, look))
        turn = 90 if bottom > top else 0
        axes.text(column, middle, word, ha="center", va="center", fontsize=6, rotation=turn, zorder=5)
        for name in names:
            x, y = grid.place[name]
            line: Look = {"color": _INK, "linewidth": 0.8} if name in used else _GONE
            axes.plot([x + side, column - side], [y, y], zorder=2, gid=f"{word}:{name}", **line)


def _legend(full: Graph, kept: Graph, shown: Mapping[Edge, float]) -> list[Patch | Line2D]:
    """What the drawing has, the largest and the smallest factor among it."""
    blocks = [Patch(label="encoder block (channels)", **_node_look(True, True))]
    if not all(node.block for node in full.nodes):
        blocks.append(Patch(label="fuses only", **_node_look(True, False)))
    lines = []
    if len(kept.edges) < len(full.edges):
        lines.append(Line2D([], [], label="pruned", **_GONE))
    if kept.fixed:
        lines.append(Line2D([], [], label="fixed edge", **_FIXED))
    values = sorted({max(shown.values()), min(shown.values())}, reverse=True) if shown else []
    lines += [Line2D([], [], label=f"edge, |α| = {v:.2g}", **_strong(v / (values[0] or 1))) for v in values]
    if not values:
        lines.append(Line2D([], [], label="edge", **_strong(0.5)))
    return [*blocks, *lines]


def read_alphas(source: Source, full: Graph, kept: Graph) -> tuple[dict[Edge, float] | None, str]:
    """Read the factors by which an architecture was chosen, or else those that its weights hold.

    They are looked for in factors.json beside the arch.json and in the run that it was pruned from, then in the
    network's own weights, and then in the supernet's.

    Returns:
        alpha by edge and the file it comes from; None and an empty string where none of them is left.

    Raises:
        RunError, GraphError: when a file is there but cannot be used.
    """
    for folder in (source.path.parent, source.run):
        if (path := RunDir(folder).factors).exists():
            factors = read_factors(path)
            check_digest(str(path), factors.graph_digest, full)
            return dict(factors.alpha), str(path)
    own = source.trained_weights()
    graph = kept if own else full
    try:
        weights = own or source.weights()
    except RunError:
        return None, ""
    alpha = rundir.read_tensors(weights)[0].get("alpha")
    if alpha is None or alpha.shape != (len(graph.prunable),) or not alpha.isfinite().all():
        raise RunError(
            f"{weights} does not hold one finite factor for each of the {len(graph.prunable)} edges; replace the file"
        )
    return dict(zip(graph.prunable, alpha.tolist(), strict=True)), str(weights)
