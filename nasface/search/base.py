"""The searcher protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from nasface.context import Context
from nasface.graph import Graph
from nasface.net import GraphNet


class Searcher(Protocol):
    """A searcher plug-in: an entry point in the group `nasface.searchers`, which takes its options by keyword.

    It works with any search space: it is given a supernet with its factors, and a context in which to train it.
    """

    def search(self, net: GraphNet, context: Context) -> Graph | Mapping[str, GraphNet] | None:
        """Train the supernet in place.

        Args:
            net: the supernet, on its device.
            context: the task, the data, and the functions with which to train.

        Returns:
            None, if a criterion and a pruner are to choose the sub-network. A searcher that chooses it itself returns
            its graph; the slim network then inherits the weights that `net` has at the end. A searcher that trains a
            family of networks returns these by name, on the device of `net`; the last one is the slim network.
        """
        ...
