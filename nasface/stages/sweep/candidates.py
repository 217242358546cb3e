"""The networks that a sweep is asked for: by threshold, by number, by budget, or as architecture files."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nasface import plugins
from nasface.arch import Factors
from nasface.cost import Costs
from nasface.errors import GraphError, RecipeError
from nasface.graph import Graph
from nasface.model.source import read_arch
from nasface.prune import above, largest, networks
from nasface.prune.limit import SLACK

log = logging.getLogger(__name__)

DEFAULT_COUNT = 10
OWN = "own"
"""Stands for the pruner where the edges come from an arch.json of the user's own."""
EVOLUTION = "evolution"
"""Stands for the pruner where the edges come from `--refine`."""
_STEPS = 20  # of the bisection over a share: finer than any single edge


@dataclass(frozen=True)
class SweepRequest:
    """Which networks a sweep is asked for.

    Attributes:
        thresholds: on the importance of edges.
        count: how many networks to spread evenly over all that a threshold gives, from the largest pruned one to the
            smallest. None means `DEFAULT_COUNT` where nothing else is asked for, and otherwise none.
        macs, params: targets for the whole network, head included; each is met within `SLACK` from below, or by
            none.
        shares: budgets as a share of the supernet's prunable MACs; each is met by the largest network within it.
        pruner: what meets the budgets: 'threshold' (as in the paper, one threshold on all edges), or a plug-in that
            accepts the budget as its option `macs`, `params` or `share`. One that accepts `share` alone meets budgets
            of MACs and parameters by bisection. One that accepts `via` is given the larger budgets of the request.
            None takes 'budget' where targets alone are requested, and 'threshold' otherwise.
        options: further options of that plug-in.
        draws: networks per budget, drawn with the seeds 0, 1, ... of a pruner that accepts the option `seed`.
        archs: arch.json files of the same search space.
        refine: how many networks the sweep is to breed from those that it has, by evolution.
    """

    thresholds: tuple[float, ...] = ()
    count: int | None = None
    macs: tuple[int, ...] = ()
    params: tuple[int, ...] = ()
    shares: tuple[float, ...] = ()
    pruner: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    draws: int = 1
    archs: tuple[Path, ...] = ()
    refine: int = 0

    @property
    def number(self) -> int:
        """The `count` that is meant."""
        if self.count is not None:
            return self.count
        return 0 if self.thresholds or self.has_budgets or self.archs else DEFAULT_COUNT

    @property
    def met_by(self) -> str:
        """The `pruner` that is meant."""
        if self.pruner is not None:
            return self.pruner
        targets_alone = (self.macs or self.params) and not (self.thresholds or self.number or self.shares)
        return "budget" if targets_alone else "threshold"

    @property
    def has_budgets(self) -> bool:
        """Whether a budget is among the requests."""
        return bool(self.macs or self.params or self.shares)

    @property
    def wishes(self) -> int:
        """How many networks it may come to: several requests can have the same answer."""
        budgets = len(self.macs) + len(self.params) + len(self.shares)
        return len(self.thresholds) + self.number + budgets * self.draws + len(self.archs) + self.refine

    @property
    def digest(self) -> str:
        """Identifies the request in the study of a sweep."""
        return _digest(json.dumps(asdict(self), sort_keys=True, default=str))


@dataclass(frozen=True)
class Candidate:
    """A network of a sweep, or a request that no connected network meets.

    Attributes:
        asked: the request in words, for example 'macs <= 600,000,000'.
        pruner, options: what makes the network from the factors.
        graph: None where no connected network meets the request; `error` then says why.
    """

    asked: str
    pruner: str
    options: Mapping[str, Any]
    graph: Graph | None
    error: str = ""

    @property
    def name(self) -> str:
        """The name of the graph, made of its number of edges and their digest, so that equal graphs are one network."""
        if self.graph is None:
            return f"none-{_digest(f'{self.asked} {self.pruner} {self.options}')}"
        return f"e{len(self.graph.edges):03}-{_digest(repr(self.graph.edges))}"


