"""The grid on which the nodes of a graph are placed, and the factors of its edges as heat maps.

Columns are stages, and rows are resolutions with the finest on top. Where a stage holds several nodes of one
resolution, its column is split, and a node is placed to the right of its parents in the same stage.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from nasface.errors import GraphError, printable
from nasface.graph import Edge, Graph
from nasface.report import PAGE, Colour, styled

__all__ = ["Layout", "alpha_heatmap", "check", "layout"]

_NO_FACTOR = "#d4d4d4"
_SHADES = LinearSegmentedColormap.from_list("factors", ["#e3eef7", "#6baed6", "#1f6db0", "#08244f"])


@dataclass(frozen=True)
class Layout:
    """The places of the nodes.

    Attributes:
        place: (column, row) by node; no two nodes share a place.
        stages: (stage, first column, last column), from left to right.
        strides: by row.
    """

    place: Mapping[str, tuple[int, int]]
    stages: tuple[tuple[int, int, int], ...]
    strides: tuple[int, ...]

    @property
    def columns(self) -> int:
        """The number of columns."""
        return self.stages[-1][2] + 1

    def name(self, column: int) -> str:
        """The stage of a column, with a letter where the stage has several columns."""
        stage, first, last = next(entry for entry in self.stages if entry[1] <= column <= entry[2])
        round_, letter = divmod(column - first, 26)
        return f"{stage}{chr(ord('a') + letter)}{round_ or ''}" if last > first else str(stage)


def layout(graph: Graph) -> Layout:
    """Place the nodes of a graph in columns and rows."""
    strides = tuple(sorted({node.stride for node in graph.nodes}))
    place: dict[str, tuple[int, int]] = {}
    stages = []
    start = 0
    for stage in sorted({node.stage for node in graph.nodes}):
        for node in (n for n in graph.nodes if n.stage == stage):
            before = [place[name][0] for name in graph.parents[node.id] if graph.node[name].stage == stage]
            column, row = max(before, default=start - 1) + 1, strides.index(node.stride)
            while (column, row) in place.values():
                column += 1
            place[node.id] = (column, row)
        end = max(column for column, _ in place.values())
        stages.append((stage, start, end))
        start = end + 1
    return Layout(place, tuple(stages), strides)


@styled
def alpha_heatmap(full: Graph, kept: Graph, values: Mapping[Edge, float], title: str = "") -> Figure:
    """Draw |alpha| of every edge by source and target resolution, with one panel per pair of columns that edges join.

    Args:
        full: the graph of the space.
        kept: a sub-graph of it; the cells of other edges are crossed out.
        values: alpha by edge; cells of edges without a value, such as fixed edges, are grey.
        title: of the figure.

    Raises:
        GraphError: when `kept` is not a sub-graph of `full`, or no edge of `full` has a value.
    """
    check(full, kept)
    known = {edge: abs(values[edge]) for edge in full.edges if edge in values}
    if not known:
        raise GraphError(
            "no edge of the graph has a factor, so there is no heat map to draw; give the factors of its search"
        )
    grid = layout(full)
    panels: dict[tuple[int, int], list[Edge]] = {}  # edges by their source and target columns
    for src, dst in full.edges:
        panels.setdefault((grid.place[src][0], grid.place[dst][0]), []).append((src, dst))
    rows = math.ceil(len(panels) / 10)
    columns = math.ceil(len(panels) / rows)
    side = (PAGE - 1.0) / max(columns, 6)
    figure = Figure(figsize=(side * columns + 1.0, rows * (side + 0.3) + 0.45), layout="constrained")
    every = list(figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flat)
    shades = Normalize(0, max(known.values()) or 1)
    chosen = set(kept.edges)
    for axes, ((before, after), edges) in zip(every, sorted(panels.items()), strict=False):
        gone = [edge for edge in edges if edge not in chosen]
        mesh = _panel(axes, grid, {edge: known.get(edge) for edge in edges}, gone, shades, side)
        axes.set_title(f"{grid.name(before)} → {grid.name(after)}", pad=2)
    for axes in every[len(panels) :]:
        axes.set_axis_off()
    figure.colorbar(mesh, ax=every, label="|α|", fraction=0.05, pad=0.01).outline.set_visible(False)
    if title:
        figure.suptitle(printable(title), x=0.01, ha="left", fontsize=7.5, fontweight="bold", parse_math=False)
    figure.supxlabel("target resolution", fontsize=7)
    figure.supylabel("source resolution", fontsize=7)
    keys: list[Patch | Line2D] = []
    if len(kept.edges) < len(full.edges):
        keys.append(Line2D([], [], linestyle="none", marker="x", color=Colour.red, markersize=4, label="pruned"))
    if len(known) < len(full.edges):
        keys.append(Patch(color=_NO_FACTOR, label="no factor"))
    if keys:
        figure.legend(handles=keys, loc="outside upper right", ncols=2)
    return figure


def _panel(
    axes: Axes, grid: Layout, values: Mapping[Edge, float | None], gone: Sequence[Edge], shades: Normalize, side: float
) -> QuadMesh:
    """Draw the edges between two columns as cells, and return their mesh.

    Args:
        axes: where to draw.
        grid: the places of the nodes.
        values: |alpha| by edge, or None for an edge without a factor.
        gone: edges to cross out.
        shades: colour scale of all panels.
        side: side of the panel in inches.
    """
    names = [f"1/{stride}" for stride in grid.strides]
    cells = {edge: (grid.place[edge[1]][1], grid.place[edge[0]][1]) for edge in values}  # x is the row of the target
    table = np.full((len(names), len(names)), np.nan)
    for edge, (x, y) in cells.items():
        value = values[edge]
        if value is not None:
            table[y, x] = value
        else:
            axes.add_patch(Rectangle((x, y), 1, 1, color=_NO_FACTOR, linewidth=0))
    mesh = axes.pcolormesh(table, cmap=_SHADES, norm=shades, edgecolors="white", linewidth=0.5)
    centres = np.array([cells[edge] for edge in gone]).reshape(-1, 2) + 0.5
    axes.plot(*centres.T, "x", color=Colour.red, markersize=30 * side / len(names), markeredgewidth=0.9, gid="pruned")
    axes.set(xlim=(0, len(names)), ylim=(len(names), 0), aspect="equal")
    axes.set_xticks(np.arange(len(names)) + 0.5, names, rotation=90, fontsize=5.5)
    axes.set_yticks(np.arange(len(names)) + 0.5, names, fontsize=5.5)
    axes.tick_params(length=0, pad=1)
    axes.spines[:].set_visible(False)
    return mesh


def check(full: Graph, kept: Graph) -> None:
    """Raise a GraphError unless `kept` is a sub-graph of `full`."""
    if strange := set(kept.edges) - set(full.edges):
        raise GraphError(
            f"edge {' -> '.join(min(strange))} of the sub-network is not in the space; draw it in its own search space"
        )
