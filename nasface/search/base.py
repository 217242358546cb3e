"""The searcher protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from nasface.graph import Edge
from nasface.net import GraphNet
from nasface.step import Batches, Fit, Optimizer, Step


class Searcher(Protocol):
    """A searcher plug-in: an entry point in the group `nasface.searchers`, built from its options by keyword.

    It knows no search space: it sees a supernet with its factors, a step and a way to train.
    """

    def search(
        self, net: GraphNet, step: Step, optimizer: Optimizer, fit: Fit, batches: Batches
    ) -> Mapping[Edge, float]:
        """Train `net` in place and give the importance of every prunable edge.

        Args:
            net: the supernet, on its device.
            step: the task's step; its 'loss' is what the task minimises.
            optimizer: of the weights, as the recipe says.
            fit: runs phases through the engine.
            batches: gives one pass of augmented training batches, the same at every call: to measure on.
        """
        ...
