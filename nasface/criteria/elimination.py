"""The order in which edges can go one after another, each time the one that costs the least error per MAC saved."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence

from nasface.bounds import Portion, Share
from nasface.context import Context
from nasface.cost import Costs
from nasface.errors import GraphError
from nasface.graph import Edge, Graph
from nasface.net import GraphNet

log = logging.getLogger(__name__)


def elimination(
    net: GraphNet,
    context: Context,
    *,
    share_per_round: Portion = 0.1,
    measured: Share = 0.3,
    down_to: Portion = 0.0,
) -> dict[Edge, float]:
    """Rate each edge by how late it is dropped when edges are eliminated one by one.

    Each round measures the held-out error of the network without each of its edges, after BN statistics are
    recalibrated, and drops the edges that raise it least per MAC that the whole network saves. The importance of an
    edge is the number of the step in which it was dropped, so that a threshold gives the networks on the way. Edges
    that were never dropped rank above, in the order in which they would have been.

    Args:
        net: the searched supernet.
        context: costs, and the function that measures the error.
        share_per_round: edges dropped per round, as a share of those that are left; at least one. Edges of the same
            node never go in the same round, because they may stand in for each other.
        measured: edges measured per round, as a share of those that are left: those that were the most promising when
            they were last measured. The first round measures all.
        down_to: share of the prunable MACs at which to stop. Edges whose removal would fall below it are kept.

    Raises:
        GraphError: if the error of the network cannot be measured.
    """
    kept = net.graph
    least = down_to * context.costs.prunable(kept).macs
    rates: dict[Edge, float] = {}
    steps: list[list[Edge]] = []
    while True:
        rests = {edge: rest for edge in kept.prunable if (rest := kept.without(edge)) is not None}
        able = [edge for edge, rest in rests.items() if context.costs.prunable(rest).macs >= least]
        if not able:
            break
        able.sort(key=lambda edge: rates.get(edge, -math.inf))
        promising = able[: math.ceil(measured * len(able))] if rates else able
        error = _error(context, kept)
        log.info("elimination: error %.4f with %d edges, %d of them measured", error, len(kept.edges), len(promising))
        rates |= {edge: _rate(context, kept, rests[edge], error) for edge in promising}
        promising.sort(key=rates.__getitem__)
        for rest in _one_round(kept, promising, max(1, round(share_per_round * len(able))), least, context.costs):
            steps.append([edge for edge in kept.prunable if edge not in rest.edges])
            kept = rest
    left = sorted(rests, key=lambda edge: rates.get(edge, math.inf))
    found = {edge: float(i) for i, step in enumerate([*steps, *([edge] for edge in left)], start=1) for edge in step}
    vital = 1.0 + len(steps) + len(left)  # of the edges without which the network would be disconnected
    return {edge: found.get(edge, vital) for edge in net.graph.prunable}


def _one_round(kept: Graph, ranked: Sequence[Edge], number: int, least: int | float, costs: Costs) -> Iterator[Graph]:
    """Yield the network after each step of a round, without the first of the ranked edges that can go together."""
    sources: set[str] = set()
    targets: set[str] = set()
    for edge in ranked:
        if number == 0:
            return
        if edge[0] in sources or edge[1] in targets or edge not in kept.edges:
            continue
        rest = kept.without(edge)
        if rest is None or costs.prunable(rest).macs < least:
            continue
        gone = set(kept.edges) - set(rest.edges)
        sources |= {src for src, _ in gone}
        targets |= {dst for _, dst in gone}
        kept, number = rest, number - 1
        yield kept


def _error(context: Context, graph: Graph) -> float:
    error = context.evaluate(graph)
    if math.isfinite(error):
        return error
    raise GraphError(
        f"the criterion 'elimination' cannot measure the held-out error, which is {error}; it needs held-out faces "
        "(data.held_out) and a network that has not diverged"
    )


def _rate(context: Context, graph: Graph, rest: Graph, error: float) -> float:
    """Return by how much the error rises per MAC that the whole network saves, or less where it does not rise."""
    rise = context.evaluate(rest) - error
    saved = 1 + context.costs.total(graph).macs - context.costs.total(rest).macs  # some edges save nothing
    if math.isnan(rise):
        return math.inf
    return rise / saved if rise > 0 else rise * saved
