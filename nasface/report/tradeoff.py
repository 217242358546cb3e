"""A sweep as the report's page shows it: axes to choose from, networks with figures, and the graph to draw them on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from nasface.arch import Architecture
from nasface.graph import Graph
from nasface.report.content import Sweep
from nasface.report.drawing import layout
from nasface.scores import SUPERNET, Stage, State, scores_in

_COSTS = {"macs": "MACs", "params": "parameters", "latency_ms": "latency"}


@dataclass(frozen=True)
class Axis:
    """A column of figures that an axis can show.

    Attributes:
        key: its name in the table.
        label, short: its name in words, and what follows a figure with its unit ('24.1 M MACs').
        unit: 'M', 'G', 'ms', '%' or empty.
        scale: factor from the table's value to the unit.
        digits: decimal places.
        images: number of images behind an NME; 0 for a cost, or where it is not known.
        group: for an NME, the state of the weights in words.
    """

    key: str
    label: str
    short: str
    unit: str
    scale: float
    digits: int
    images: int = 0
    group: str = ""


def tradeoff(sweep: Sweep, graph: Graph | None) -> dict[str, Any]:
    """Return what the page and its script need of a sweep, as plain JSON values.

    Args:
        sweep: its table and architectures.
        graph: the full graph, or None where it cannot be built; there are no drawings then.

    Returns:
        `axes` ('x' and 'y', a list of `Axis` as dicts each, the usual one first), `networks` (figures by axis, and
        `kept`: a 0 or 1 per edge), `failed` (request and error), `pruners`, `edges` of the full graph, and
        `graph` (see `grid`).
    """
    table = sweep.table
    done = measured(table)
    costs, scores = list(_costs(done)), list(_scores(done[done["network"] != SUPERNET]))
    series = done["pruner"].map(_pruners)
    pruners = list(dict.fromkeys(series[done["network"] != SUPERNET]))
    networks = []
    for row, by in zip(done.to_dict("records"), series, strict=True):
        star = row["network"] == SUPERNET
        arch = sweep.archs.get(row["network"])
        networks.append(
            {
                "id": _text(row["network"]),
                "star": star,
                "asked": "the searched supernet, with nothing pruned" if star else _wish(row),
                "series": -1 if star else pruners.index(by),
                "edges": _number(row.get("edges")),
                "blocks": _number(row.get("blocks")),
                "kept": None if graph is None else "1" * len(graph.edges) if star else _kept(graph, arch),
                **{axis.key: _number(row.get(axis.key)) for axis in (*costs, *scores)},
            }
        )
    return {
        "axes": {"x": [asdict(axis) for axis in costs], "y": [asdict(axis) for axis in scores]},
        "networks": networks,
        "pruners": pruners,
        "edges": None if graph is None else len(graph.edges),
        "failed": [
            {"asked": _wish(row), "error": _text(row.get("error"))}
            for row in table[table["state"] != State.DONE].to_dict("records")
        ],
        "graph": None if graph is None else grid(graph),
    }


def measured(table: pd.DataFrame) -> pd.DataFrame:
    """Select the measured networks of a sweep, with figures of the supernet in every column.

    The weights of the supernet are as the search left them, so its scores as inherited also stand for later stages.
    """
    done = table[table["state"] == State.DONE].copy()
    star = done["network"] == SUPERNET
    for score in scores_in(done):
        first = score.at(Stage.INHERITED).column
        if score.stage and first in done:
            done.loc[star, score.column] = done.loc[star, score.column].fillna(done.loc[star, first])
    if "supernet_latency_ms" in done:
        done.loc[star, "latency_ms"] = done.loc[star, "latency_ms"].fillna(done["supernet_latency_ms"].median())
    return done


def grid(graph: Graph) -> dict[str, Any]:
    """Place a graph as `drawing.layout` does, for the script that draws one network of it after another.

    Returns:
        `nodes` (x, y, block, end: whether it is both input and output, title), `edges` (pairs of indices into them),
        `columns` and `rows` (the text of each).
    """
    placed = layout(graph)
    index = {node.id: i for i, node in enumerate(graph.nodes)}
    nodes = []
    for node in graph.nodes:
        x, y = placed.place[node.id]
        title = f"{node.id}: {node.channels} channels at 1/{node.stride}{'' if node.block else ', fuses only'}"
        end = node.id in graph.inputs and node.id in graph.outputs
        nodes.append({"x": x, "y": y, "block": node.block, "end": end, "title": title})
    return {
        "nodes": nodes,
        "edges": [[index[source], index[target]] for source, target in graph.edges],
        "columns": [placed.name(column) for column in range(placed.columns)],
        "rows": [f"1/{stride}" for stride in placed.strides],
    }


def _wish(row: Mapping[str, Any]) -> str:
    """Say which request a network answers, and which pruner chose it where the request does not say so."""
    asked, pruner = _text(row.get("asked")), _text(row.get("pruner"))
    return asked if pruner in asked else f"{asked} ({pruner})".strip()


def _pruners(text: object) -> str:
    """Drop the seeds from the column `pruner`: networks of the same pruners are one series."""
    return ", ".join(dict.fromkeys(pruner.split(" ")[0] for pruner in _text(text).split(", ")))


def _costs(done: pd.DataFrame) -> Iterator[Axis]:
    for key, word in _COSTS.items():
        if key in done and done[key].notna().any():
            if key == "latency_ms":
                batch = done["latency_batch"].max() if "latency_batch" in done else math.nan
                label = f"{word}, batch of {batch:.0f}" if math.isfinite(batch) else word
                ran = done.get("latency_runtime", pd.Series(dtype=object)).dropna().unique()
                label += "".join(f", {runtime}" for runtime in ran)
                yield Axis(key, label, word, "ms", 1.0, _digits(done[key].max()))
            else:
                greatest = done[key].max()
                unit, scale = ("G", 1e-9) if greatest >= 1e9 else ("M", 1e-6) if greatest >= 1e6 else ("k", 1e-3)
                yield Axis(key, word, word, unit, scale, _digits(greatest * scale))


def _scores(done: pd.DataFrame) -> Iterator[Axis]:
    """Yield the scores, the last stage and the held-out NME first, because choices go by them."""
    found = sorted(scores_in(done), key=lambda score: score.subset is not None)
    for stage in reversed(Stage):
        for score in found:
            if score.stage is stage and done[score.column].notna().any():
                counts = pd.to_numeric(done.get(score.images_column, pd.Series(dtype=float)), errors="coerce").max()
                images = int(counts) if math.isfinite(counts) else 0
                label = f"NME {score.faces}, {stage.words}"
                yield Axis(score.column, label, "", "%", 100.0, 2, images, stage.words)


def _kept(graph: Graph, arch: Architecture | None) -> str | None:
    """Return a 1 or 0 per edge of the graph, kept or not; None without an architecture of this graph."""
    if arch is None or arch.graph_digest != graph.digest:
        return None
    edges = set(arch.kept)
    return "".join("1" if edge in edges else "0" for edge in graph.edges)


def _digits(greatest: float) -> int:
    return 1 if greatest >= 100 else 2 if greatest >= 10 else 3


def _number(value: Any) -> float | int | None:
    """Return a plain number, or None, since JSON knows neither NaN nor infinity."""
    if value is None or not math.isfinite(value):
        return None
    return int(value) if float(value).is_integer() else float(value)


def _text(value: Any) -> str:
    return "" if value is None or pd.isna(value) else str(value)
