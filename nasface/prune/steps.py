"""Pruners that count or drop edges one by one."""

from __future__ import annotations

import math
from typing import Annotated

from annotated_types import Interval

from nasface.bounds import Share
from nasface.cost import Costs
from nasface.errors import GraphError
from nasface.graph import Graph
from nasface.prune.base import Importance, check_importance


def top(
    graph: Graph, importance: Importance, costs: Costs, *, edges: Annotated[int, Interval(ge=1, le=1_000_000)]
) -> Graph:
    """Keep the `edges` most important prunable edges, except dead ends; of equal edges, the first in the graph."""
    check_importance(graph, importance)
    ranked = sorted(graph.prunable, key=lambda edge: -importance[edge])
    return graph.keep_prunable(ranked[:edges])


def greedy(graph: Graph, importance: Importance, costs: Costs, *, share: Share) -> Graph:
    """Drop edges one by one, each time the one with the least loss per MAC saved, down to `share` of the prunable MACs.

    Every path crosses every stage, so what reaches the head is a product over the stages. The value of a stage is the
    summed importance of its kept incoming edges, and the loss of a step is the drop of the log of the product of these
    values: the fewer edges a stage has left, the more each of them is worth. A threshold considers neither this nor the
    cost of an edge, and can leave a stage with a single edge. Dropping an edge also drops what closure then removes. A
    step that would disconnect the network is never taken.

    Raises:
        GraphError: if no step is left before the budget is met; it names the share reached.
    """
    check_importance(graph, importance)
    full = costs.prunable(graph).macs
    kept, macs, worth = graph, full, _worth(graph, importance)
    while macs > share * full:
        steps: list[tuple[float, int, Graph]] = []
        for edge in kept.prunable:
            rest = kept.without(edge)
            if rest is None:
                continue
            saved = macs - costs.prunable(rest).macs
            loss = worth - _worth(rest, importance)
            steps.append(
                (loss / (saved + 1), len(steps), rest)
            )  # an identity edge saves 0 MACs: + 1 keeps the ratio finite
        if not steps:
            raise GraphError(
                f"dropping edges one by one ends at {macs / full:.1%} of the prunable MACs, because dropping another "
                f"edge would disconnect the network; it cannot reach {share:.1%}, so ask for a larger share"
            )
        kept = min(steps, key=lambda step: step[:2])[2]
        macs, worth = costs.prunable(kept).macs, _worth(kept, importance)
    return kept


def _worth(graph: Graph, importance: Importance) -> float:
    """Return the sum over stages of the log of their incoming importance; stages without prunable edges count as 0."""
    stages: dict[int, float] = {}
    for edge in graph.prunable:
        stage = graph.node[edge[1]].stage
        stages[stage] = stages.get(stage, 0.0) + importance[edge]
    return sum(math.log(max(total, 1e-12)) for total in stages.values())  # importances may all be 0
