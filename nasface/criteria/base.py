"""The criterion protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from nasface.context import Context
from nasface.graph import Edge
from nasface.net import GraphNet


class Criterion(Protocol):
    """A criterion plug-in: an entry point in the group `nasface.criteria`, which takes its options by keyword."""

    def __call__(self, net: GraphNet, context: Context) -> Mapping[Edge, float]:
        """Return a finite, non-negative importance for every prunable edge. Pruners drop the least important first.

        Args:
            net: the searched supernet, which must not be changed.
            context: the task, the data, and the functions with which to measure.
        """
        ...
