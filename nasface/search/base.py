"""The searcher protocol."""

from __future__ import annotations

from typing import Protocol

from nasface.context import Context
from nasface.net import GraphNet


class Searcher(Protocol):
    """A searcher plug-in: an entry point in the group `nasface.searchers`, which takes its options by keyword.

    It works with any search space: it is given a supernet with its factors, and a context in which to train it.
    """

    def search(self, net: GraphNet, context: Context) -> None:
        """Train the supernet in place, so that a criterion can rate its edges.

        Args:
            net: the supernet, on its device.
            context: the task, the data, and the functions with which to train.
        """
        ...
