"""The pruners that are no threshold: greedy steps, and the random baseline."""

from __future__ import annotations

import re
from functools import cache

import pytest
from tiny import diamond, fixed_net, importance, space_of, supernet

from nasface.cost import Costs, count_space
from nasface.errors import GraphError
from nasface.graph import Edge, Graph
from nasface.prune import greedy, share
from nasface.prune import random as random_pruner
from tests.refusal import refused

SPACES = {"hrsupernet": supernet, "hrnet": fixed_net}
both = pytest.mark.parametrize("name", SPACES)


@cache
def costs_of(name: str) -> Costs:
    return count_space(SPACES[name](), 5, 32)


@both
@pytest.mark.parametrize("wanted", [0.4, 0.7, 1.0])
def test_greedy_meets_the_budget(name, wanted):
    costs = costs_of(name)
    graph = costs.space.graph
    kept = greedy(graph, importance(graph, 1), costs, share=wanted)
    assert kept == graph.keep(kept.edges)
    assert costs.prunable(kept).macs <= wanted * costs.prunable(graph).macs
    assert (kept == graph) is (wanted == 1)


def test_greedy_keeps_more_importance_than_a_threshold_in_a_dense_space():
    costs = costs_of("hrsupernet")
    graph = costs.space.graph
    for seed in range(4):
        values = importance(graph, seed)
        found, plain = (prune(graph, values, costs, share=0.6) for prune in (greedy, share))
        assert sum(values[e] for e in found.prunable) > sum(values[e] for e in plain.prunable)


def test_greedy_weighs_importance_against_multiply_adds():
    whole = diamond()
    two_ways = Graph(whole.nodes[:3] + whole.nodes[4:5], whole.edges[:4], ("a",), ("d",))
    costs = count_space(space_of(two_ways), 5, 32)
    cheap, dear = ([("a", name), (name, "d")] for name in ("b", "c"))
    assert costs.prunable(two_ways.keep(dear)).macs > 2 * costs.prunable(two_ways.keep(cheap)).macs
    alike = dict.fromkeys(two_ways.edges, 1.0)
    assert greedy(two_ways, alike, costs, share=0.75) == two_ways.keep(cheap)
    assert greedy(two_ways, alike | dict.fromkeys(dear, 10.0), costs, share=0.75) == two_ways.keep(dear)


@both
def test_greedy_never_disconnects_and_refuses_what_it_cannot_reach(name):
    costs = costs_of(name)
    graph = costs.space.graph
    with pytest.raises(GraphError) as caught:
        greedy(graph, importance(graph), costs, share=1e-4)
    reached, wanted = re.findall(r"(\S+)%", str(caught.value))
    assert wanted == "0.0"
    end = float(reached) / 100 + 0.001
    kept = greedy(graph, importance(graph), costs, share=end)
    assert costs.prunable(kept).macs <= end * costs.prunable(graph).macs
    with refused(GraphError, len(graph.prunable), " -> ".join(graph.prunable[0])):
        greedy(graph, {}, costs, share=0.5)


@both
def test_the_random_baseline_ignores_the_factors(name):
    costs = costs_of(name)
    graph = costs.space.graph

    def draw(seed: int, values: dict[Edge, float]) -> Graph:
        return random_pruner(graph, values, costs, share=0.7, seed=seed)

    draws = [draw(seed, importance(graph)) for seed in range(5)]
    assert draws == [draw(seed, importance(graph, 9)) for seed in range(5)]
    assert len({kept.digest for kept in draws}) > 2
    for kept in draws:
        assert kept == graph.keep(kept.edges)
        assert costs.prunable(kept).macs <= 0.7 * costs.prunable(graph).macs


def test_greedy_claims_no_more_than_it_knows():
    costs = count_space(space_of(diamond()), 5, 32)
    graph = costs.space.graph
    small = graph.keep([("a", "b"), ("b", "d")])
    assert costs.prunable(small).macs < 0.2 * costs.prunable(graph).macs
    with pytest.raises(GraphError) as caught:
        greedy(graph, dict.fromkeys(graph.prunable, 1.0), costs, share=0.3)
    assert "no connected network keeps at most" not in str(caught.value)
