"""A network that gets smaller while it trains: what the searchers share that drop edges on the way."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nasface.context import Context
from nasface.graph import Graph
from nasface.net import GraphNet
from nasface.prune import budget


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

    def meet(self, macs: float, context: Context) -> None:
        """Drop what is least important by the recipe's criterion until the whole network has at most so many MACs."""
        if context.costs.total(self.graph).macs > macs:
            importance = context.rate(self.graph)
            self.shrink(budget(self.graph, importance, context.costs, macs=int(macs), tolerance=1))

    def forward(self, images_B3HW: Tensor) -> Tensor:
        """Compute the heatmaps (B, L, h, w) of the sub-graph."""
        out: Tensor = self.net(images_B3HW, graph=self.graph)
        return out


def check_budget(net: GraphNet, context: Context, macs: float) -> None:
    """Raise a GraphError if no sub-network found has at most so many MACs."""
    budget(net.graph, dict.fromkeys(net.graph.prunable, 1.0), context.costs, macs=int(macs), tolerance=1)


def between(full: float, macs: float, done: float) -> float:
    """Return the MACs on a geometric way from `full` to `macs`, of which the share `done` is behind."""
    return float(full * (macs / full) ** min(max(done, 0.0), 1.0))
