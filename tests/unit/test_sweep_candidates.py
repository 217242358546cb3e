"""What a sweep is asked for: thresholds, counts and budgets."""

from __future__ import annotations

import pytest

from nasface.arch import Factors
from nasface.cost import Costs, count_space
from nasface.errors import GraphError, RecipeError
from nasface.graph import Graph
from nasface.prune import above, networks
from nasface.stages.sweep.candidates import Wanted, candidates
from tests.tiny import importance, supernet


@pytest.fixture(scope="module")
def costs() -> Costs:
    return count_space(supernet(), 5, 32)


@pytest.fixture(scope="module")
def factors(costs: Costs) -> Factors:
    graph = costs.space.graph
    values = importance(graph)
    return Factors("hrsupernet", costs.space.options, 5, graph.digest, values, values, {})


def graphs(wanted: Wanted, factors: Factors, costs: Costs) -> list[Graph]:
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
    five = graphs(Wanted(count=5), factors, costs)
    assert len({graph.edges for graph in five}) == 5
    assert (five[0], five[-1]) == (every[0], every[-1])


def test_a_count_beyond_what_there_is_gives_all(factors, costs):
    every = [graph for _, graph in networks(costs.space.graph, factors.importance)][1:]
    assert graphs(Wanted(count=10_000), factors, costs) == every


@pytest.mark.parametrize("kind", ["macs", "params"])
@pytest.mark.parametrize("part", [0.4, 0.6, 0.9])
def test_a_budget_gives_the_nearest_network_under_it(factors, costs, kind, part):
    every = [getattr(costs.total(graph), kind) for graph in brute_force(factors, costs)]
    budget = round(min(every) + part * (max(every) - min(every)))
    (found,) = graphs(Wanted(**{kind: (budget,)}), factors, costs)
    assert getattr(costs.total(found), kind) == max(size for size in every if size <= budget)


@pytest.mark.parametrize("pruner", ["threshold", "greedy", "random"])
def test_shares_are_met_by_any_pruner(factors, costs, pruner):
    (found,) = graphs(Wanted(shares=(0.6,), pruner=pruner), factors, costs)
    assert costs.prunable(found).macs <= 0.6 * costs.prunable(costs.space.graph).macs


def test_a_pruner_with_a_share_meets_a_budget_of_macs(factors, costs):
    full = costs.total(costs.space.graph).macs
    fixed = full - costs.prunable(costs.space.graph).macs
    budget = round(fixed + 0.7 * (full - fixed))
    (found,) = graphs(Wanted(macs=(budget,), pruner="greedy"), factors, costs)
    assert fixed < costs.total(found).macs <= budget
    (all_of_it,) = graphs(Wanted(macs=(full,), pruner="greedy"), factors, costs)
    assert all_of_it == costs.space.graph


def test_draws_differ_and_say_their_seed(factors, costs):
    found = candidates(Wanted(shares=(0.6,), pruner="random", draws=4), factors, costs)
    assert [candidate.options["seed"] for candidate in found] == [0, 1, 2, 3]
    assert len({candidate.name for candidate in found}) > 1


def test_equal_graphs_have_equal_names(factors, costs):
    (threshold, graph), *_ = networks(costs.space.graph, factors.importance)
    macs = costs.total(graph).macs
    by_threshold, by_budget = candidates(Wanted(thresholds=(threshold,), macs=(macs,)), factors, costs)
    assert by_threshold.name == by_budget.name
    assert by_threshold.asked != by_budget.asked


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        (Wanted(thresholds=(9.0,)), "disconnected"),
        (Wanted(macs=(1,)), "no threshold gives a connected network with macs <= 1; the smallest has"),
        (Wanted(macs=(1,), pruner="greedy"), "gives no connected network with macs <= 1; the smallest it found has"),
        (Wanted(shares=(1e-6,), pruner="random"), "pruner 'random' gives no connected network"),
    ],
)
def test_what_cannot_be_had_is_said_and_no_error(factors, costs, wanted, says):
    (found,) = candidates(wanted, factors, costs)
    assert found.graph is None
    assert says in found.error


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        (Wanted(), "no network is asked for"),
        (Wanted(count=3, pruner="greedy"), "are for the pruner 'threshold'"),
        (Wanted(macs=(10,), pruner="top"), "takes no share"),
        (Wanted(macs=(10,), draws=2), "draws nothing at random"),
        (Wanted(shares=(0.5,), pruner="greedy", draws=2), "draws nothing at random"),
    ],
)
def test_what_makes_no_sense_is_refused(factors, costs, wanted, says):
    with pytest.raises(RecipeError, match=says):
        candidates(wanted, factors, costs)
