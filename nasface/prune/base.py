"""What all pruners share: their protocol, and the check of the importance that they are given."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

from nasface.cost import Costs
from nasface.errors import GraphError
from nasface.graph import Edge, Graph

Importance = Mapping[Edge, float]


class Pruner(Protocol):
    """A pruner plug-in: an entry point in the group `nasface.pruners`, which takes its options by keyword."""

    def __call__(self, graph: Graph, importance: Importance, costs: Costs) -> Graph:
        """Return the closed sub-graph to keep, or raise a GraphError if the choice would disconnect the network."""
        ...


def check_importance(graph: Graph, importance: Importance) -> None:
    """Raise a GraphError unless every prunable edge has an importance."""
    if missing := [edge for edge in graph.prunable if edge not in importance]:
        raise GraphError(
            f"edges of the graph have no factor ({len(missing)} of them, for example {' -> '.join(missing[0])}); "
            "use factors that were searched in this space"
        )


def worth(graph: Graph, importance: Importance) -> float:
    """Return the summed importance of the prunable edges of a network."""
    return math.fsum(importance[edge] for edge in graph.prunable)
