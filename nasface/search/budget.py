"""What searchers that choose a sub-network share: its budget, how strong each edge is, and what each one costs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from nasface.cost import Costs
from nasface.errors import GraphError, RecipeError
from nasface.graph import Edge, Graph, Node
from nasface.net import GraphNet, gains, masked
from nasface.prune.limit import SLACK


@dataclass(frozen=True)
class Budget:
    """The most MACs that a sub-network may have.

    Attributes:
        graph: the graph in which the sub-network is sought.
        costs: costs of its parts.
        limit: largest number of MACs.
        whole: whether the whole network counts, or only the prunable part: all except stem, stage 1 and head.

    Raises:
        GraphError: if no sub-network is known to meet the budget; it names the smallest one found.
    """

    graph: Graph
    costs: Costs
    limit: int
    whole: bool = True

    def __post_init__(self) -> None:
        smallest = self.measure(self.cheapest(self.graph))
        if smallest > self.limit:
            if self.whole:
                least, part = f"{smallest} MACs", ""
            else:
                every = self.costs.prunable(self.costs.space.graph).macs
                least, part = f"a share of {math.ceil(1e4 * smallest / every) / 1e4}", "prunable "
            raise GraphError(
                f"the searcher's budget is {self.limit:,} {part}MACs, but the smallest sub-network found has "
                f"{smallest:,}; give search.options a budget of at least {least}"
            )

    @classmethod
    def of(cls, graph: Graph, costs: Costs, share: float | None, macs: int | None) -> Budget | None:
        """Return the budget that a searcher's options describe, or None if they give none.

        Args:
            graph: the graph in which the sub-network is sought.
            costs: costs of the space.
            share: largest share of the space's prunable MACs, or None.
            macs: largest number of MACs of the whole network, or None.

        Raises:
            RecipeError: if both are given.
            GraphError: if the budget cannot be met.
        """
        if share is not None and macs is not None:
            raise RecipeError(
                f"the options of the searcher give two budgets, share {share:g} and macs {macs}; leave one of them out"
            )
        if macs is not None:
            return cls(graph, costs, macs)
        return None if share is None else cls(graph, costs, int(share * costs.prunable(costs.space.graph).macs), False)

    @classmethod
    def none(cls, graph: Graph, costs: Costs) -> Budget:
        """Return the budget of the smallest sub-network, which limits a search only by keeping it connected."""
        unlimited = cls(graph, costs, costs.total(graph).macs)
        return cls(graph, costs, unlimited.measure(unlimited.cheapest(graph)))

    @cached_property
    def full(self) -> int:
        """The MACs of the graph before anything is dropped."""
        return self.measure(self.graph)

    def measure(self, graph: Graph) -> int:
        """Return the MACs of a sub-graph, counted as the budget is."""
        return (self.costs.total(graph) if self.whole else self.costs.prunable(graph)).macs

    def cheapest(self, graph: Graph) -> Graph:
        """Return the smallest sub-graph found among those that consist of a single path.

        They also have the fixed edges that closure keeps, which is why the path that is cheapest by itself need not be
        the answer: the cheapest path through each node is tried.
        """
        ahead = self._paths(graph.nodes, graph.inputs, [(src, dst, (src, dst)) for src, dst in graph.edges])
        back = self._paths(graph.nodes[::-1], graph.outputs, [(dst, src, (src, dst)) for src, dst in graph.edges])
        found = {(*ahead[node.id][1], *back[node.id][1]) for node in graph.nodes}
        return min((graph.keep_prunable(path) for path in sorted(found)), key=self.measure)

    def _paths(
        self, nodes: Sequence[Node], starts: Sequence[str], steps: Sequence[tuple[str, str, Edge]]
    ) -> dict[str, tuple[int, tuple[Edge, ...]]]:
        """Return the cheapest path from one of `starts` to each node, as its MACs and its edges."""
        into: dict[str, list[tuple[str, Edge]]] = {node.id: [] for node in nodes}
        for src, dst, edge in steps:
            into[dst].append((src, edge))
        best: dict[str, tuple[int, tuple[Edge, ...]]] = {}
        for node in nodes:
            ways: list[tuple[int, tuple[Edge, ...]]] = [(0, ())] if node.id in starts else []
            for src, edge in into[node.id]:
                macs, path = best[src]
                ways.append((macs + self.costs.edges[edge].macs, (*path, edge)))
            macs, path = min(ways)
            best[node.id] = (macs + self.costs.nodes[node.id].macs, path)
        return best

    def schedule(self, progress: float) -> int:
        """Return the most MACs allowed at a progress from 0 to 1: a cubic fall to the limit (Zhu and Gupta 2018)."""
        left = (1 - min(max(progress, 0.0), 1.0)) ** 3
        return self.limit + int(left * max(self.full - self.limit, 0))

    def within(self, kept: Graph, order: Sequence[Edge], limit: int | None = None) -> Graph:
        """Drop edges, in this order as far as possible, until a sub-graph has at most `limit` MACs.

        An edge stays in its turn if dropping it would disconnect the network, put the budget out of reach, or end more
        than 2 % below the budget while some other edge would not. If the result is that far below nevertheless, the
        last of the dropped edges are taken back as far as they fit.

        Args:
            kept: a sub-graph that contains a network within the budget.
            order: all its prunable edges, the first to be dropped first.
            limit: largest number of MACs, not below that of the budget, which is the default.
        """
        limit = self.limit if limit is None else limit
        if self.measure(kept) <= limit:
            return kept
        low, high = 0, len(order)  # as many edges as possible are dropped at once, so that more than `limit` is left
        while high - low > 1:
            middle = (low + high) // 2
            rest = self._without(kept, order[:middle])
            if rest is None or self.measure(rest) <= limit:
                high = middle
            else:
                low = middle
        rest = self._without(kept, order[:low]) or kept
        while self.measure(rest) > limit:
            rest = self._drop_one(rest, order)
        return self._filled(rest, kept, order, limit)

    def drop(self, kept: Graph, edges: Iterable[Edge]) -> Graph:
        """Drop those of `edges`, in turn, without which the network is connected and not more than 2 % below budget."""
        for edge in edges:
            if self.measure(kept) <= self.limit:
                break
            rest = self._without(kept, [edge])
            if rest is not None and self.measure(rest) >= (1 - SLACK) * self.limit:
                kept = rest
        return kept

    def _drop_one(self, kept: Graph, order: Sequence[Edge]) -> Graph:
        """Drop the first edge that does not end far below the budget, or else the one that ends the closest to it."""
        left = set(kept.prunable)
        far: list[tuple[int, Graph]] = []
        for edge in order:
            rest = self._without(kept, [edge]) if edge in left else None
            if rest is not None:
                macs = self.measure(rest)
                if macs >= (1 - SLACK) * self.limit:
                    return rest
                far.append((macs, rest))
        # Never empty: each edge that is not part of the cheapest network, which meets the budget, can be dropped.
        return max(far, key=lambda found: found[0])[1]

    def _filled(self, rest: Graph, kept: Graph, order: Sequence[Edge], limit: int) -> Graph:
        """Take back edges of `kept`, the last of the order first, while what is left is more than 2 % below `limit`."""
        for edge in reversed(order):
            if self.measure(rest) >= (1 - SLACK) * limit:
                break
            more = kept.keep_prunable([*rest.prunable, edge])
            if self.measure(more) <= limit:
                rest = more
        return rest

    def _without(self, kept: Graph, edges: Sequence[Edge]) -> Graph | None:
        """Return what is left without some edges, or None if no network within the budget is."""
        dropped = set(edges)
        try:
            rest = kept.keep_prunable(edge for edge in kept.prunable if edge not in dropped)
        except GraphError:
            return None
        if set(self._path) <= set(rest.prunable):  # saves another search for the cheapest network
            return rest
        return rest if self.measure(self.cheapest(rest)) <= self.limit else None

    @cached_property
    def _path(self) -> tuple[Edge, ...]:
        return self.cheapest(self.graph).prunable


def strengths(net: GraphNet) -> Tensor:
    """Return (number of prunable edges,) |alpha| times the mean |gain| of the BN that ends the edge.

    Factor and gain multiply the same map. A small factor with a large gain is as strong as the reverse, and only their
    product says how much of the map passes.
    """
    return net.alpha.detach().abs() * gains(net)


def rivals(graph: Graph) -> Tensor:
    """Return (number of prunable edges,) the number of the group of each edge.

    The edges into a node form a group, because only their relative strengths matter: BN undoes a common factor. All
    edges into output nodes are one group, so that an output may lose all of its edges to others.
    """
    names = {node.id: "" if node.id in graph.outputs else node.id for node in graph.nodes}
    number = {name: i for i, name in enumerate(dict.fromkeys(names.values()))}
    return torch.tensor([number[names[dst]] for _, dst in graph.prunable], dtype=torch.long)


def group_sums(values: Tensor, groups: Tensor) -> Tensor:
    """Return for each edge the sum of the values (number of prunable edges,) in its group."""
    sums = values.new_zeros(int(groups.max()) + 1).index_add(0, groups, values)
    return sums[groups]


def cost_weights(kept: Graph, budget: Budget, power: float) -> dict[Edge, float]:
    """Return a weight for each prunable edge, with mean 1, which rises with what its removal would save.

    An edge is charged its own MACs, an equal part of the encoder it reads (which goes with the last edge that reads
    it), and for an output node, an equal part of what the head would save without that node.

    Args:
        kept: the sub-graph that is left.
        budget: says whether the head counts.
        power: exponent of the cost; 0 gives each edge the same weight.
    """
    costs = budget.costs
    readers: dict[str, int] = {}
    for src, _ in kept.edges:
        readers[src] = readers.get(src, 0) + 1
    head = dict.fromkeys(kept.outputs, 0)
    if budget.whole and len(kept.outputs) > 1:
        for name in kept.outputs:
            others = tuple(other for other in kept.outputs if other != name)
            head[name] = max(costs.head(kept.outputs).macs - costs.head(others).macs, 0)

    def charged(src: str, dst: str) -> float:
        encoder = 0 if src in kept.inputs else costs.nodes[src].macs
        return costs.edges[src, dst].macs + encoder / readers[src] + head.get(dst, 0) / len(kept.parents[dst])

    macs = {edge: charged(*edge) for edge in kept.prunable}
    mean = sum(macs.values()) / max(len(macs), 1) or 1.0
    raised = {edge: (value / mean) ** power for edge, value in macs.items()}
    mean = sum(raised.values()) / max(len(raised), 1) or 1.0
    return {edge: value / mean for edge, value in raised.items()}


def sub_graph(graph: Graph, on: Sequence[bool]) -> Graph:
    """Return the closed sub-graph of the prunable edges that are on.

    Raises:
        GraphError: if they connect no input to an output.
    """
    return graph.keep_prunable(edge for edge, here in zip(graph.prunable, on, strict=True) if here)


def switch_off(net: GraphNet, kept: Graph) -> None:
    """Set to zero, in place, the factors and the head's channels that do not belong to a sub-graph."""
    left = set(kept.prunable)
    with torch.no_grad():
        net.alpha.mul_(torch.tensor([float(edge in left) for edge in net.graph.prunable], device=net.alpha.device))
    if kept.outputs != net.graph.outputs:
        net.head.load_state_dict(masked(net, kept).head.state_dict())
