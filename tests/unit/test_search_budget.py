"""What searchers that choose a sub-network share: budgets, strengths, costs and groups of edges."""

from __future__ import annotations

from itertools import chain, combinations

import numpy as np
import pytest
import torch
from tiny import diamond, fixed_net, importance, scrambled, space_of, supernet

from nasface.cost import Costs, count_space
from nasface.errors import GraphError, RecipeError
from nasface.graph import Graph
from nasface.net import GraphNet, gains, key, slim_net
from nasface.search.budget import Budget, cost_weights, group_sums, rivals, strengths, switch_off
from tests.refusal import refused


def costs_of(graph: Graph) -> Costs:
    return count_space(space_of(graph), 3, 32)


def sub_graphs(graph: Graph) -> list[Graph]:
    """Every connected sub-graph."""
    found = {}
    for edges in chain.from_iterable(combinations(graph.prunable, n) for n in range(len(graph.prunable) + 1)):
        try:
            kept = graph.keep_prunable(edges)
        except GraphError:
            continue
        found[kept.edges] = kept
    return list(found.values())


@pytest.mark.parametrize("whole", [True, False])
def test_the_cheapest_network_is_the_smallest_of_all(whole):
    graph = diamond()
    costs = costs_of(graph)
    budget = Budget(graph, costs, 10**12, whole)
    assert budget.measure(budget.cheapest(graph)) == min(map(budget.measure, sub_graphs(graph)))


@pytest.mark.parametrize("build", [supernet, fixed_net])
@pytest.mark.parametrize("whole", [True, False])
def test_a_budget_is_met_in_any_order_and_never_disconnects(build, whole):
    space = build()
    graph, costs, random = space.graph, count_space(space, 3, 32), np.random.default_rng(0)
    anything = Budget(graph, costs, 10**12, whole)
    smallest = anything.measure(anything.cheapest(graph))
    for _ in range(25):
        budget = Budget(graph, costs, int(random.integers(smallest, anything.full + 1)), whole)
        order = [graph.prunable[i] for i in random.permutation(len(graph.prunable))]
        kept = budget.within(graph, order)
        assert kept == graph.keep(kept.edges)
        assert budget.measure(kept) <= budget.limit
        assert (kept == graph) == (budget.limit >= budget.full)
    assert budget.measure(Budget(graph, costs, smallest, whole).within(graph, graph.prunable)) == smallest


def test_the_first_in_order_go_first_and_the_last_one_is_chosen_to_end_near_the_budget():
    graph = supernet().graph
    costs = count_space(supernet(), 3, 32)
    worth = importance(graph, seed=3)
    order = sorted(graph.prunable, key=worth.__getitem__)
    for share in (0.9, 0.7, 0.5):
        budget = Budget(graph, costs, int(share * costs.prunable(graph).macs), whole=False)
        kept = budget.within(graph, order)
        assert 0.95 * budget.limit <= costs.prunable(kept).macs <= budget.limit
        gone = [worth[edge] for edge in graph.prunable if edge not in kept.prunable]
        stay = [worth[edge] for edge in kept.prunable]
        assert np.mean(gone) < np.mean(stay)


def test_dropping_stops_at_the_budget_and_passes_over_edges_that_must_stay():
    graph = diamond()
    costs = costs_of(graph)
    budget = Budget(graph, costs, costs.total(graph).macs - 1)
    first = budget.drop(graph, [("b", "d"), ("c", "d")])
    assert ("b", "d") not in first.edges  # one edge is enough,
    assert ("c", "d") in first.edges  # so the other one stays
    low = Budget.none(graph, costs)
    kept = low.drop(graph, graph.prunable)
    assert kept.outputs
    assert low.measure(kept) >= low.limit


def test_budgets_that_cannot_be_met_or_are_given_twice_are_refused():
    graph = diamond()
    costs = costs_of(graph)
    smallest = min(costs.total(kept).macs for kept in sub_graphs(graph))
    with refused(GraphError, f"{smallest - 1:,}", smallest, "search.options"):
        Budget.of(graph, costs, None, smallest - 1)
    with refused(GraphError, "prunable", "search.options"):
        Budget.of(graph, costs, 1e-6, None)
    with refused(RecipeError, "share 0.5", "macs 77"):
        Budget.of(graph, costs, 0.5, 77)
    assert Budget.of(graph, costs, None, None) is None


