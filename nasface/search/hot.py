"""Prune while hot: edges go while the learning rate is high, and the same schedule then anneals what is left.

Searching first and fine-tuning afterwards anneals the supernet, breaks it, and warms the slim network up again. Here,
one schedule covers both: while the learning rate is high, the least important edges go at the start of every epoch and
cost nothing from then on; the rest of the epochs trains the slim network to the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Interval
from torch import Tensor, nn

from nasface.context import Context
from nasface.errors import GraphError
from nasface.graph import Graph
from nasface.net import GraphNet
from nasface.prune import budget
from nasface.search.budget import switch_off
from nasface.step import Phase

Share = Annotated[float, Interval(ge=0, le=1)]


@dataclass(frozen=True)
class HotSearcher:
    """Prunes to a budget while it trains, by the recipe's criterion, and chooses the sub-network itself.

    Every edge is dropped for good. The networks on the way are nested, and their MACs fall geometrically.

    Attributes:
        macs: the budget: multiply-adds of the whole slim network.
        start: the part of the epochs after which the first edges go.
        end: the part of the epochs after which the budget is met; the rest is for the slim network.
    """

    macs: Annotated[float, Ge(1)]
    start: Share = 0.15
    end: Share = 0.5

    def search(self, net: GraphNet, context: Context) -> Graph:
        """Train the weights, and drop edges before each of the epochs between `start` and `end`.

        Raises:
            GraphError: if the budget cannot be met without disconnecting the network, or if `end` lies before `start`.
        """
        if self.end < self.start:
            raise GraphError(f"the searcher option end ({self.end}) lies before start ({self.start}); swap them")
        model = Shrinking(net)
        full = context.costs.total(net.graph).macs
        # A budget that no network meets is refused before the training.
        budget(net.graph, dict.fromkeys(net.graph.prunable, 1.0), context.costs, macs=int(self.macs), tolerance=1)

        def begin(epoch: int) -> None:
            limit = int(self.limit(epoch, context.epochs, full))
            if context.costs.total(model.graph).macs > limit:
                importance = context.rate(model.graph)
                model.shrink(budget(model.graph, importance, context.costs, macs=limit, tolerance=1))

        weights = tuple(net.parameters())
        context.fit([Phase("weights", weights, context.optimizer, context.step, begin=begin)], net=model)
        switch_off(net, model.graph)
        return model.graph

    def limit(self, epoch: int, epochs: int, full: int) -> float:
        """Return the most MACs that the network may have in an epoch, counted from 0, if the supernet has `full`."""
        last = min(round(self.end * epochs), epochs - 1)
        first = min(round(self.start * epochs), last)
        done = min(max(epoch - first + 1, 0) / (last - first + 1), 1.0)
        return float(full * (self.macs / full) ** done)


class Shrinking(nn.Module):
    """A network that runs as one of its sub-graphs; which one is part of its state, and so of every checkpoint.

    Attributes:
        net: the network, whose parameters stay as they are.
        kept: (number of edges,) whether each edge of `net` is in the sub-graph.
    """

    kept: Tensor

    def __init__(self, net: GraphNet) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("kept", torch.ones(len(net.graph.edges), dtype=torch.bool))

    @property
    def graph(self) -> Graph:
        """The sub-graph."""
        edges = [edge for edge, kept in zip(self.net.graph.edges, self.kept.tolist(), strict=True) if kept]
        if len(edges) == len(self.net.graph.edges):
            return self.net.graph
        return self.net.graph.keep(edges)

    def shrink(self, graph: Graph) -> None:
        """Run as `graph` from now on."""
        edges = set(graph.edges)
        self.kept.copy_(torch.tensor([edge in edges for edge in self.net.graph.edges]))

    def forward(self, images_B3HW: Tensor) -> Tensor:
        """Compute the heatmaps (B, L, h, w) of the sub-graph."""
        out: Tensor = self.net(images_B3HW, graph=self.graph)
        return out