def candidates(request: SweepRequest, factors: Factors, costs: Costs) -> list[Candidate]:
    """Find every network asked for, in the order of the requests.

    Raises:
        RecipeError: when nothing is asked for, or the pruner cannot do what is asked.
        GraphError: when an arch.json belongs to another search space, or when only a count is asked for and no
            threshold prunes anything.
    """
    _check(request)
    graph, importance = costs.space.graph, factors.importance
    found = [_at(threshold, graph, importance) for threshold in request.thresholds]
    if request.number:
        pruned = [(threshold, kept) for threshold, kept in networks(graph, importance) if kept != graph]
        if not pruned:
            none = (
                "no threshold leaves a connected network that is smaller than the supernet, so a count of networks "
                "cannot be met; give budgets instead, which the pruner 'budget' meets, for example --target-macs 60M"
            )
            if request.wishes == request.number:
                raise GraphError(none)
            log.warning("%s", none)
        number = min(request.number, len(pruned))
        places = np.unique(np.linspace(0, len(pruned) - 1, number).round().astype(int))
        found += [_at(pruned[place][0], graph, importance) for place in places]
    for budget in _budgets(request, costs):
        choose = _lowest_threshold if request.met_by == "threshold" else _by_bisection
        if request.met_by != "threshold" and plugins.takes("pruners", request.met_by, budget.option):
            choose = _by_option
        for draw in range(request.draws):
            found.append(_near(choose(request, budget, draw, factors, costs), budget, factors, costs))
    return found + [_own(path, costs) for path in request.archs]


def _check(request: SweepRequest) -> None:
    """Refuse a request that cannot be met whatever the factors are, with a RecipeError."""
    for threshold in request.thresholds:
        if not 0 <= threshold < math.inf:
            raise RecipeError(f"the threshold {threshold:g} is not a valid importance; give a finite number from 0 up")
    for share in request.shares:
        if not 0 < share <= 1:
            raise RecipeError(
                f"the share {share:g} of the prunable MACs is not above 0 and at most 1; "
                + (f"did you mean {share / 100:g}?" if 1 < share <= 100 else "give one that is")
            )
    if not request.wishes:
        raise RecipeError(
            "a count of 0 alone requests no network; give a count above 0, thresholds, budgets or arch.json "
            "files, for example --count 10"
        )
    pruner = request.met_by
    if pruner != "threshold":
        plugins.load("pruners", pruner)  # refuses a name that is not known
        if request.thresholds or request.number:
            raise RecipeError(
                f"thresholds and a count need the pruner 'threshold', not '{pruner}'; give budgets instead"
            )
        for option, asked in (("macs", request.macs), ("params", request.params), ("share", request.shares)):
            if asked and not any(plugins.takes("pruners", pruner, known) for known in (option, "share")):
                raise RecipeError(
                    f"the pruner '{pruner}' accepts neither `{option}` nor `share`, so it cannot meet this budget; try "
                    "'budget' or 'greedy'"
                )
    if request.options and (pruner == "threshold" or not (request.macs or request.params or request.shares)):
        raise RecipeError(
            f"the option '{next(iter(request.options))}' has no effect, since no budget is met by a pruner that has "
            "options; give a pruner and a budget, or leave it out"
        )
    if request.draws > 1 and (pruner == "threshold" or not plugins.takes("pruners", pruner, "seed")):
        raise RecipeError(
            f"the pruner '{pruner}' draws nothing at random, so more draws give the same; leave --draws out"
        )


@dataclass(frozen=True)
class _Budget:
    """A limit on the size of a network.

    Attributes:
        asked: the request as it is recorded.
        words: the limit for a message, for example 'at most 600,000,000 MACs'.
        measure: the size of a network.
        limit: its upper limit.
        option: of a pruner that takes such a budget.
        value: of that option.
        larger: the values of the larger budgets of this kind that are asked for.
    """

    asked: str
    words: str
    measure: Callable[[Graph], int]
    limit: float
    option: str
    value: float
    larger: tuple[float, ...]


def _budgets(request: SweepRequest, costs: Costs) -> Iterator[_Budget]:
    def larger(values: Iterable[float], value: float) -> tuple[float, ...]:
        return tuple(sorted({other for other in values if other > value}, reverse=True))

    for kind, unit, limits in (("macs", "MACs", request.macs), ("params", "parameters", request.params)):
        for limit in limits:
            asked, words = f"{kind} <= {limit:,}", f"at most {limit:,} {unit}"
            yield _Budget(asked, words, partial(_size, kind, costs), limit, kind, limit, larger(limits, limit))
    full = costs.prunable(costs.space.graph).macs
    for share in request.shares:
        asked = f"prunable macs <= {share:.4g}"
        words = f"at most {share:.4g} of the prunable MACs ({share * full:,.0f})"
        measure = partial(_size, "share", costs)
        yield _Budget(asked, words, measure, share * full, "share", share, larger(request.shares, share))


def _size(kind: str, costs: Costs, graph: Graph) -> int:
    match kind:
        case "macs":
            return costs.total(graph).macs
        case "params":
            return costs.total(graph).params
    return costs.prunable(graph).macs


def _at(threshold: float, graph: Graph, importance: Mapping[Any, float]) -> Candidate:
    asked, options = f"threshold {threshold:g}", {"threshold": threshold}
    try:
        return Candidate(asked, "threshold", options, above(graph, importance, threshold))
    except GraphError as err:
        return Candidate(asked, "threshold", options, None, str(err))


