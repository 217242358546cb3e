"""Pruners with a budget for the whole network: against every sub-graph of tiny spaces, and how they refuse."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from functools import cache
from itertools import combinations, pairwise
from typing import Any

import pytest
from tiny import diamond, fixed_net, importance, space_of, supernet

from nasface.cost import Cost, Costs, count_space
from nasface.errors import GraphError, RecipeError
from nasface.graph import Edge, Graph
from nasface.prune import budget, exact
from nasface.prune.base import worth
from tests.refusal import refused

SPACES = {
    "small": lambda: supernet(stages=3),
    "hrsupernet": supernet,
    "hrnet": fixed_net,
    "diamond": lambda: space_of(diamond()),
}
TINY = pytest.mark.parametrize("name", ["small", "diamond"])


@cache
def costs_of(name: str) -> Costs:
    return count_space(SPACES[name](), 5, 32)


@cache
def every(name: str) -> list[Graph]:
    """Every connected sub-graph of a space."""
    graph = costs_of(name).space.graph
    found: dict[tuple[Edge, ...], Graph] = {}
    for number in range(len(graph.prunable) + 1):
        for edges in combinations(graph.prunable, number):
            try:
                kept = graph.keep_prunable(edges)
            except GraphError:
                continue
            found[kept.edges] = kept
    return list(found.values())


def size(costs: Costs, graph: Graph, kind: str) -> int:
    return costs.prunable(graph).macs if kind == "share" else getattr(costs.total(graph), kind)


def sizes_in(error: Exception) -> list[int]:
    """The sizes that a refusal names: the budget, and those of the nearest networks."""
    return [
        int(number.replace(",", "")) for number in re.findall(r"(\d[\d,]*)(?= (?:MACs|param|prunable))", str(error))
    ]


def budgets(name: str, kind: str, *parts: float) -> list[int]:
    """Budgets between the smallest network and the whole one."""
    costs = costs_of(name)
    least, most = (size(costs, graph, kind) for graph in (smallest(name, kind), costs.space.graph))
    return [round(least + part * (most - least)) for part in parts]


def smallest(name: str, kind: str) -> Graph:
    costs = costs_of(name)
    return exact(costs.space.graph, dict.fromkeys(costs.space.graph.prunable, 0.0), costs, **least_budget(name, kind))


def least_budget(name: str, kind: str) -> dict[str, Any]:
    """The smallest budget that can be met, as the refusal of a smaller one names it."""
    costs = costs_of(name)
    graph = costs.space.graph
    with pytest.raises(GraphError) as caught:
        exact(graph, importance(graph), costs, **({kind: 1} if kind != "share" else {kind: 1e-9}))
    number = sizes_in(caught.value)[-1]
    return {kind: number if kind != "share" else number / costs.prunable(graph).macs}


@TINY
@pytest.mark.parametrize("kind", ["macs", "params"])
@pytest.mark.parametrize("seed", range(3))
def test_exact_is_the_best_of_all_sub_graphs(name, kind, seed):
    costs = costs_of(name)
    graph = costs.space.graph
    values = importance(graph, seed)
    assert min(size(costs, kept, kind) for kept in every(name)) == least_budget(name, kind)[kind]
    for limit in budgets(name, kind, 0.0, 0.3, 0.6, 0.95, 1.0):
        best = max(worth(kept, values) for kept in every(name) if size(costs, kept, kind) <= limit)
        kept = exact(graph, values, costs, **{kind: limit})
        assert kept == graph.keep(kept.edges)
        assert size(costs, kept, kind) <= limit
        assert worth(kept, values) == pytest.approx(best, rel=1e-6)


@TINY
def test_exact_meets_a_share_and_a_tolerance(name):
    costs = costs_of(name)
    graph = costs.space.graph
    values = importance(graph, 1)
    full = costs.prunable(graph).macs
    fitting = [kept for kept in every(name) if costs.prunable(kept).macs <= 0.6 * full]
    assert worth(exact(graph, values, costs, share=0.6), values) == pytest.approx(
        max(worth(g, values) for g in fitting)
    )
    limit = max(costs.total(kept).macs for kept in fitting)
    near = [kept for kept in every(name) if 0.9 * limit <= costs.total(kept).macs <= limit]
    found = exact(graph, values, costs, macs=limit, tolerance=0.1)
    assert worth(found, values) == pytest.approx(max(worth(g, values) for g in near))


def test_exact_counts_any_other_head_in_full():
    """The head costs 10,000 more as soon as three outputs are read: no sum over nodes and pairs."""
    costs = costs_of("small")
    graph = costs.space.graph
    odd = {outs: Cost(0, 1000 + 10_000 * (len(outs) > 2)) for n in (1, 2, 3) for outs in combinations(graph.outputs, n)}
    odd[graph.outputs[1:]] = Cost(0, 5_000)
    strange = replace(costs, heads=odd)
    values = importance(graph)
    limit = strange.total(graph).macs - 1
    kept = exact(graph, values, strange, macs=limit)
    assert strange.total(kept).macs <= limit
    without = dict.fromkeys(odd, odd[graph.outputs])
    best = max(worth(g, values) for g in every("small") if replace(costs, heads=without).total(g).macs <= limit)
    assert worth(kept, values) == pytest.approx(best)


@pytest.mark.parametrize(("name", "share"), [("small", 0.93), ("hrsupernet", 0.95), ("hrnet", 0.8), ("diamond", 1)])
def test_a_budget_is_close_to_the_best(name, share):
    """In sparse graphs, where whole branches have to be chosen, steps are further from it."""
    costs = costs_of(name)
    graph = costs.space.graph
    reached = []
    for seed, limit in enumerate(budgets(name, "macs", 0.3, 0.5, 0.7, 0.9)):
        values = importance(graph, seed)
        kept = budget(graph, values, costs, macs=limit, tolerance=1)
        reached.append(worth(kept, values) / worth(exact(graph, values, costs, macs=limit), values))
        assert costs.total(kept).macs <= limit
    assert max(reached) < 1 + 1e-9
    assert sum(reached) / len(reached) >= share - 1e-9


def test_marginal_costs_are_what_goes_from_the_total():
    """Without both of its edges, node c saves its encoder and its share of nothing else."""
    whole = diamond()
    two_ways = Graph(whole.nodes[:3] + whole.nodes[4:5], whole.edges[:4], ("a",), ("d",))
    costs = count_space(space_of(two_ways), 5, 32)
    cheap, costly = (two_ways.keep([("a", name), (name, "d")]) for name in ("b", "c"))
    limit = max(costs.total(cheap).macs, costs.total(costly).macs)
    alike = dict.fromkeys(two_ways.edges, 1.0)
    assert budget(two_ways, alike, costs, macs=limit, tolerance=1) == cheap
    assert budget(two_ways, alike | dict.fromkeys(costly.edges, 3.0), costs, macs=limit, tolerance=1) == costly


def test_an_output_goes_when_its_head_costs_more_than_its_edges_are_worth():
    costs = costs_of("hrsupernet")
    graph = costs.space.graph
    values = dict.fromkeys(graph.prunable, 1.0) | {edge: 1e-3 for edge in graph.prunable if edge[1] == "4.2"}
    limit = costs.total(graph.keep([edge for edge in graph.edges if edge[1] != "4.2"])).macs
    kept = budget(graph, values, costs, macs=limit)
    assert kept.outputs == ("4.0", "4.1")
    assert costs.total(kept).macs == limit


@pytest.mark.parametrize("name", ["hrsupernet", "hrnet"])
@pytest.mark.parametrize("kind", ["macs", "params", "share"])
def test_budgets_that_know_of_the_larger_ones_are_nested(name, kind):
    costs = costs_of(name)
    graph = costs.space.graph
    values = importance(graph, 3)
    limits: list[float] = [*budgets(name, kind, 0.9, 0.65, 0.4)]
    if kind == "share":
        limits = [limit / costs.prunable(graph).macs for limit in limits]
    family = [
        budget(graph, values, costs, tolerance=0.3, via=limits[:i], **{kind: limit}) for i, limit in enumerate(limits)
    ]
    for larger, smaller in pairwise([graph, *family]):
        assert set(smaller.edges) < set(larger.edges)
    with refused(RecipeError, "via", "budget"):
        budget(graph, values, costs, via=[limits[-1]], **{kind: limits[0]})


def test_ranks_are_followed_edge_by_edge():
    costs = costs_of("hrsupernet")
    graph = costs.space.graph
    ranks = {edge: float(i) for i, edge in enumerate(reversed(graph.prunable))}
    dropped: list[Edge] = []
    rest = graph
    for edge in sorted(graph.prunable, key=ranks.__getitem__)[:3]:
        rest = rest.keep_prunable(other for other in rest.prunable if other != edge)
        dropped.append(edge)
    kept = budget(graph, ranks, costs, macs=costs.total(rest).macs, per_cost=False)
    assert kept == rest


@pytest.mark.parametrize("pruner", [budget, exact])
def test_a_budget_below_the_smallest_network_is_refused(pruner):
    costs = costs_of("hrsupernet")
    graph = costs.space.graph
    with pytest.raises(GraphError) as caught:
        pruner(graph, importance(graph), costs, macs=1000)
    named = sizes_in(caught.value)[-1]
    assert costs.total(pruner(graph, importance(graph), costs, macs=named)).macs == named


def test_a_budget_above_the_whole_network_is_refused_with_its_size():
    costs = costs_of("hrsupernet")
    graph = costs.space.graph
    full = costs.total(graph).macs
    with refused(GraphError, f"{2 * full:,}", f"{full:,}"):
        budget(graph, importance(graph), costs, macs=2 * full)
    assert budget(graph, importance(graph), costs, macs=full) == graph


def test_a_budget_that_nothing_is_near_to_is_refused_with_its_neighbours():
    costs = costs_of("diamond")
    graph = costs.space.graph
    values = importance(graph)
    sizes = sorted({costs.total(kept).macs for kept in every("diamond")})
    below, above = max(pairwise(sizes), key=lambda pair: pair[1] - pair[0])
    limit = above - 1
    assert below < 0.98 * limit
    with pytest.raises(GraphError) as caught:
        budget(graph, values, costs, macs=limit)
    assert sizes_in(caught.value) == [limit, below, above]
    for nearest in (below, above):
        assert costs.total(budget(graph, values, costs, macs=nearest)).macs == nearest


@pytest.mark.parametrize("pruner", [budget, exact])
@pytest.mark.parametrize("given", [{}, {"macs": 10, "params": 10}, {"macs": 10, "share": 0.5}])
def test_exactly_one_budget_is_needed(pruner, given):
    costs = costs_of("diamond")
    graph = costs.space.graph
    with refused(RecipeError, "macs", "params", "share"):
        pruner(graph, importance(graph), costs, **given)


@pytest.mark.parametrize("pruner", [budget, exact])
def test_a_missing_importance_is_named(pruner):
    costs = costs_of("diamond")
    with refused(GraphError, " -> ".join(costs.space.graph.prunable[0])):
        pruner(costs.space.graph, {}, costs, macs=10**9)


def test_a_solver_that_runs_out_of_time_says_so(caplog):
    costs = costs_of("hrnet")
    graph = costs.space.graph
    (limit,) = budgets("hrnet", "macs", 0.5)
    caplog.set_level(logging.WARNING)
    said = ""
    try:
        kept = exact(graph, importance(graph), costs, macs=limit, seconds=1e-6)
    except GraphError as err:  # it had no network yet
        said = str(err)
    else:
        assert costs.total(kept).macs <= limit
    assert "1e-06" in said + caplog.text
