"""Count the parameters and multiply-adds of a search space or a sub-network, by stage."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nasface import plugins, rundir
from nasface.arch import edge_list
from nasface.cost import Costs, count_space
from nasface.graph import Graph
from nasface.model.build import check_size
from nasface.model.source import read_arch


def count(
    space: str | None,
    options: Mapping[str, Any],
    num_landmarks: int,
    input_size: int | None,
    arch_path: Path | None,
    edges_path: Path | None,
) -> dict[str, Any]:
    """Return what `nasface count` reports.

    Args:
        space: name of the search space; not needed with `arch_path`.
        options: options of the space.
        num_landmarks: number of heatmaps of the head.
        input_size: side of the square input in pixels; by default that of the architecture, or else 256.
        arch_path: an arch.json, whose space, options and number of landmarks replace those given.
        edges_path: a list of the edges that a sub-network keeps; the whole space without it.

    Raises:
        GraphError: if a file does not fit its search space.
        RecipeError: if the space, its options or the input size are not valid.
    """
    if arch_path is not None:
        arch = read_arch(arch_path)
        built = plugins.space(arch.space, arch.options)
        num_landmarks, input_size = arch.num_landmarks, input_size or arch.input_size
        graph = arch.subgraph(built.graph)
    else:
        assert space is not None
        built = plugins.space(space, options)
        graph = built.graph
        if edges_path is not None:
            graph = graph.keep(edge_list(rundir.read_text(edges_path, "a list of edges (JSON)"), str(edges_path)))
    input_size = input_size or 256
    check_size(input_size, built)
    return cost_report(count_space(built, num_landmarks, input_size), graph)


def cost_report(costs: Costs, graph: Graph) -> dict[str, Any]:
    """Return the costs of a sub-graph as plain numbers for JSON: in total, without the head, and by stage."""
    whole, bare = costs.total(graph), costs.without_head(graph)
    full = costs.space.graph
    return {
        "space": costs.space.name,
        "options": dict(costs.space.options),
        "input_size": costs.input_size,
        "num_landmarks": costs.num_landmarks,
        "params": whole.params,
        "macs": whole.macs,
        "params_no_head": bare.params,
        "macs_no_head": bare.macs,
        "edges": len(graph.edges),
        "edges_full": len(full.edges),
        "blocks": len(graph.blocks),
        "blocks_full": len(full.blocks),
        "prunable_share": costs.prunable(graph).macs / max(1, costs.prunable(full).macs),
        "stages": {name: {"params": c.params, "macs": c.macs} for name, c in costs.by_stage(graph).items()},
    }
