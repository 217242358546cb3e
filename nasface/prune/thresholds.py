"""Pruners that keep the edges whose importance exceeds a threshold, and differ in how they choose the threshold."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nasface.bounds import Seed, Share, Weight
from nasface.cost import Costs
from nasface.errors import GraphError
from nasface.graph import Graph
from nasface.prune.base import Importance, check_importance


def threshold(graph: Graph, importance: Importance, costs: Costs, *, threshold: Weight) -> Graph:
    """Keep the edges whose importance is above `threshold`, as in the paper (section 3.1).

    Raises:
        GraphError: if no path from an input to an output would be left; it names the largest threshold that leaves one.
    """
    check_importance(graph, importance)
    kept = _attempt(graph, importance, threshold)
    if kept is None:
        limit, _ = _smallest(graph, importance)
        raise GraphError(
            f"threshold {threshold!r} would disconnect the network; the largest threshold that keeps it connected is "
            f"{limit!r}"
        )
    return kept


def share(graph: Graph, importance: Importance, costs: Costs, *, share: Share) -> Graph:
    """Keep at most `share` of the prunable MACs, with the lowest threshold that does so.

    The prunable MACs are all except those of the stem, stage 1 and the head.

    Raises:
        GraphError: if every threshold leaves more; it names the smallest share that one leaves.
    """
    return _within(graph, importance, costs, share)


def _within(graph: Graph, importance: Importance, costs: Costs, share: float) -> Graph:
    full = costs.prunable(graph).macs

    def words(size: float) -> str:
        return f"{size / full:.1%} of the prunable MACs"

    return largest(graph, importance, lambda kept: costs.prunable(kept).macs, share * full, words)[1]


def largest(
    graph: Graph,
    importance: Importance,
    measure: Callable[[Graph], float],
    limit: float,
    words: Callable[[float], str] = "{:,.0f}".format,
) -> tuple[float, Graph]:
    """Return the lowest threshold whose network measures at most `limit`, and that network.

    Args:
        graph: graph of the supernet.
        importance: importance of its edges.
        measure: returns a size of a network, such as its MACs, which must not grow when edges are removed.
        limit: largest allowed size, in the unit of `measure`.
        words: returns a size in words, for a message.

    Raises:
        GraphError: if every connected network measures more; it names the size of the smallest one.
    """
    check_importance(graph, importance)
    steps = _thresholds(graph, importance)
    # Bisection: networks only shrink as the threshold rises. One that is disconnected counts as small enough.
    low, high = 0, len(steps)  # the lowest threshold that fits lies in [low, high)
    while low < high:
        middle = (low + high) // 2
        kept = _attempt(graph, importance, steps[middle])
        if kept is not None and measure(kept) > limit:
            low = middle + 1
        else:
            high = middle
    kept = _attempt(graph, importance, steps[low]) if low < len(steps) else None
    if kept is None:
        _, smallest = _smallest(graph, importance)
        raise GraphError(
            f"no threshold gives a connected network with at most {words(limit)}; the smallest network has "
            f"{words(measure(smallest))} (the pruner 'greedy' may go further: --pruner greedy)"
        )
    return steps[low], kept


def networks(graph: Graph, importance: Importance) -> list[tuple[float, Graph]]:
    """Return every connected network that a threshold gives, largest first, each with its lowest threshold.

    There are fewer networks than thresholds: often closure has already dropped the next edge.
    """
    check_importance(graph, importance)
    found: list[tuple[float, Graph]] = []
    for step in _thresholds(graph, importance):
        kept = _attempt(graph, importance, step)
        if kept is None:
            break
        if not found or kept.edges != found[-1][1].edges:
            found.append((step, kept))
    return found


def random(
    graph: Graph,
    importance: Importance,
    costs: Costs,
    *,
    share: Share,
    seed: Seed = 0,
) -> Graph:
    """Keep at most `share` of the prunable MACs by random importances: a baseline that ignores the factors."""
    drawn = np.random.default_rng(seed).random(len(graph.prunable)).tolist()
    return _within(graph, dict(zip(graph.prunable, drawn, strict=True)), costs, share)


def above(graph: Graph, importance: Importance, limit: float) -> Graph:
    """Return the closed sub-graph of the edges with an importance above `limit`.

    Raises:
        GraphError: if it is disconnected, or if an edge has no importance.
    """
    check_importance(graph, importance)
    return graph.keep_prunable(edge for edge in graph.prunable if importance[edge] > limit)


def _attempt(graph: Graph, importance: Importance, limit: float) -> Graph | None:
    """Return `above`, or None if the network would be disconnected; every edge has an importance."""
    try:
        return above(graph, importance, limit)
    except GraphError:
        return None


def _thresholds(graph: Graph, importance: Importance) -> list[float]:
    """Return in rising order every threshold that may give another network; the first keeps all above zero."""
    return [0.0, *sorted({importance[edge] for edge in graph.prunable if importance[edge] > 0})]


def _smallest(graph: Graph, importance: Importance) -> tuple[float, Graph]:
    """Return the largest threshold that leaves the network connected, and that network."""
    for limit in reversed(_thresholds(graph, importance)):
        if (kept := _attempt(graph, importance, limit)) is not None:
            return limit, kept
    raise GraphError(
        "the edges with an importance above zero connect no input to an output, so no threshold can prune this "
        "network; search again with a smaller penalty"
    )
