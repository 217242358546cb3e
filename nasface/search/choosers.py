"""Searchers that leave a searched supernet as it is, and choose a sub-network of it at most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt

from nasface.context import Context
from nasface.cost import Costs
from nasface.errors import GraphError
from nasface.graph import Edge, Graph
from nasface.net import GraphNet

CLOSE = 0.94  # the least part of the budget that a network uses


class AsSearched:
    """Trains nothing: criterion and pruner choose from the supernet as it is."""

    def search(self, net: GraphNet, context: Context) -> None:
        """Do nothing."""


@dataclass(frozen=True)
class BestOfRandom:
    """Draws random sub-networks within a budget, and chooses the one with the lowest held-out error as inherited.

    Attributes:
        macs: the budget: multiply-adds of the whole network.
        count: number of sub-networks.
        seed: of the draws.
    """

    macs: Annotated[float, Gt(0)]
    count: Annotated[int, Ge(1)] = 16
    seed: Annotated[int, Ge(0)] = 0

    def search(self, net: GraphNet, context: Context) -> Graph:
        """Choose among `count` draws, each with its BN statistics recalibrated."""
        random = np.random.default_rng(self.seed)
        drawn = [random_within(net.graph, context.costs, self.macs, random) for _ in range(self.count)]
        return min(drawn, key=context.evaluate)


def random_within(graph: Graph, costs: Costs, macs: float, random: np.random.Generator, attempts: int = 20) -> Graph:
    """Return a random connected sub-network whose MACs are within the budget, and close to it.

    Edges go in random order until the budget is met, apart from those without which nothing would be connected; then
    edges come back in random order as long as they fit.

    Raises:
        GraphError: if no draw of `attempts` has at least 94 % of the budget.
    """
    sizes = []
    for _ in range(attempts):
        kept = _refilled(_reduced(graph, costs, macs, random), graph, costs, macs, random)
        sizes.append(costs.total(kept).macs)
        if CLOSE * macs <= sizes[-1] <= macs:
            return kept
    near = min(sizes, key=lambda size: abs(size - macs))
    raise GraphError(
        f"none of {attempts} random sub-networks has between {CLOSE:.0%} and all of {macs:,.0f} MACs; the nearest one "
        f"has {near:,}: change the budget or the space"
    )


def _reduced(graph: Graph, costs: Costs, macs: float, random: np.random.Generator) -> Graph:
    kept = graph
    for edge in _shuffled(graph.prunable, random):
        if costs.total(kept).macs <= macs:
            break
        if edge in kept.edges:
            kept = kept.without(edge) or kept
    return kept


def _refilled(kept: Graph, graph: Graph, costs: Costs, macs: float, random: np.random.Generator) -> Graph:
    for edge in _shuffled(set(graph.prunable) - set(kept.edges), random):
        more = graph.keep_prunable({*kept.prunable, edge})
        if costs.total(more).macs <= macs:
            kept = more
    return kept


def _shuffled(edges: object, random: np.random.Generator) -> list[Edge]:
    found: list[Edge] = sorted(edges)  # type: ignore[call-overload]
    return [found[i] for i in random.permutation(len(found))]
