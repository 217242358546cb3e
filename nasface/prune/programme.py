"""The pruner `exact`: the best network within a budget, as an integer programme."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Annotated, Any

import numpy as np
from annotated_types import Interval
from numpy.typing import NDArray

from nasface.bounds import Milliseconds, Portion, Share, Size
from nasface.cost import Costs
from nasface.errors import GraphError
from nasface.graph import Edge, Graph
from nasface.prune.base import Importance, check_importance
from nasface.prune.latency import within_latency
from nasface.prune.limit import Limit, check_one_budget, limit_of

log = logging.getLogger(__name__)

Variable = tuple[str, ...]
_CUTS = 50  # answers that rounding lets exceed the budget, after which the solver is given up


def exact(
    graph: Graph,
    importance: Importance,
    costs: Costs,
    *,
    macs: Size | None = None,
    params: Size | None = None,
    share: Share | None = None,
    latency_ms: Milliseconds | None = None,
    runtime: str = "torch",
    tolerance: Portion = 1.0,
    seconds: Annotated[float, Interval(gt=0, le=86_400)] = 60.0,
) -> Graph:
    """Keep the edges with the largest summed importance that fit into a budget: the optimum, which `budget` may miss.

    An integer programme (solved by HiGHS) with one binary variable per edge and per node: a kept edge needs both of its
    nodes, and a node needs a kept edge on either side unless it is an input or an output. The cost of the head may
    depend on pairs of output nodes, as it does for heads that concatenate; a head that depends on them in any other way
    is counted in full, which is safe but may leave something of the budget unused.

    Args:
        graph: graph of the supernet.
        importance: importance of its edges.
        costs: costs of its parts.
        macs: largest number of multiply-adds of the whole network.
        params: largest number of parameters of the whole network.
        share: largest share of the prunable MACs.
        latency_ms: largest latency of the whole network for one image, in milliseconds, see the pruner `budget`; give
            exactly one of the four.
        runtime: what runs networks whose latency is measured.
        tolerance: only networks that are smaller than the budget by at most this share of it are considered. With 1,
            the best network may leave much of the budget unused, for instance because it does without a large output.
        seconds: time limit, after which the best network found so far is taken; a warning then says how far from the
            best it may be.

    Raises:
        GraphError: if no connected network is within the budget (it names the sizes of the nearest ones), or if none
            was found in time.
        RecipeError: unless exactly one budget is given.
    """
    check_importance(graph, importance)
    check_one_budget("exact", macs, params, share, latency_ms)
    if latency_ms is not None:

        def choose(most: int) -> Graph:
            return exact(graph, importance, costs, macs=most, tolerance=tolerance, seconds=seconds)

        return within_latency(latency_ms, runtime, graph, costs, choose)
    limit = limit_of(graph, costs, macs, params, share)
    kept = best(graph, importance, limit, (1 - tolerance) * limit.value, seconds)
    if kept is None:
        room = f" and at most {tolerance:.2%} below it" if tolerance < 1 else ""
        raise GraphError(
            f"no connected network is within the budget of {limit.words(limit.value)}{room}; "
            f"{nearest(graph, limit, seconds)}"
        )
    return kept


def best(graph: Graph, importance: Importance, limit: Limit, least: float, seconds: float) -> Graph | None:
    """Return the network with the largest summed importance within a limit, and not smaller than `least`.

    Returns:
        The network, or None if there is none.

    Raises:
        GraphError: if none was found within so many seconds.
    """
    programme = _programme(graph, limit)
    greatest = max((importance[edge] for edge in graph.prunable), default=0.0) or 1.0
    value: dict[Variable, float] = {("edge", *edge): -importance[edge] / greatest for edge in graph.prunable}
    for _ in range(_CUTS):
        kept = programme.solve(value, least, limit.value, seconds)
        if kept is None or least <= limit.measure(kept) <= limit.value:
            return kept
        programme.exclude(kept)  # the solver takes a sum for equal to its bound if they differ by less than 1e-6
    raise GraphError(
        f"the solver finds only networks that miss the budget of {limit.words(limit.value)} by a rounding error; "
        "change the budget a little"
    )


def nearest(graph: Graph, limit: Limit, seconds: float) -> str:
    """Return words for a message: the sizes of the largest network below a limit and of the smallest one above it."""
    programme = _programme(graph, limit)
    negative = {name: -size for name, size in programme.sizes.items()}
    below = programme.solve(negative, 0.0, limit.value, seconds)
    above = programme.solve(programme.sizes, limit.value, 2 * limit.measure(graph), seconds)
    near = [limit.words(limit.measure(kept)) for kept in (below, above) if kept is not None]
    return f"nearest to it {'is one' if len(near) == 1 else 'are networks'} with {' and '.join(near)}"


@dataclass
class _Programme:
    """Which variables there are, and the linear constraints on them.

    Attributes:
        graph: the graph.
        variables: index of each variable: ("edge", source, target), ("node", name), and helpers.
        sizes: contribution of variables to the size of the network.
        base: size of what does not depend on any variable.
        rows: constraints: coefficients by variable, lower and upper bound.
        relaxed: variables that need not be integers.
    """

    graph: Graph
    variables: dict[Variable, int]
    sizes: dict[Variable, float]
    base: float
    rows: list[tuple[Mapping[Variable, float], float, float]]
    relaxed: set[Variable]

    def at_least(self, bound: float, terms: Mapping[Variable, float]) -> None:
        """Add the constraint that a sum is at least `bound`."""
        self.rows.append((terms, bound, np.inf))

    def add(self, *names: Variable) -> None:
        """Add variables between 0 and 1."""
        for name in names:
            self.variables.setdefault(name, len(self.variables))

    def exclude(self, kept: Graph) -> None:
        """Forbid one network."""
        edges = set(kept.edges)
        signs: dict[Variable, float] = {("edge", *edge): -1.0 if edge in edges else 1.0 for edge in self.graph.edges}
        self.at_least(1.0 - len(edges), signs)

    def solve(
        self, objective: Mapping[Variable, float], smallest: float, largest: float, seconds: float
    ) -> Graph | None:
        """Return the network that minimises an objective, of a size between two limits; None if there is none.

        Raises:
            GraphError: if none was found within so many seconds.
        """
        from scipy.optimize import Bounds, LinearConstraint, milp
        from scipy.sparse import csr_array

        rows = list(self.rows)
        if largest < np.inf:
            # in units of the budget, since the solver's tolerance is absolute
            scaled = {name: size / largest for name, size in self.sizes.items()}
            rows.append((scaled, (smallest - self.base) / largest, (largest - self.base) / largest))
        entries = [(i, self.variables[name], value) for i, row in enumerate(rows) for name, value in row[0].items()]
        at, of, values = zip(*entries, strict=True)
        places = np.array((at, of), np.int32)  # the solver of scipy 1.11 takes no other integers
        matrix = csr_array((values, tuple(places)), shape=(len(rows), len(self.variables)))
        target: NDArray[np.float64] = np.zeros(len(self.variables))
        for name, value in objective.items():
            target[self.variables[name]] = value
        found: Any = milp(
            target / max(1e-300, float(np.abs(target).max())),
            integrality=[name not in self.relaxed for name in self.variables],
            bounds=Bounds(0, 1),
            constraints=LinearConstraint(matrix, [row[1] for row in rows], [row[2] for row in rows]),
            options={"mip_rel_gap": 0.0, "time_limit": seconds},
        )
        if found.status == 2:  # infeasible
            return None
        if found.x is None:
            raise GraphError(
                f"the solver found no network within {seconds:g} seconds ({found.message}); give it more with the "
                "option seconds, or use the pruner 'budget'"
            )
        if found.status == 1:  # out of time
            log.warning(
                "the solver was stopped after %g s: its network may be up to %.2g %% from the best",
                seconds, 100 * float(found.mip_gap),
            )  # fmt: skip
        chosen = [e for e in self.graph.prunable if found.x[self.variables["edge", *e]] > 0.5]
        return self.graph.keep_prunable(chosen)


def _programme(graph: Graph, limit: Limit) -> _Programme:
    """Return the programme whose solutions are the closed and connected sub-graphs, with the sizes of their parts."""
    edges: dict[Variable, float] = {("edge", *edge): float(limit.edges[edge]) for edge in graph.edges}
    nodes: dict[Variable, float] = {("node", node.id): float(limit.nodes[node.id]) for node in graph.nodes}
    programme = _Programme(graph, {}, edges | nodes, float(limit.base), [], set())
    programme.add(*edges, *nodes)
    out = _by_end(graph.edges, 0)
    into = _by_end(graph.edges, 1)
    for node in graph.nodes:
        own: Variable = ("node", node.id)
        for edge in (*into.get(node.id, ()), *out.get(node.id, ())):
            programme.at_least(0, {own: 1, edge: -1})
        # since the graph has no cycles, an edge on either side of every node means a path through it
        if node.id not in graph.inputs:
            programme.at_least(0, {own: -1} | dict.fromkeys(into.get(node.id, ()), 1.0))
        if node.id not in graph.outputs:
            programme.at_least(0, {own: -1} | dict.fromkeys(out.get(node.id, ()), 1.0))
        if node.id in graph.inputs and node.id in graph.outputs:
            programme.at_least(1, {own: 1})
    programme.at_least(1, {("node", name): 1.0 for name in graph.outputs})
    _add_fixed(programme)
    _add_head(programme, limit)
    return programme


def _by_end(edges: Iterable[Edge], end: int) -> dict[str, list[Variable]]:
    found: dict[str, list[Variable]] = {}
    for edge in edges:
        found.setdefault(edge[end], []).append(("edge", *edge))
    return found


def _add_fixed(programme: _Programme) -> None:
    """Keep the fixed edges that closure keeps: those from a node that is reached to a node that reaches an output."""
    graph = programme.graph
    if not graph.fixed:
        return
    for node in graph.nodes:
        reached, useful = ("reached", node.id), ("useful", node.id)
        programme.add(reached, useful)
        programme.relaxed |= {reached, useful}
        if node.id in graph.inputs:
            programme.at_least(1, {reached: 1})
        if node.id in graph.outputs:
            programme.at_least(1, {useful: 1})
    for src, dst in graph.edges:
        is_there: dict[Variable, float] = {} if (src, dst) in graph.fixed else {("edge", src, dst): -1.0}
        bound = -float(len(is_there))
        programme.at_least(bound, {("reached", dst): 1.0, ("reached", src): -1.0} | is_there)
        programme.at_least(bound, {("useful", src): 1.0, ("useful", dst): -1.0} | is_there)
        if (src, dst) in graph.fixed:
            programme.at_least(-1, {("edge", src, dst): 1.0, ("reached", src): -1.0, ("useful", dst): -1.0})


def _add_head(programme: _Programme, limit: Limit) -> None:
    """Add the size of the head: of each output node, of each pair of them, and what every head has."""
    outputs = programme.graph.outputs
    alone = {name: float(limit.head((name,))) for name in outputs}
    both = {pair: float(limit.head(pair)) for pair in combinations(outputs, 2)}
    whole = float(limit.head(outputs))
    # size(S) = always + sum of (alone - always) over S + sum of (both - alone - alone + always) over the pairs of S;
    # the size of the whole head gives `always`, which cancels out for two outputs
    pairs = {(a, b): size - alone[a] - alone[b] for (a, b), size in both.items()}
    times = 1 - len(outputs) + len(pairs)
    known = sum(alone.values()) + sum(pairs.values())
    always = (whole - known) / times if times else 0.0
    if not _explains(limit, outputs, alone, pairs, always):
        programme.base += whole
        return
    programme.base += always
    for name in outputs:
        programme.sizes["node", name] += alone[name] - always
    for (a, b), size in pairs.items():
        if size + always == 0:
            continue
        pair = ("pair", a, b)
        programme.add(pair)
        programme.relaxed.add(pair)  # it is 1 exactly if both nodes are there
        programme.sizes[pair] = size + always
        programme.at_least(0, {("node", a): 1.0, pair: -1.0})
        programme.at_least(0, {("node", b): 1.0, pair: -1.0})
        programme.at_least(-1, {pair: 1.0, ("node", a): -1.0, ("node", b): -1.0})


def _explains(
    limit: Limit,
    outputs: tuple[str, ...],
    alone: Mapping[str, float],
    pairs: Mapping[tuple[str, str], float],
    always: float,
) -> bool:
    """Return whether nodes and pairs explain the size of the head, by heads that were not used to find them."""
    for start in range(len(outputs)):
        some = outputs[start:]
        size = always + sum(alone[name] - always for name in some)
        size += sum(value + always for pair, value in pairs.items() if {*pair} <= {*some})
        if abs(size - limit.head(some)) > 0.5:
            return False
    return True
