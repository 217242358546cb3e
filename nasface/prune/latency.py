"""Budgets of latency: networks are chosen by their MACs, and measured until one is fast enough."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NamedTuple

from nasface.cost import Costs
from nasface.errors import GraphError
from nasface.graph import Graph
from nasface.prune.limit import SLACK

log = logging.getLogger(__name__)

_ROUNDS = 8  # networks measured at most, besides the one that is pruned
_AIM = 1 - SLACK / 2  # share of the budget at which the next network is aimed: most measurements are a little off


class _Point(NamedTuple):
    macs: float
    ms: float


def within_latency(ms: float, runtime: str, graph: Graph, costs: Costs, choose: Callable[[int], Graph]) -> Graph:
    """Return the slowest network found whose latency, measured on this machine, is within a budget.

    The latency of a network is not the sum of its parts' latencies, but it rises with its MACs. So networks for several
    budgets of MACs are measured, each budget interpolated between the nearest two that were too slow and fast enough,
    until one is at most 2 % faster than the budget or interpolation finds nothing new.

    Args:
        ms: largest latency in milliseconds.
        runtime: what runs the networks, see `Costs.latency`.
        graph: the graph to be pruned.
        costs: costs of the search space, which measure latencies.
        choose: returns a sub-graph with at most so many MACs in the whole network.

    Raises:
        GraphError: if no network is found that is fast enough; it names the fastest one.
    """

    def measured(kept: Graph) -> _Point:
        point = _Point(costs.total(kept).macs, costs.latency(kept, runtime).latency_ms)
        log.info("%.1f M MACs, %d edges: %.3f ms", point.macs / 1e6, len(kept.edges), point.ms)
        return point

    slow, fast = measured(graph), None
    if slow.ms <= ms:
        return graph
    best, seen = None, {graph.edges}
    asked = slow.macs * _AIM * ms / slow.ms
    for _ in range(_ROUNDS):
        try:
            kept = choose(max(1, int(asked)))
        except GraphError as err:
            if best is None:
                raise GraphError(_too_slow(ms, slow, runtime)) from err
            break
        if kept.edges in seen:
            break
        seen.add(kept.edges)
        point = measured(kept)
        if point.ms > ms:
            slow = min(slow, point)
        elif fast is None or point.ms > fast.ms:
            best, fast = kept, point
            if point.ms >= (1 - SLACK) * ms:
                break
        asked = _next(slow, fast, _AIM * ms)
    if best is None:
        raise GraphError(_too_slow(ms, slow, runtime))
    return best


def _next(slow: _Point, fast: _Point | None, ms: float) -> float:
    """Return the MACs at which a latency is expected, from networks that are slower and faster."""
    if fast is None:
        return slow.macs * min(0.95, ms / slow.ms)
    part = (ms - fast.ms) / (slow.ms - fast.ms)
    return fast.macs + min(max(part, 0.05), 0.95) * (slow.macs - fast.macs)


def _too_slow(ms: float, nearest: _Point, runtime: str) -> str:
    return (
        f"no connected network was found that takes at most {ms:g} ms in {runtime} on this machine; the fastest one "
        f"that was measured has {nearest.macs:,.0f} MACs and takes {nearest.ms:.3g} ms: ask for more, or search a "
        "smaller space"
    )
