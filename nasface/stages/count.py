"""Parameters and multiply-adds of a space or a sub-network, by stage."""

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
    """What `nasface count` reports of a space, of its sub-network by an edge list, or of an arch.json."""
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
    """Plain integers for JSON: totals, the same without head, and by stage."""
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
