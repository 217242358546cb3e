"""The searcher protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from nasface.context import Context
from nasface.graph import Graph
from nasface.net import GraphNet

Answer = Graph | Mapping[str, GraphNet] | None
"""What a searcher returns, see `Searcher.search`."""


@dataclass(frozen=True)
class Found:
    """What a search has found.

    Attributes:
        graph: the sub-graph that the searcher chose; None if a criterion and a pruner are to choose.
        networks: the networks of a family by name, which are trained already; empty for other searches.
        slim: the slim network among them.
    """

    graph: Graph | None
    networks: Mapping[str, GraphNet]
    slim: GraphNet | None

    @classmethod
    def of(cls, answer: Answer) -> Found:
        """Read what a searcher has returned."""
        if not isinstance(answer, Mapping):
            return cls(answer if isinstance(answer, Graph) else None, {}, None)
        slim = list(answer.values())[-1] if answer else None
        return cls(slim.graph if slim else None, answer, slim)


class Searcher(Protocol):
    """A searcher plug-in: an entry point in the group `nasface.searchers`, which takes its options by keyword.

    It works with any search space: it is given a supernet with its factors, and a context in which to train it.
    """

    def search(self, net: GraphNet, context: Context) -> Answer:
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
