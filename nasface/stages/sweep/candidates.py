"""The networks that a sweep is asked for: by threshold, by count or by budget; each graph once."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nasface import plugins
from nasface.arch import Factors
from nasface.cost import Costs
from nasface.errors import GraphError, RecipeError
from nasface.graph import Graph
from nasface.prune import above, largest, networks

STEPS = 20  # of bisection over a share


@dataclass(frozen=True)
class Wanted:
    """What a sweep is asked for.

    Attributes:
        thresholds: on the importance.
        count: so many networks between the largest and the smallest pruned ones that a threshold gives, evenly spaced
            among all that differ.
        macs, params: budgets for the whole network, head included; the nearest network under each.
        shares: budgets as a share of the prunable MACs.
        pruner: 'threshold' (the paper's: one threshold on all edges), or a plug-in that takes the option `share`.
        options: of that plug-in.
        draws: so many networks a budget, from the seeds 0, 1, ... of a pruner that takes the option `seed`.
    """

    thresholds: tuple[float, ...] = ()
    count: int = 0
    macs: tuple[int, ...] = ()
    params: tuple[int, ...] = ()
    shares: tuple[float, ...] = ()
    pruner: str = "threshold"
    options: Mapping[str, Any] = field(default_factory=dict)
    draws: int = 1


@dataclass(frozen=True)
class Candidate:
    """A network of a sweep, or a wish that no connected network fulfils.

    Attributes:
        asked: in words what it answers, for example 'macs <= 600,000,000'.
        pruner, options: what makes it from the factors.
        graph: None where it would be disconnected; `error` then says so.
    """

    asked: str
    pruner: str
    options: Mapping[str, Any]
    graph: Graph | None
    error: str = ""

    @property
    def name(self) -> str:
        """Names the graph by its number of edges and a digest of them: equal graphs are equal networks."""
        if self.graph is None:
            return f"none-{_digest(f'{self.asked} {self.pruner} {self.options}')}"
        return f"e{len(self.graph.edges):03}-{_digest(repr(self.graph.edges))}"


def candidates(wanted: Wanted, factors: Factors, costs: Costs) -> list[Candidate]:
    """Every network asked for, in the order asked.

    Raises:
        RecipeError: when nothing is asked for, or the pruner cannot do it.
    """
    for threshold in wanted.thresholds:
        if not 0 <= threshold < math.inf:
            raise RecipeError(f"threshold {threshold:g} is no importance; give a number of at least 0")
    for share in wanted.shares:
        if not 0 < share <= 1:
            raise RecipeError(f"share {share:g} is no part of the prunable MACs; give a number above 0 and up to 1")
    by_threshold = wanted.thresholds or wanted.count
    budgets = list(_budgets(wanted, costs))
    if not by_threshold and not budgets:
        raise RecipeError("no network is asked for; give thresholds, a count or budgets, for example --count 10")
    if wanted.pruner != "threshold":
        if by_threshold:
            raise RecipeError(f"thresholds and a count are for the pruner 'threshold', not '{wanted.pruner}'")
        if not plugins.takes("pruners", wanted.pruner, "share"):
            raise RecipeError(f"pruner '{wanted.pruner}' takes no share, so it cannot meet a budget; try 'greedy'")
    if wanted.draws > 1 and (wanted.pruner == "threshold" or not plugins.takes("pruners", wanted.pruner, "seed")):
        raise RecipeError(f"pruner '{wanted.pruner}' draws nothing at random; leave --draws out")
    graph, importance = costs.space.graph, factors.importance
    found = [_at(threshold, graph, importance) for threshold in wanted.thresholds]
    if wanted.count:
        every = [found for found in networks(graph, importance) if found[1] != graph]  # that is the supernet
        places = np.unique(np.linspace(0, len(every) - 1, min(wanted.count, len(every))).round().astype(int))
        found += [_at(every[place][0], graph, importance) for place in places]
    choose = _lowest_threshold if wanted.pruner == "threshold" else _by_plugin
    for budget in budgets:
        found += [choose(wanted, budget, draw, factors, costs) for draw in range(wanted.draws)]
    return found


@dataclass(frozen=True)
class _Budget:
    """What is asked, what a network measures, the limit, and the share that meets it where that is known."""

    asked: str
    measure: Callable[[Graph], int]
    limit: float
    share: float | None = None


def _budgets(wanted: Wanted, costs: Costs) -> Iterator[_Budget]:
    for limit in wanted.macs:
        yield _Budget(f"macs <= {limit:,}", lambda graph: costs.total(graph).macs, limit)
    for limit in wanted.params:
        yield _Budget(f"params <= {limit:,}", lambda graph: costs.total(graph).params, limit)
    full = costs.prunable(costs.space.graph).macs
    for share in wanted.shares:
        yield _Budget(f"prunable macs <= {share:.4g}", lambda graph: costs.prunable(graph).macs, share * full, share)


def _at(threshold: float, graph: Graph, importance: Mapping[Any, float]) -> Candidate:
    options = {"threshold": threshold}
    try:
        return Candidate(f"threshold {threshold:g}", "threshold", options, above(graph, importance, threshold))
    except GraphError as err:
        return Candidate(f"threshold {threshold:g}", "threshold", options, None, str(err))


def _lowest_threshold(wanted: Wanted, budget: _Budget, draw: int, factors: Factors, costs: Costs) -> Candidate:
    """The paper's criterion: the lowest threshold that meets the budget."""
    graph, importance = costs.space.graph, factors.importance
    try:
        threshold, kept = largest(graph, importance, budget.measure, budget.limit)
        return Candidate(budget.asked, "threshold", {"threshold": threshold}, kept)
    except GraphError:
        every = networks(graph, importance)
        least = f"; the smallest has {budget.measure(every[-1][1]):,}" if every else ""
        error = f"no threshold gives a connected network with {budget.asked}{least}"
        return Candidate(budget.asked, "threshold", {}, None, error)


def _by_plugin(wanted: Wanted, budget: _Budget, draw: int, factors: Factors, costs: Costs) -> Candidate:
    """The largest network within the budget that a pruner finds, by bisection over its option `share`."""
    options = dict(wanted.options) | ({"seed": draw} if wanted.draws > 1 else {})
    best: tuple[float, Graph] | None = None
    least = ""
    low, high, share = 0.0, 1.0, budget.share or 1.0
    for _ in range(1 if budget.share else STEPS):
        prune = plugins.pruner(wanted.pruner, {**options, "share": share})
        try:
            kept = prune(costs.space.graph, factors.importance, costs)
        except GraphError:  # nothing that small is connected
            low = share
        else:
            if (size := budget.measure(kept)) <= budget.limit:
                best = (share, kept)
                low = share
            else:
                least, high = f"; the smallest it found has {size:,}", share
        if low == 1.0:
            break
        share = (low + high) / 2
    if best is None:
        error = f"pruner '{wanted.pruner}' gives no connected network with {budget.asked}{least}"
        return Candidate(budget.asked, wanted.pruner, options, None, error)
    return Candidate(budget.asked, wanted.pruner, {**options, "share": best[0]}, best[1])


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
