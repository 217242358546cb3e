"""The criterion protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from nasface.context import Context
from nasface.graph import Edge
from nasface.net import GraphNet


class Criterion(Protocol):
    """A criterion plug-in: an entry point in the group `nasface.criteria`, with its options as keyword arguments."""

    def __call__(self, net: GraphNet, context: Context) -> Mapping[Edge, float]:
        """Return the importance of every prunable edge, finite and not negative; pruners drop the smallest first.

        Args:
            net: the searched supernet, which must be left as it is.
            context: the task, the data and the means to measure.
        """
        ...
