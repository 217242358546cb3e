"""What a sweep is asked for: thresholds, counts and budgets."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from nasface.arch import Factors
from nasface.cost import Costs, count_space
from nasface.errors import GraphError, RecipeError
from nasface.graph import Graph
from nasface.prune import above, networks
from nasface.scores import HELD_OUT, Stage, SweepRow
from nasface.stages.sweep.candidates import SweepRequest, candidates
from nasface.stages.sweep.choice import best_networks
from tests.refusal import names, refused
from tests.tiny import importance, supernet


@pytest.fixture(scope="module")
def costs() -> Costs:
    return count_space(supernet(), 5, 32)


@pytest.fixture(scope="module")
def factors(costs: Costs) -> Factors:
    graph = costs.space.graph
    values = importance(graph)
    return Factors("hrsupernet", costs.space.options, 5, graph.digest, values, values, {})


def graphs(wanted: SweepRequest, factors: Factors, costs: Costs) -> list[Graph]:
    found = [candidate.graph for candidate in candidates(wanted, factors, costs)]
    assert all(graph is not None for graph in found)
    return [graph for graph in found if graph is not None]


def brute_force(factors: Factors, costs: Costs) -> list[Graph]:
    """Every network that any threshold gives."""
    found = []
    for threshold in (0.0, *factors.importance.values()):
        try:
            found.append(above(costs.space.graph, factors.importance, threshold))
        except GraphError:
            continue
    return found


def test_networks_are_all_that_differ_the_largest_first(factors, costs):
    every = networks(costs.space.graph, factors.importance)
    assert {graph.edges for _, graph in every} == {graph.edges for graph in brute_force(factors, costs)}
    assert len({graph.edges for _, graph in every}) == len(every)
    sizes = [costs.total(graph).macs for _, graph in every]
    assert sizes == sorted(sizes, reverse=True)
    for threshold, graph in every:
        assert above(costs.space.graph, factors.importance, threshold) == graph


def test_a_count_gives_different_networks_from_end_to_end(factors, costs):
    every = [graph for _, graph in networks(costs.space.graph, factors.importance)][1:]  # without the supernet itself
    five = graphs(SweepRequest(count=5), factors, costs)
    assert len({graph.edges for graph in five}) == 5
    assert (five[0], five[-1]) == (every[0], every[-1])


def test_a_count_beyond_what_there_is_gives_all(factors, costs):
    every = [graph for _, graph in networks(costs.space.graph, factors.importance)][1:]
    assert graphs(SweepRequest(count=10_000), factors, costs) == every


@pytest.mark.parametrize("kind", ["macs", "params"])
@pytest.mark.parametrize("part", [0.4, 0.6, 0.9])
def test_a_budget_gives_the_nearest_network_under_it(factors, costs, kind, part):
    every = [getattr(costs.total(graph), kind) for graph in brute_force(factors, costs)]
    nearest = max(size for size in every if size <= min(every) + part * (max(every) - min(every)))
    for budget in (nearest, round(1.015 * nearest)):
        best = max(size for size in every if size <= budget)
        (found,) = graphs(SweepRequest(**{kind: (budget,)}, pruner="threshold"), factors, costs)
        assert getattr(costs.total(found), kind) == best


@pytest.mark.parametrize("pruner", ["threshold", "greedy", "random"])
def test_shares_are_met_by_any_pruner(factors, costs, pruner):
    (found,) = graphs(SweepRequest(shares=(0.6,), pruner=pruner), factors, costs)
    assert costs.prunable(found).macs <= 0.6 * costs.prunable(costs.space.graph).macs


def test_a_pruner_with_a_share_meets_a_budget_of_macs(factors, costs):
    full = costs.total(costs.space.graph).macs
    fixed = full - costs.prunable(costs.space.graph).macs
    budget = round(fixed + 0.7 * (full - fixed))
    (found,) = candidates(SweepRequest(macs=(budget,), pruner="greedy"), factors, costs)
    below = graphs(SweepRequest(shares=(found.options["share"],), pruner="greedy"), factors, costs)[0]
    size = costs.total(below).macs
    if size >= 0.98 * budget:
        assert found.graph == below
    else:
        names(found.error, "greedy", f"{budget:,}", "2%", f"the nearest has {size:,}", "budget")
    (met,) = graphs(SweepRequest(macs=(size,), pruner="greedy"), factors, costs)
    assert fixed < costs.total(met).macs == size
    (all_of_it,) = graphs(SweepRequest(macs=(full,), pruner="greedy"), factors, costs)
    assert all_of_it == costs.space.graph


@pytest.mark.parametrize("kind", ["macs", "params", "shares"])
def test_the_pruner_budget_meets_several_budgets_with_nested_networks(factors, costs, kind):
    def size(graph: Graph) -> float:
        if kind == "shares":
            return costs.prunable(graph).macs / costs.prunable(costs.space.graph).macs
        return getattr(costs.total(graph), kind)

    full = size(costs.space.graph)
    limits = (0.7 * full, 0.9 * full) if kind == "shares" else (round(0.7 * full), round(0.9 * full))
    request = SweepRequest(pruner="budget", options={"tolerance": 0.1}, **{kind: limits})
    small, large = graphs(request, factors, costs)
    assert set(small.edges) < set(large.edges)
    for found, limit in zip((small, large), limits, strict=True):
        assert 0.9 * limit <= size(found) <= limit
    asked, _ = candidates(request, factors, costs)
    assert asked.options["via"] == [limits[1]]


def test_a_pruner_that_refuses_a_budget_says_why(factors, costs):
    whole = costs.total(costs.space.graph).macs
    (found,) = candidates(SweepRequest(macs=(2 * whole,), pruner="budget"), factors, costs)
    assert found.graph is None
    names(found.error, "budget", f"{2 * whole:,}", f"{whole:,}")


def test_the_exact_pruner_meets_budgets(factors, costs):
    limit = round(0.7 * costs.total(costs.space.graph).macs)
    (found,) = graphs(SweepRequest(macs=(limit,), pruner="exact"), factors, costs)
    assert 0.98 * limit <= costs.total(found).macs <= limit


def test_a_target_that_no_threshold_meets_is_refused_with_the_nearest(factors, costs):
    sizes = sorted({costs.total(graph).macs for _, graph in networks(costs.space.graph, factors.importance)})
    low, high = max(pairwise(sizes), key=lambda pair: pair[1] / pair[0])
    target = high - 1
    assert low < 0.98 * target, "the widest gap is wider than the tolerance"
    (found,) = candidates(SweepRequest(macs=(target,), pruner="threshold"), factors, costs)
    assert found.graph is None
    names(found.error, "threshold", f"{target:,} MACs", "2%", f"{low:,} and {high:,}", "'budget'")
    (met,) = graphs(SweepRequest(macs=(round(low / 0.985),), pruner="threshold"), factors, costs)
    assert costs.total(met).macs == low


@pytest.mark.parametrize(
    ("asked", "pruner"),
    [
        ({"macs": (10,)}, "budget"),
        ({"params": (10,)}, "budget"),
        ({"macs": (10,), "shares": (0.5,)}, "threshold"),
        ({"macs": (10,), "count": 3}, "threshold"),
        ({"thresholds": (0.1,)}, "threshold"),
        ({}, "threshold"),
    ],
)
def test_targets_alone_are_met_by_the_pruner_budget(asked, pruner):
    assert SweepRequest(**asked).met_by == pruner
    assert SweepRequest(**asked, pruner="greedy").met_by == "greedy"


def row(name: str, macs: int, nme: float, stage: Stage = Stage.RECALIBRATED) -> SweepRow:
    return SweepRow(name, macs=macs, params=macs // 10, macs_prunable=macs // 2, nme={HELD_OUT.at(stage): nme})


def test_the_best_within_each_budget_are_fine_tuned(costs):
    rows = [row("a", 100, 0.05), row("b", 90, 0.07), row("c", 60, 0.06), row("d", 50, 0.08), row("e", 55, 0.09)]
    rows += [row("other", 40, 0.01, Stage.FINETUNED), row("supernet", 10, 0.01)]

    def best(number: int, **asked: tuple[float, ...]) -> list[str]:
        return best_networks(rows, SweepRequest(**asked), costs, HELD_OUT.at(Stage.RECALIBRATED), number)

    assert best(1, macs=(95, 55)) == ["c", "d"]
    assert best(2, macs=(100, 60)) == ["a", "c", "d"]
    assert best(1, params=(5,)) == ["d"]
    assert best(9, shares=(1e-9,)) == []
    assert best(2) == ["a", "d"]
    assert best(9) == ["a", "c", "d"]


def test_draws_differ_and_say_their_seed(factors, costs):
    found = candidates(SweepRequest(shares=(0.6,), pruner="random", draws=4), factors, costs)
    assert [candidate.options["seed"] for candidate in found] == [0, 1, 2, 3]
    assert len({candidate.name for candidate in found}) > 1


def test_equal_graphs_have_equal_names(factors, costs):
    (threshold, graph), *_ = networks(costs.space.graph, factors.importance)
    macs = costs.total(graph).macs
    by_threshold, by_budget = candidates(SweepRequest(thresholds=(threshold,), macs=(macs,)), factors, costs)
    assert by_threshold.name == by_budget.name
    assert by_threshold.asked != by_budget.asked


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        (SweepRequest(thresholds=(9.0,)), ("disconnect",)),
        (SweepRequest(macs=(1,), pruner="threshold"), ("threshold", "at most 1 MACs", "{smallest:,}")),
        (SweepRequest(params=(1,), pruner="threshold"), ("threshold", "at most 1 parameters")),
        (SweepRequest(macs=(1,), pruner="greedy"), ("greedy", "at most 1 MACs")),
        (SweepRequest(shares=(1e-6,), pruner="random"), ("random", "1e-06")),
    ],
)
def test_what_cannot_be_had_is_said_and_no_error(factors, costs, wanted, says):
    (found,) = candidates(wanted, factors, costs)
    assert found.graph is None
    smallest = min(costs.total(graph).macs for graph in brute_force(factors, costs))
    assert [fact for fact in says if fact.format(smallest=smallest) not in found.error] == []


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        (SweepRequest(count=0), ("count", "--count 10")),
        (SweepRequest(pruner="greedy"), ("threshold", "greedy")),
        (SweepRequest(count=3, pruner="greedy"), ("threshold", "greedy")),
        (SweepRequest(macs=(10,), pruner="top"), ("top", "share")),
        (SweepRequest(macs=(10,), draws=2, pruner="threshold"), ("threshold", "--draws")),
        (SweepRequest(shares=(0.5,), pruner="greedy", draws=2), ("greedy", "--draws")),
        (SweepRequest(thresholds=(-1.0,)), ("-1",)),
        (SweepRequest(count=3, options={"foo": 1}), ("'foo'", "budget")),
        (SweepRequest(shares=(0.5,), options={"foo": 1}), ("'foo'", "budget")),
        (SweepRequest(shares=(1.5,)), ("1.5",)),
    ],
)
def test_what_makes_no_sense_is_refused(factors, costs, wanted, says):
    with refused(RecipeError, *says):
        candidates(wanted, factors, costs)


def test_a_count_that_no_threshold_can_meet_is_refused_unless_more_is_asked_for(factors, costs, caplog):
    equal = dict.fromkeys(factors.importance, 1.0)
    flat = replace(factors, importance=equal)
    with refused(GraphError, "no threshold", "--target-macs"):
        candidates(SweepRequest(count=3), flat, costs)
    assert len(candidates(SweepRequest(count=3, shares=(1.0,)), flat, costs)) == 1
    assert "no threshold" in caplog.text


def test_without_a_request_there_are_ten_and_a_count_of_0_adds_none(factors, costs):
    assert len(graphs(SweepRequest(), factors, costs)) == 10
    assert len(graphs(SweepRequest(shares=(0.6,)), factors, costs)) == 1
    assert len(graphs(SweepRequest(count=0, shares=(0.6,)), factors, costs)) == 1
    assert SweepRequest(count=2, shares=(0.6, 0.4), draws=3).wishes == 8
