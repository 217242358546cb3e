"""The pruner `budget`: the most important edges per cost within a budget of the whole network."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Annotated

from annotated_types import Interval, Len

from nasface.bounds import MAX_COUNT, Milliseconds, Portion, Share, Size
from nasface.cost import Costs
from nasface.errors import GraphError, RecipeError
from nasface.graph import Edge, Graph
from nasface.prune.base import Importance, check_importance, worth
from nasface.prune.latency import within_latency
from nasface.prune.limit import SLACK, Limit, check_one_budget, limit_of
from nasface.prune.programme import best, nearest

_CLOSE = 1 - SLACK  # share of the budget that steps should rather not fall below, however much of it may be left
_SECONDS = 10.0  # for the integer programme, which is only needed where steps miss the budget


def budget(
    graph: Graph,
    importance: Importance,
    costs: Costs,
    *,
    macs: Size | None = None,
    params: Size | None = None,
    share: Share | None = None,
    latency_ms: Milliseconds | None = None,
    runtime: str = "torch",
    tolerance: Portion = SLACK,
    per_cost: bool = True,
    via: Annotated[Sequence[Annotated[float, Interval(gt=0, le=1e15)]], Len(0, MAX_COUNT)] = (),
) -> Graph:
    """Meet a budget of MACs, parameters or latency by dropping what has the least importance per cost saved.

    A step drops an edge, or all edges into or out of a node, whichever loses the least summed importance for what it
    saves: the edges that closure removes, the encoders of nodes that nothing is left of, and what the head shrinks by.
    No step disconnects the network. A step that would miss the budget by more than the tolerance, such as one that
    drops a large output, is only taken if there is no other, and the budget that is left at the end goes to edges that
    fit in again.

    Args:
        graph: graph of the supernet.
        importance: importance of its edges.
        costs: costs of its parts.
        macs: largest number of multiply-adds of the whole network.
        params: largest number of parameters of the whole network.
        share: largest share of the prunable MACs.
        latency_ms: largest latency of the whole network for one image, in milliseconds; give exactly one of the four.
            Networks within several budgets of MACs are measured on the CPU of this machine until one fits.
        runtime: what runs them: 'torch', or the runtime of an export format, such as 'onnxruntime'.
        tolerance: a network that is smaller than the budget by more than this share of it is refused. It does not
            apply to latencies.
        per_cost: False drops edges in the order of their importance only, which suits importances that are ranks,
            such as those of the criterion `elimination`.
        via: larger budgets of the same kind, which are met first, each from the network of the one before. Networks
            of several budgets are nested if each is given the larger ones.

    Raises:
        GraphError: if no network meets the budget; it names the nearest ones.
        RecipeError: unless exactly one budget is given, or if a budget of `via` is smaller.
    """
    check_importance(graph, importance)
    check_one_budget("budget", macs, params, share, latency_ms)
    least = next(float(value) for value in (macs, params, share, latency_ms) if value is not None)
    if below := [value for value in via if value < least]:
        raise RecipeError(
            f"the option via of the pruner 'budget' holds {below[0]:.15g}, which is below the budget itself, "
            f"{least:.15g}; give larger budgets"
        )
    scale = costs.prunable(graph).macs if share is not None else 1
    for wanted in (*sorted(via, reverse=True), least):
        if latency_ms is not None:
            graph = within_latency(wanted, runtime, graph, costs, partial(_closest, graph, importance, costs, per_cost))
        else:
            limit = replace(limit_of(graph, costs, macs, params, share), value=scale * wanted)
            graph = _met(graph, importance, limit, tolerance, per_cost)
    return graph


def _closest(graph: Graph, importance: Importance, costs: Costs, per_cost: bool, macs: int) -> Graph:
    """Return a network within a budget of MACs, however far below it that is."""
    return _met(graph, importance, limit_of(graph, costs, macs), 1.0, per_cost)


def _met(graph: Graph, importance: Importance, limit: Limit, tolerance: float, per_cost: bool) -> Graph:
    """Return the most important network found within one budget; a GraphError if there is none."""
    least = (1 - tolerance) * limit.value
    found: list[Graph] = []
    orders = (True, False) if per_cost else (False,)  # at times single edges in order of importance fit better
    for floor, by_cost in product(dict.fromkeys((least, _CLOSE * limit.value, 0.0)), orders):
        kept = _descend(graph, importance, limit, floor, by_cost)
        if kept is not None:
            kept = _filled(graph, importance, limit, kept)
            if limit.measure(kept) >= least:
                found.append(kept)
    if not found and (kept := best(graph, importance, limit, least, _SECONDS)) is not None:
        found.append(kept)
    if not found:
        most, near = limit.words(limit.value), nearest(graph, limit, _SECONDS)
        if tolerance >= 1:
            raise GraphError(f"no connected network has at most {most}; {near}: ask for that, or take a smaller space")
        raise GraphError(
            f"no connected network has at most {most} and is less than {tolerance:.2%} smaller; {near}: ask for that, "
            "or allow a larger distance with the pruner's option tolerance"
        )
    return max(found, key=lambda kept: worth(kept, importance))


def _descend(graph: Graph, importance: Importance, limit: Limit, floor: float, per_cost: bool) -> Graph | None:
    """Take steps until the limit is met; None if no step is left before that.

    A step to a size below `floor` is only taken if there is no other.
    """
    rest = _Rest(graph, importance, limit)
    size = limit.measure(graph)
    while size > limit.value:
        step = rest.next(size - floor, per_cost)
        if step is None:
            return None
        rest.drop(step.gone)
        size -= step.saved
    return graph.keep(rest.kept)


@dataclass(frozen=True)
class _Step:
    """A step.

    Attributes:
        gone: the edges that go.
        saved: the cost that it saves.
        loss: the summed importance that it loses.
        first: the importance of the edge that it begins with.
    """

    gone: frozenset[Edge]
    saved: int
    loss: float
    first: float

    @property
    def rate(self) -> tuple[bool, float]:
        """The importance lost per cost saved, for sorting; steps that save nothing come last."""
        return (False, self.loss / self.saved) if self.saved else (True, self.loss)


class _Rest:
    """What is left of a graph while edges are dropped; always closed and connected."""

    def __init__(self, graph: Graph, importance: Importance, limit: Limit) -> None:
        self.graph, self.importance, self.limit = graph, importance, limit
        self.kept = dict.fromkeys(graph.edges)  # a set that keeps the order
        self.into: dict[str, set[Edge]] = {node.id: set() for node in graph.nodes}
        self.out: dict[str, set[Edge]] = {node.id: set() for node in graph.nodes}
        for edge in graph.edges:
            self.out[edge[0]].add(edge)
            self.into[edge[1]].add(edge)
        self.both = {*graph.inputs} & {*graph.outputs}  # these stay without any edge

    def next(self, most: float, per_cost: bool) -> _Step | None:
        """Return the next step; None if every step would disconnect the network.

        Args:
            most: a step that saves more than this is only taken if there is no other.
            per_cost: whether the importance lost per cost saved decides, or the importance of single edges.
        """
        prunable = [edge for edge in self.kept if edge not in self.graph.fixed]
        seeds = [frozenset({edge}) for edge in prunable]
        if per_cost:
            around = (edges - self.graph.fixed for side in (self.into, self.out) for edges in side.values())
            seeds += [frozenset(edges) for edges in around if len(edges) > 1]
        steps = [step for seed in seeds if (step := self._step(seed)) is not None]
        small = [step for step in steps if step.saved <= most]
        return min(small or steps, key=lambda step: step.rate if per_cost else step.first, default=None)

    def drop(self, gone: Iterable[Edge]) -> None:
        """Remove the edges of a step."""
        for edge in gone:
            del self.kept[edge]
            self.out[edge[0]].remove(edge)
            self.into[edge[1]].remove(edge)

    def _step(self, seed: frozenset[Edge]) -> _Step | None:
        """Return the step that drops some prunable edges and what closure then removes; None if it disconnects."""
        gone = self._closed(seed)
        outputs = tuple(name for name in self.graph.outputs if name in self.both or self.into[name] or self.out[name])
        after = tuple(name for name in outputs if name in self.both or (self.into[name] | self.out[name]) - gone)
        if not after:
            return None
        saved = sum(self.limit.edges[edge] for edge in gone)
        for name in {end for edge in gone for end in edge} - self.both:
            if not (self.into[name] | self.out[name]) - gone:
                saved += self.limit.nodes[name]
        if after != outputs:
            saved += self.limit.head(outputs) - self.limit.head(after)
        # fsum, so that the order of the set does not matter
        lost = math.fsum(self.importance[edge] for edge in gone if edge not in self.graph.fixed)
        return _Step(gone, saved, lost, min(self.importance[edge] for edge in seed))

    def _closed(self, seed: Iterable[Edge]) -> frozenset[Edge]:
        """Return the edges that go with those of `seed`, because no path from an input to an output is left for them.

        The graph is closed and has no cycles, so a node is unreached exactly if no edge into it is left.
        """
        gone = set(seed)
        pending = list(gone)
        while pending:
            src, dst = pending.pop()
            lost: set[Edge] = set()
            if dst not in self.graph.inputs and not self.into[dst] - gone:
                lost |= self.out[dst] - gone
            if src not in self.graph.outputs and not self.out[src] - gone:
                lost |= self.into[src] - gone
            gone |= lost
            pending += lost
        return frozenset(gone)


def _filled(graph: Graph, importance: Importance, limit: Limit, kept: Graph) -> Graph:
    """Add edges between nodes that are there, the most important one that fits first."""
    for edge in sorted(graph.prunable, key=lambda edge: -importance[edge]):
        if edge in kept.edges or edge[0] not in kept.node or edge[1] not in kept.node:
            continue
        more = graph.keep_prunable({*kept.prunable, edge})
        if limit.measure(more) <= limit.value:
            kept = more
    return kept