def _own(path: Path, costs: Costs) -> Candidate:
    arch = read_arch(path)
    if arch.num_landmarks != costs.num_landmarks:
        raise GraphError(
            f"{path} has {arch.num_landmarks} landmarks, but the run has {costs.num_landmarks}; give an architecture "
            "of the run's search space and landmark scheme"
        )
    try:
        return Candidate(f"arch {path}", OWN, {}, arch.subgraph(costs.space.graph))
    except GraphError as err:
        raise GraphError(f"{path}: {err}") from err


def _lowest_threshold(request: SweepRequest, budget: _Budget, draw: int, factors: Factors, costs: Costs) -> Candidate:
    """Choose as the paper does: by the lowest threshold that meets the budget."""
    graph, importance = costs.space.graph, factors.importance
    try:
        threshold, kept = largest(graph, importance, budget.measure, budget.limit)
        return Candidate(budget.asked, "threshold", {"threshold": threshold}, kept)
    except GraphError:
        every = networks(graph, importance)
        least = f"; the smallest one has {budget.measure(every[-1][1]):,}" if every else ""
        error = f"no threshold gives a connected network with {budget.words}{least}"
        return Candidate(budget.asked, "threshold", {}, None, error)


def _by_option(request: SweepRequest, budget: _Budget, draw: int, factors: Factors, costs: Costs) -> Candidate:
    """Give the budget to a pruner that has an option for it."""
    options: dict[str, Any] = {**_options(request, draw), budget.option: budget.value}
    if budget.larger and plugins.takes("pruners", request.met_by, "via"):
        options = {"via": list(budget.larger)} | options  # so that the networks of several budgets are nested
    error = f"the pruner '{request.met_by}' finds no connected network with {budget.words}"
    try:
        kept = plugins.pruner(request.met_by, options)(costs.space.graph, factors.importance, costs)
    except GraphError as err:
        return Candidate(budget.asked, request.met_by, options, None, f"{error} ({err})")
    if (size := budget.measure(kept)) > budget.limit:
        return Candidate(budget.asked, request.met_by, options, None, f"{error}; the one it found has {size:,}")
    return Candidate(budget.asked, request.met_by, options, kept)


def _by_bisection(request: SweepRequest, budget: _Budget, draw: int, factors: Factors, costs: Costs) -> Candidate:
    """Find the largest network within the budget that a pruner gives, by bisection over its option `share`."""
    options = _options(request, draw)
    best: tuple[float, Graph] | None = None
    least = ""
    low, high, share = 0.0, 1.0, 1.0
    for _ in range(_STEPS):
        prune = plugins.pruner(request.met_by, {**options, "share": share})
        try:
            kept = prune(costs.space.graph, factors.importance, costs)
        except GraphError:  # so small a network is disconnected
            low = share
        else:
            if (size := budget.measure(kept)) <= budget.limit:
                best = (share, kept)
                low = share
            else:
                least, high = f"; the smallest one it found has {size:,}", share
        if low == 1.0:
            break
        share = (low + high) / 2
    if best is None:
        error = f"the pruner '{request.met_by}' finds no connected network with {budget.words}{least}"
        return Candidate(budget.asked, request.met_by, options, None, error)
    return Candidate(budget.asked, request.met_by, {**options, "share": best[0]}, best[1])


def _near(found: Candidate, budget: _Budget, factors: Factors, costs: Costs) -> Candidate:
    """Refuse a network that is far below a target, and name the nearest ones that the pruner gives.

    A pruner with a tolerance of its own, such as 'budget', has judged that itself.
    """
    if found.graph is None or budget.option == "share":
        return found
    if found.pruner != "threshold" and plugins.takes("pruners", found.pruner, "tolerance"):
        return found
    if (size := budget.measure(found.graph)) >= (1 - SLACK) * budget.limit:
        return found
    near = [size]
    if found.pruner == "threshold":
        every = [costs.space.graph, *(kept for _, kept in networks(costs.space.graph, factors.importance))]
        near += [above for above in sorted(map(budget.measure, every)) if above > budget.limit][:1]
    there = f"the nearest have {near[0]:,} and {near[1]:,}" if near[1:] else f"the nearest has {near[0]:,}"
    error = (
        f"the pruner '{found.pruner}' gives no network with {budget.words} that comes within {SLACK:.0%} of "
        f"them; {there}: ask for that, or try the pruner 'budget' or 'exact'"
    )
    return Candidate(found.asked, found.pruner, found.options, None, error)


def _options(request: SweepRequest, draw: int) -> dict[str, Any]:
    return dict(request.options) | ({"seed": draw} if request.draws > 1 else {})


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
