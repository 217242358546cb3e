"""Choose a sub-network of a searched run, without training."""

from __future__ import annotations

import logging

import torch

from nasface.arch import check_digest
from nasface.cost import Costs
from nasface.graph import Graph
from nasface.net import slim_net
from nasface.recipe import Recipe
from nasface.rundir import RunDir
from nasface.stages.networks import build_net, choose, load_net, net_costs, read_factors, save_net, write_arch
from nasface.stages.workspace import claim

log = logging.getLogger(__name__)


def prune(source: RunDir, recipe: Recipe, out: RunDir) -> tuple[Costs, Graph]:
    """Choose a sub-network of a searched run by the pruner of `recipe`, without training.

    Writes recipe.yaml, arch.json and slim.safetensors, the inherited weights, into `out`.
    """
    factors = read_factors(source.factors)
    net = build_net(recipe, factors.num_landmarks, torch.device("cpu"))
    check_digest(str(source.factors), factors.graph_digest, net.graph)
    net = load_net(net, net.graph, source.supernet)
    costs = net_costs(net, recipe)
    graph = choose(recipe, factors, costs)
    claim(out, recipe, {"job": "prune", "from": str(source.path.resolve())})
    write_arch(out, graph, factors, recipe, source.supernet)
    save_net(out.slim, slim_net(net, graph)[0], recipe)
    return costs, graph
