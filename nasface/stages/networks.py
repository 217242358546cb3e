"""Choosing a sub-network, and writing its arch.json."""

from __future__ import annotations

from pathlib import Path

from nasface import plugins, rundir
from nasface.arch import Architecture, Factors
from nasface.cost import Costs
from nasface.graph import Graph
from nasface.model.build import build_net, check_size, load_backbone, load_net, net_costs
from nasface.model.files import save_net
from nasface.model.source import arch_graph, read_arch, read_factors
from nasface.recipe import Recipe
from nasface.rundir import RunDir
from nasface.stages.workspace import provenance

__all__ = [
    "arch_graph", "build_net", "check_size", "choose", "load_backbone", "load_net", "net_costs", "read_arch",
    "read_factors", "save_net", "write_arch",
]  # fmt: skip


def choose(recipe: Recipe, factors: Factors, costs: Costs) -> Graph:
    """The sub-graph that the recipe's pruner keeps."""
    pruner = plugins.pruner(recipe.prune.name, recipe.prune.options)
    return pruner(costs.space.graph, factors.importance, costs)


def write_arch(run: RunDir, graph: Graph, factors: Factors, recipe: Recipe, weights: Path) -> Architecture:
    """Write arch.json for a sub-graph chosen from `factors`, naming the weights to inherit from."""
    edges = set(graph.edges)
    kept = [value for edge, value in factors.importance.items() if edge in edges]
    dropped = [value for edge, value in factors.importance.items() if edge not in edges]
    arch = Architecture(
        space=factors.space,
        options=factors.options,
        num_landmarks=factors.num_landmarks,
        input_size=recipe.data.input_size,
        graph_digest=factors.graph_digest,
        kept=graph.edges,
        provenance={
            **provenance(recipe),
            "run": str(weights.parent.resolve()),
            "weights": weights.name,
            "weights_sha256": rundir.file_digest(weights),
            "pruner": recipe.prune.name,
            "pruner_options": recipe.prune.options,
            "least_kept_importance": min(kept, default=None),
            "greatest_dropped_importance": max(dropped, default=None),
        },
    )
    rundir.write_text(run.arch, arch.to_json())
    return arch