def test_the_schedule_falls_from_all_macs_to_the_budget():
    costs = costs_of(diamond())
    full = costs.total(diamond()).macs
    limit = full - 8000
    budget = Budget(diamond(), costs, limit)
    assert budget.schedule(0) == full
    assert budget.schedule(0.5) == pytest.approx(limit + 1000, abs=1)
    assert budget.schedule(1) == budget.schedule(7) == limit


def test_strength_is_factor_times_the_mean_gain_of_the_last_norm():
    net = scrambled(supernet())
    graph = net.graph
    by_edge = dict(zip(graph.prunable, strengths(net).tolist(), strict=True))
    identity, conv = ("2.0", "3.0"), ("2.1", "3.0")
    factor = dict(zip(graph.prunable, net.alpha.tolist(), strict=True))
    assert by_edge[identity] == pytest.approx(abs(factor[identity]))
    gain = net.edges[key(*conv)][1].weight.detach().abs().mean()
    assert by_edge[conv] == pytest.approx(abs(factor[conv]) * float(gain))
    assert torch.equal(gains(net)[list(graph.prunable).index(identity)], torch.ones(()))


def test_edges_into_a_node_are_rivals_and_so_are_all_edges_into_outputs():
    graph = diamond()  # prunable: a-b, a-c, b-d, c-d, c-x, x-e, of which d and e are outputs
    groups = rivals(graph).tolist()
    assert groups[2] == groups[3] == groups[5]
    assert len({groups[0], groups[1], groups[2], groups[4]}) == 4
    sums = group_sums(torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), rivals(graph))
    assert sums.tolist() == [1, 2, 13, 13, 5, 13]


def test_an_edge_is_charged_its_own_macs_and_parts_of_encoder_and_head():
    graph = diamond()
    costs = costs_of(graph)
    edges, nodes = costs.edges, costs.nodes
    part = {
        ("a", "b"): edges["a", "b"].macs,  # stage 1 stays
        ("a", "c"): edges["a", "c"].macs,
        ("b", "d"): edges["b", "d"].macs + nodes["b"].macs / 2,  # the fixed edge b -> e reads the encoder, too
        ("c", "d"): edges["c", "d"].macs + nodes["c"].macs / 2,
        ("c", "x"): edges["c", "x"].macs + nodes["c"].macs / 2,
        ("x", "e"): edges["x", "e"].macs + nodes["x"].macs,
    }
    both, d, e = (costs.head(outputs).macs for outputs in (("d", "e"), ("d",), ("e",)))
    for whole in (False, True):
        if whole:
            for edge in part:
                part[edge] += {"d": (both - e) / 2, "e": (both - d) / 2}.get(edge[1], 0)
        mean = sum(part.values()) / len(part)
        found = cost_weights(graph, Budget(graph, costs, 10**12, whole), 1.0)
        assert found == pytest.approx({edge: macs / mean for edge, macs in part.items()})
    assert set(cost_weights(graph, Budget(graph, costs, 10**12), 0.0).values()) == {1.0}


def test_a_network_that_is_switched_off_computes_what_the_slim_one_does():
    space = supernet()
    net = scrambled(space)
    kept = net.graph.keep_prunable(e for e in net.graph.prunable if e[1] not in ("4.1", "3.2"))
    assert kept.outputs != net.graph.outputs
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        wanted = slim_net(net, kept)[0](images)
        switch_off(net, kept)
        assert torch.allclose(net(images), wanted, atol=1e-5)
    left = set(kept.prunable)
    assert [value != 0 for value in net.alpha.tolist()] == [edge in left for edge in net.graph.prunable]


def test_a_gain_of_zero_divides_nothing_by_zero():
    net = GraphNet(supernet(), 3)
    with torch.no_grad():
        net.edges[key("2.1", "3.0")][1].weight.zero_()
    assert bool((gains(net) > 0).all())
