"""Prune while hot: edges go while the learning rate is high, and the same schedule then anneals what is left.

Searching first and fine-tuning afterwards anneals the supernet, breaks it, and warms the slim network up again. Here,
one schedule covers both: while the learning rate is high, the least important edges go at the start of every epoch and
cost nothing from then on; the rest of the epochs trains the slim network to the end.
"""

from __future__ import annotations

from dataclasses import dataclass

from nasface.bounds import Macs, Portion
from nasface.context import Context
from nasface.errors import GraphError
from nasface.graph import Graph
from nasface.net import GraphNet
from nasface.search.budget import switch_off
from nasface.search.shrinking import Shrinking, between, check_budget
from nasface.step import Phase


@dataclass(frozen=True)
class HotSearcher:
    """Prunes to a budget while it trains, by the recipe's criterion, and chooses the sub-network itself.

    Every edge is dropped for good. The networks on the way are nested, and their MACs fall geometrically.

    Attributes:
        macs: the budget: multiply-adds of the whole slim network.
        start: the part of the epochs after which the first edges go.
        end: the part of the epochs after which the budget is met; the rest is for the slim network.
    """

    macs: Macs
    start: Portion = 0.15
    end: Portion = 0.5

    def search(self, net: GraphNet, context: Context) -> Graph:
        """Train the weights, and drop edges before each of the epochs between `start` and `end`.

        Raises:
            GraphError: if the budget cannot be met without disconnecting the network, or if `end` lies before `start`.
        """
        if self.end < self.start:
            raise GraphError(f"the searcher option end ({self.end}) lies before start ({self.start}); swap them")
        model = Shrinking(net)
        full = context.costs.total(net.graph).macs
        check_budget(net, context, self.macs)  # before the training

        def begin(epoch: int) -> None:
            model.meet(self.limit(epoch, context.epochs, full), context)

        weights = tuple(net.parameters())
        context.fit([Phase("weights", weights, context.optimizer, context.step, begin=begin)], net=model)
        switch_off(net, model.graph)
        return model.graph

    def limit(self, epoch: int, epochs: int, full: int) -> float:
        """Return the most MACs that the network may have in an epoch, counted from 0, if the supernet has `full`."""
        last = min(round(self.end * epochs), epochs - 1)
        first = min(round(self.start * epochs), last)
        return between(full, self.macs, (epoch - first + 1) / (last - first + 1))
