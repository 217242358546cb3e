"""Choose a sub-network of a searched run, without training."""

from __future__ import annotations

from pathlib import Path

import torch

from nasface import plugins, rundir
from nasface.arch import Architecture, Factors
from nasface.cost import Costs
from nasface.graph import Graph
from nasface.model.build import searched_net
from nasface.model.files import save_net
from nasface.net import slim_net
from nasface.recipe import Recipe
from nasface.rundir import RunDir
from nasface.sections import Plugin
from nasface.stages.machine import use_threads
from nasface.stages.score import score
from nasface.stages.workspace import Machine, check_free, claim, provenance


def prune(source: RunDir, recipe: Recipe, out: RunDir, machine: Machine) -> tuple[Costs, Graph]:
    """Choose a sub-network of a searched run by the criterion and the pruner of `recipe`, without training.

    Writes recipe.yaml, arch.json and slim.safetensors, the inherited weights, into `out`.

    Args:
        source: the searched run.
        recipe: its recipe, with another criterion or pruner if wanted.
        out: where the files are written.
        machine: device and progress, used where another criterion has to be computed.
    """
    job = {"job": "prune", "from": str(source.path.resolve())}
    check_free(out, recipe, job)  # a criterion may take long
    use_threads(recipe)
    factors, _ = score(recipe, source, recipe.criterion, machine)
    net, costs = searched_net(recipe, source, factors, torch.device("cpu"))
    graph = choose(recipe, factors, costs)
    claim(out, recipe, job)
    write_arch(out, graph, factors, recipe, source.supernet)
    save_net(out.slim, slim_net(net, graph)[0], recipe, source.supernet)
    return costs, graph


def choose(recipe: Recipe, factors: Factors, costs: Costs) -> Graph:
    """Return the sub-graph that the recipe's pruner keeps."""
    pruner = plugins.pruner(recipe.prune.name, recipe.prune.options)
    return pruner(costs.space.graph, factors.importance, costs)


def write_arch(
    run: RunDir, graph: Graph, factors: Factors, recipe: Recipe, weights: Path, chosen_by: Plugin | None = None
) -> Architecture:
    """Write the arch.json of a sub-graph of the searched network.

    Args:
        run: where it is written.
        graph: the sub-graph.
        factors: the factors of the search.
        recipe: of the run.
        weights: the weights to inherit from.
        chosen_by: the searcher, if it chose the sub-graph itself; by default the recipe's pruner.
    """
    chosen_by = chosen_by or recipe.prune
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
            "pruner": chosen_by.name,
            "pruner_options": chosen_by.options,
            "least_kept_importance": min(kept, default=None),
            "greatest_dropped_importance": max(dropped, default=None),
        },
    )
    rundir.write_text(run.arch, arch.to_json())
    return arch
