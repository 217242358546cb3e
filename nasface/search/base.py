"""The searcher protocol."""

from __future__ import annotations

from typing import Protocol

from nasface.context import Context
from nasface.net import GraphNet


class Searcher(Protocol):
    """A searcher plug-in: an entry point in the group `nasface.searchers`, built from its options by keyword.

    It needs to know no search space: it sees a supernet with its factors, and a context to train it in.
    """

    def search(self, net: GraphNet, context: Context) -> None:
        """Train the supernet in place, so that a criterion can tell which edges matter.

        Args:
            net: the supernet, on its device.
            context: the task, the data and the means to train.
        """
        ...
