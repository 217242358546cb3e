"""Pruners: pure functions (graph, factors, costs) -> closed sub-graph. Plug-ins take their options by keyword.

An edge is kept when its importance exceeds a threshold; the pruners differ in how they find it. Fixed edges
have no importance: they stay wherever closure lets them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Protocol

import numpy as np
from annotated_types import Ge, Interval

from nasface.cost import Costs
from nasface.errors import GraphError
from nasface.graph import Edge, Graph

Importance = Mapping[Edge, float]


class Pruner(Protocol):
    """A pruner plug-in: an entry point in the group `nasface.pruners`, with its options as keyword arguments."""

    def __call__(self, graph: Graph, importance: Importance, costs: Costs) -> Graph:
        """Return the closed sub-graph to keep; GraphError when the choice would disconnect the network."""
        ...


def threshold(graph: Graph, importance: Importance, costs: Costs, *, threshold: Annotated[float, Ge(0)]) -> Graph:
    """Keep the edges whose importance is above `threshold` (the paper's criterion, section 3.1).

    Raises:
        GraphError: when nothing would connect input and output any more, with the largest threshold that does.
    """
    _check_importance(graph, importance)
    try:
        return above(graph, importance, threshold)
    except GraphError as err:
        limit, _ = _cheapest(graph, importance, costs)
        raise GraphError(
            f"threshold {threshold!r} would disconnect the network; the largest that keeps a path from input to "
            f"output is {limit!r}"
        ) from err


def share(
    graph: Graph, importance: Importance, costs: Costs, *, share: Annotated[float, Interval(gt=0, le=1)]
) -> Graph:
    """The largest network, by lowering the threshold, with at most `share` of the prunable MACs.

    Prunable are all MACs but those of stem, stage 1 and head. The MACs kept fall as the threshold rises, so
    bisection finds it.

    Raises:
        GraphError: when every connected network is larger, with the smallest share there is.
    """
    return _within(graph, importance, costs, share)


def _within(graph: Graph, importance: Importance, costs: Costs, share: float) -> Graph:
    _check_importance(graph, importance)
    full = costs.prunable(graph).macs
    try:
        return largest(graph, importance, lambda kept: costs.prunable(kept).macs, share * full)[1]
    except GraphError as err:
        _, smallest = _cheapest(graph, importance, costs)
        raise GraphError(
            f"no threshold gives a connected network with at most {share:.1%} of the prunable MACs; the smallest it "
            f"gives has {smallest / full:.1%} (the pruner 'greedy' may go further: --pruner greedy)"
        ) from err


def largest(
    graph: Graph, importance: Importance, measure: Callable[[Graph], float], limit: float
) -> tuple[float, Graph]:
    """The lowest threshold whose network measures at most `limit`, found by bisection, and that network.

    Args:
        graph: of the supernet.
        importance: of its edges.
        measure: falls as edges go, for example its MACs.
        limit: in the unit of `measure`.

    Raises:
        GraphError: when every connected network measures more.
    """
    _check_importance(graph, importance)
    steps = _thresholds(graph, importance)
    low, high = 0, len(steps)  # the first threshold that fits lies in [low, high)
    while low < high:
        middle = (low + high) // 2
        kept = _attempt(graph, importance, steps[middle])
        if kept is not None and measure(kept) > limit:
            low = middle + 1
        else:
            high = middle
    kept = _attempt(graph, importance, steps[low]) if low < len(steps) else None
    if kept is None:
        raise GraphError(f"no threshold gives a connected network within {limit:,.0f}")
    return steps[low], kept


def networks(graph: Graph, importance: Importance) -> list[tuple[float, Graph]]:
    """Every connected network that a threshold gives, the largest first, each with its lowest threshold.

    One threshold more or less often changes nothing: closure has dropped the edge already.
    """
    _check_importance(graph, importance)
    found: list[tuple[float, Graph]] = []
    for step in _thresholds(graph, importance):
        kept = _attempt(graph, importance, step)
        if kept is None:
            break
        if not found or kept.edges != found[-1][1].edges:
            found.append((step, kept))
    return found


def top(graph: Graph, importance: Importance, costs: Costs, *, edges: Annotated[int, Ge(1)]) -> Graph:
    """Keep the `edges` most important prunable edges, less what closure drops. Ties go by graph order."""
    _check_importance(graph, importance)
    ranked = sorted(graph.prunable, key=lambda edge: -importance[edge])
    return graph.keep_prunable(ranked[:edges])


def greedy(
    graph: Graph, importance: Importance, costs: Costs, *, share: Annotated[float, Interval(gt=0, le=1)]
) -> Graph:
    """Drop edges step by step, the least loss for the prunable MACs saved first, down to `share` of them.

    A stage is a cut that every path crosses, so what reaches the head is a product over stages. The loss of a
    step is how far it lowers the log of that product, a stage counting as the sum of the importances of the
    kept edges into it: the fewer edges a stage has left, the more each is worth. A threshold sees neither this
    nor what an edge costs, and can leave a stage with one edge. Dropping an edge takes along all that closure
    takes; a step that would disconnect the network is never taken.

    Raises:
        GraphError: when no step is left before the budget is met, with the share reached.
    """
    _check_importance(graph, importance)
    full = costs.prunable(graph).macs
    kept, macs, worth = graph, full, _worth(graph, importance)
    while macs > share * full:
        steps: list[tuple[float, int, Graph]] = []
        for edge in kept.prunable:
            try:
                rest = kept.keep_prunable(other for other in kept.prunable if other != edge)
            except GraphError:
                continue
            saved = macs - costs.prunable(rest).macs
            loss = worth - _worth(rest, importance)
            steps.append((loss / (saved + 1), len(steps), rest))  # an identity saves nothing: + 1 keeps it finite
        if not steps:
            raise GraphError(
                f"dropping edge by edge ends at {macs / full:.1%} of the prunable MACs, where every further edge would "
                f"disconnect the network; {share:.1%} is out of its reach"
            )
        kept = min(steps, key=lambda step: step[:2])[2]
        macs, worth = costs.prunable(kept).macs, _worth(kept, importance)
    return kept


def _worth(graph: Graph, importance: Importance) -> float:
    """Sum over stages of the log of the importance that enters; stages without prunable edges do not count."""
    stages: dict[int, float] = {}
    for edge in graph.prunable:
        stage = graph.node[edge[1]].stage
        stages[stage] = stages.get(stage, 0.0) + importance[edge]
    return sum(math.log(max(total, 1e-12)) for total in stages.values())


def random(
    graph: Graph,
    importance: Importance,
    costs: Costs,
    *,
    share: Annotated[float, Interval(gt=0, le=1)],
    seed: Annotated[int, Ge(0)] = 0,
) -> Graph:
    """The baseline that ignores the factors: random importances, then at most `share` of the prunable MACs."""
    drawn = np.random.default_rng(seed).random(len(graph.prunable)).tolist()
    return _within(graph, dict(zip(graph.prunable, drawn, strict=True)), costs, share)


def above(graph: Graph, importance: Importance, limit: float) -> Graph:
    """The closed sub-graph of the edges with importance above `limit`.

    Raises:
        GraphError: when it is disconnected, or an edge has no importance.
    """
    _check_importance(graph, importance)
    return graph.keep_prunable(edge for edge in graph.prunable if importance[edge] > limit)


def _attempt(graph: Graph, importance: Importance, limit: float) -> Graph | None:
    """`above`, or None where the network would be disconnected."""
    try:
        return above(graph, importance, limit)
    except GraphError:
        return None


def _check_importance(graph: Graph, importance: Importance) -> None:
    if missing := [edge for edge in graph.prunable if edge not in importance]:
        raise GraphError(f"the factors lack {len(missing)} edges of the graph, for example {' -> '.join(missing[0])}")


def _thresholds(graph: Graph, importance: Importance) -> list[float]:
    """Every threshold that gives another network, in rising order; the first keeps all that is above zero."""
    return [0.0, *sorted({importance[edge] for edge in graph.prunable if importance[edge] > 0})]


def _cheapest(graph: Graph, importance: Importance, costs: Costs) -> tuple[float, int]:
    """The largest threshold that leaves the network connected, and its prunable MACs."""
    for limit in reversed(_thresholds(graph, importance)):
        if (kept := _attempt(graph, importance, limit)) is not None:
            return limit, costs.prunable(kept).macs
    raise GraphError(
        "the edges of importance above zero connect no input to an output, so no threshold can prune this network; "
        "search again with a smaller penalty"
    )
