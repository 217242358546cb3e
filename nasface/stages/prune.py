"""Choose a sub-network of a searched run, without training."""

from __future__ import annotations

import torch

from nasface import recipe as recipes
from nasface.arch import Factors, check_digest
from nasface.cost import Costs
from nasface.graph import Graph
from nasface.net import slim_net
from nasface.recipe import Recipe
from nasface.rundir import RunDir
from nasface.stages.networks import build_net, choose, load_net, net_costs, read_factors, save_net, write_arch
from nasface.stages.score import score
from nasface.stages.workspace import Machine, claim


def prune(source: RunDir, recipe: Recipe, out: RunDir, machine: Machine) -> tuple[Costs, Graph]:
    """Choose a sub-network of a searched run by the criterion and the pruner of `recipe`, without training.

    Writes recipe.yaml, arch.json and slim.safetensors, the inherited weights, into `out`.

    Args:
        source: the searched run.
        recipe: its recipe, with another criterion or pruner if wanted.
        out: where the files are written.
        machine: device and progress, used where another criterion has to be computed.
    """
    factors = _factors(source, recipe, machine)
    net = build_net(recipe, factors.num_landmarks, torch.device("cpu"))
    check_digest(str(source.factors), factors.graph_digest, net.graph)
    net = load_net(net, net.graph, source.supernet)
    costs = net_costs(net, recipe)
    graph = choose(recipe, factors, costs)
    claim(out, recipe, {"job": "prune", "from": str(source.path.resolve())})
    write_arch(out, graph, factors, recipe, source.supernet)
    save_net(out.slim, slim_net(net, graph)[0], recipe)
    return costs, graph


def _factors(source: RunDir, recipe: Recipe, machine: Machine) -> Factors:
    """Return the run's own factors where its criterion is wanted, else those of the recipe's criterion."""
    if recipe.criterion == recipes.load(str(source.recipe)).criterion:
        return read_factors(source.factors)
    return score(recipe, source, recipe.criterion, machine)
