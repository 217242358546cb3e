"""A sweep as the report's page shows it: axes to choose from, networks with figures, the graph to draw them on."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from nasface.arch import Architecture
from nasface.graph import Graph
from nasface.pareto import STAGES
from nasface.report.content import Sweep
from nasface.report.drawing import layout

STAGE_WORDS = {"inherited": "as pruned", "recalibrated": "BN recalibrated", "finetuned": "fine-tuned"}
_COSTS = {"macs": "MACs", "params": "parameters", "latency_ms": "latency"}


@dataclass(frozen=True)
class Axis:
    """A column of figures.

    Attributes:
        key: its name in the table.
        label, short: in words, and behind a figure with its unit ('24.1 M MACs').
        unit: 'M', 'G', 'ms', '%' or none.
        scale: from the table's value to the unit.
        digits: behind the point.
        images: faces behind an NME; 0 for a cost, or where it is not known.
        group: of an NME, the state of the weights in words.
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
    """What page and script need of a sweep, as plain JSON values.

    Args:
        sweep: its table and architectures.
        graph: the full graph, or None where it cannot be built; there are no drawings then.

    Returns:
        `axes` ('x' and 'y', an `Axis` as a dict each, the usual one first), `networks` (figures by axis, and `kept`:
        a 0 or 1 an edge), `disconnected` (asked and error), `pruners`, `edges` of the full graph, and `graph` (see
        `grid`).
    """
    table = sweep.table
    done = measured(table)
    costs, scores = list(_costs(done)), list(_scores(done[done["network"] != "supernet"]))
    series = done["pruner"].map(_pruners)
    pruners = list(dict.fromkeys(series[done["network"] != "supernet"]))
    networks = []
    for row, by in zip(done.to_dict("records"), series, strict=True):
        star = row["network"] == "supernet"
        arch = sweep.archs.get(row["network"])
        networks.append(
            {
                "id": _text(row["network"]),
                "star": star,
                "asked": "the searched supernet, nothing pruned" if star else _wish(row),
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
        "disconnected": [
            {"asked": _wish(row), "error": _text(row.get("error"))}
            for row in table[table["state"] != "done"].to_dict("records")
        ],
        "graph": None if graph is None else grid(graph),
    }


def measured(table: pd.DataFrame) -> pd.DataFrame:
    """The networks of a sweep that are done, with figures of the supernet in every column.

    It has one state only, that of the search, which stands beside every stage of the slim networks.
    """
    done = table[table["state"] == "done"].copy()
    star = done["network"] == "supernet"
    for column in [name for name in done if name.endswith("_inherited")]:
        for stage in STAGES[1:]:
            other = column.removesuffix("inherited") + stage
            if other in done:
                done.loc[star, other] = done.loc[star, other].fillna(done.loc[star, column])
    if "supernet_latency_ms" in done:
        done.loc[star, "latency_ms"] = done.loc[star, "latency_ms"].fillna(done["supernet_latency_ms"].median())
    return done


def grid(graph: Graph) -> dict[str, Any]:
    """A graph where `drawing.layout` places it, for the script that draws one network of it after the other.

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
    """What a network was asked for, and of whom where that does not say so."""
    asked, pruner = _text(row.get("asked")), _text(row.get("pruner"))
    return asked if pruner in asked else f"{asked} ({pruner})".strip()


def _pruners(text: object) -> str:
    """Column `pruner` without the seeds: networks of the same pruners are one series."""
    return ", ".join(dict.fromkeys(pruner.split(" ")[0] for pruner in _text(text).split(", ")))


def _costs(done: pd.DataFrame) -> Iterator[Axis]:
    for key, word in _COSTS.items():
        if key in done and done[key].notna().any():
            if key == "latency_ms":
                batch = done["latency_batch"].max() if "latency_batch" in done else math.nan
                label = f"{word}, batch of {batch:.0f}" if math.isfinite(batch) else word
                yield Axis(key, label, word, "ms", 1.0, _digits(done[key].max()))
            else:
                greatest = done[key].max()
                unit, scale = ("G", 1e-9) if greatest >= 1e9 else ("M", 1e-6) if greatest >= 1e6 else ("k", 1e-3)
                yield Axis(key, word, word, unit, scale, _digits(greatest * scale))


def _scores(done: pd.DataFrame) -> Iterator[Axis]:
    """Held-out NME first and the last stage first: that is what choices go by."""
    for stage in reversed(STAGES):
        for column in sorted(done.columns, key=lambda name: not name.startswith("held_out")):
            if (found := re.fullmatch(rf"(?:held_out_nme|nme_(.+))_{stage}", column)) and done[column].notna().any():
                subset = found[1] or "held-out"
                counts = pd.to_numeric(done.get(f"images_{subset}", pd.Series(dtype=float)), errors="coerce").max()
                images = int(counts) if math.isfinite(counts) else 0
                words = STAGE_WORDS[stage]
                yield Axis(column, f"NME {subset}, {words}", "", "%", 100.0, 2, images, words)


def _kept(graph: Graph, arch: Architecture | None) -> str | None:
    """A 1 for every edge of the graph that is kept, else a 0; None without an architecture that fits the graph."""
    if arch is None or arch.graph_digest != graph.digest:
        return None
    edges = set(arch.kept)
    return "".join("1" if edge in edges else "0" for edge in graph.edges)


def _digits(greatest: float) -> int:
    return 1 if greatest >= 100 else 2 if greatest >= 10 else 3


def _number(value: Any) -> float | int | None:
    """A plain number; None for what is none, since JSON knows neither NaN nor infinity."""
    if value is None or not math.isfinite(value):
        return None
    return int(value) if float(value).is_integer() else float(value)


def _text(value: Any) -> str:
    return "" if value is None or pd.isna(value) else str(value)
