"""Pruners: what they keep, against every other choice there is, and how they refuse."""

from __future__ import annotations

import re
from functools import cache

import pytest
from tiny import fixed_net, importance, supernet

from nasface.cost import Costs, count_space
from nasface.errors import GraphError
from nasface.graph import Edge, Graph
from nasface.prune import above, share, threshold, top
from tests.refusal import refused

NUMBER = r"[\d.]+(?:e-\d+)?"

SPACES = {"hrsupernet": supernet, "hrnet": fixed_net}
both = pytest.mark.parametrize("name", SPACES)


@cache
def costs_of(name: str) -> Costs:
    return count_space(SPACES[name](), 5, 32)


def networks(graph: Graph, values: dict[Edge, float]) -> list[Graph]:
    """The network at every threshold that gives another one, largest first."""
    found = []
    for limit in [0.0, *sorted(set(values.values()))]:
        try:
            found.append(above(graph, values, limit))
        except GraphError:
            break
    return found


@both
def test_threshold_keeps_what_is_above_it(name):
    costs = costs_of(name)
    graph = costs.space.graph
    values = importance(graph)
    kept = threshold(graph, values, costs, threshold=0.4)
    assert kept == graph.keep({*graph.fixed, *(e for e in graph.prunable if values[e] > 0.4)})
    assert 0 < len(kept.edges) < len(graph.edges)
    assert all(values[edge] > 0.4 for edge in kept.prunable)
    assert threshold(graph, values, costs, threshold=0) == graph


@both
def test_an_edge_at_the_threshold_goes(name):
    costs = costs_of(name)
    graph = costs.space.graph
    values = dict.fromkeys(graph.prunable, 0.5) | {graph.prunable[-1]: 0.25}
    assert threshold(graph, values, costs, threshold=0.25) == graph.keep_prunable(graph.prunable[:-1])
    assert threshold(graph, values, costs, threshold=0.2499) == graph


@both
@pytest.mark.parametrize("seed", range(3))
def test_a_disconnecting_threshold_is_refused_with_the_largest_that_works(name, seed):
    costs = costs_of(name)
    graph = costs.space.graph
    values = {edge: round(value, 5) for edge, value in importance(graph, seed).items()}
    with pytest.raises(GraphError) as caught:
        threshold(graph, values, costs, threshold=0.9999)
    wanted, limit = map(float, re.findall(NUMBER, str(caught.value)))
    assert wanted == 0.9999
    assert threshold(graph, values, costs, threshold=limit) == networks(graph, values)[-1]
    following = min(value for value in values.values() if value > limit)
    with refused(GraphError, following, limit):
        threshold(graph, values, costs, threshold=following)


@both
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("wanted", [0.2, 0.5, 0.75, 1.0])
def test_share_is_the_largest_network_that_fits(name, seed, wanted):
    costs = costs_of(name)
    graph = costs.space.graph
    values = importance(graph, seed)
    limit = wanted * costs.prunable(graph).macs
    fitting = [kept for kept in networks(graph, values) if costs.prunable(kept).macs <= limit]
    if not fitting:
        with refused(GraphError, f"{wanted:.1%}"):
            share(graph, values, costs, share=wanted)
        return
    kept = share(graph, values, costs, share=wanted)
    assert kept == fitting[0]
    assert costs.prunable(kept).macs == max(costs.prunable(other).macs for other in fitting)


@both
def test_a_share_too_small_is_refused_with_the_smallest_there_is(name):
    costs = costs_of(name)
    graph = costs.space.graph
    values = importance(graph)
    full = costs.prunable(graph).macs
    smallest = min(costs.prunable(kept).macs for kept in networks(graph, values))
    with refused(GraphError, "0.1%", f"{smallest / full:.1%}"):
        share(graph, values, costs, share=0.001)
    assert costs.prunable(share(graph, values, costs, share=smallest / full)).macs == smallest


@both
def test_ties_go_together_under_share(name):
    costs = costs_of(name)
    graph = costs.space.graph
    values = dict.fromkeys(graph.prunable, 1.0) | dict.fromkeys(graph.prunable[-4:], 0.5)
    smaller = graph.keep_prunable(graph.prunable[:-4])
    part = costs.prunable(smaller).macs / costs.prunable(graph).macs
    assert part < 1
    assert share(graph, values, costs, share=(1 + part) / 2) == smaller
    assert share(graph, values, costs, share=1.0) == graph
    with refused(GraphError, f"{0.9 * part:.1%}", f"{part:.1%}"):
        share(graph, values, costs, share=0.9 * part)


@both
@pytest.mark.parametrize("edges", [11, 15, 1000])
def test_top_keeps_the_most_important(name, edges):
    costs = costs_of(name)
    graph = costs.space.graph
    values = importance(graph)
    best = sorted(graph.prunable, key=values.get, reverse=True)[:edges]
    kept = top(graph, values, costs, edges=edges)
    assert kept == graph.keep_prunable(best)
    assert set(kept.prunable) <= set(best)


def test_ties_under_top_go_by_the_order_of_the_graph():
    costs = costs_of("hrsupernet")
    graph = costs.space.graph
    values = dict.fromkeys(reversed(graph.prunable), 0.3)  # in another order than the graph's
    assert top(graph, values, costs, edges=15) == graph.keep(graph.prunable[:15])


def test_top_refuses_to_disconnect():
    costs = costs_of("hrsupernet")
    graph = costs.space.graph
    with refused(GraphError, "disconnected"):
        top(graph, importance(graph), costs, edges=1)


@both
def test_fixed_edges_need_no_importance_and_go_by_closure_alone(name):
    costs = costs_of(name)
    graph = costs.space.graph
    kept = threshold(graph, importance(graph, 2), costs, threshold=0.55)
    chosen = set(kept.prunable)
    assert kept.fixed == graph.closure({*chosen, *graph.fixed}) & graph.fixed
    assert len(kept.edges) < len(graph.edges)


def test_a_missing_importance_is_named():
    graph = supernet().graph
    with refused(GraphError, 1, "1.0 -> 2.1"):
        above(graph, {e: 1.0 for e in graph.prunable if e != ("1.0", "2.1")}, 0.5)


@pytest.mark.parametrize(
    "prune",
    [
        lambda *given: threshold(*given, threshold=0.1),
        lambda *given: share(*given, share=0.5),
        lambda *given: top(*given, edges=5),
    ],
    ids=["threshold", "share", "top"],
)
def test_pruners_name_a_missing_importance(prune):
    costs = costs_of("hrsupernet")
    graph = costs.space.graph
    values = {e: 1.0 for e in graph.prunable if e != ("1.0", "2.1")}
    with refused(GraphError, 1, "1.0 -> 2.1"):
        prune(graph, values, costs)


@pytest.mark.parametrize(
    "prune",
    [lambda *given: threshold(*given, threshold=0.1), lambda *given: share(*given, share=0.5)],
    ids=["threshold", "share"],
)
def test_factors_that_are_all_zero_are_refused_in_words(prune):
    costs = costs_of("hrsupernet")
    graph = costs.space.graph
    with pytest.raises(GraphError):
        prune(graph, dict.fromkeys(graph.prunable, 0.0), costs)


def test_the_threshold_in_the_message_works_for_close_factors():
    costs = costs_of("hrsupernet")
    graph = costs.space.graph
    path = [("1.0", "2.0"), ("2.0", "3.0"), ("3.0", "4.0")]
    values = dict.fromkeys(graph.prunable, 0.12345672) | dict.fromkeys(path, 0.12345678)
    with pytest.raises(GraphError) as caught:
        threshold(graph, values, costs, threshold=0.2)
    _, limit = map(float, re.findall(NUMBER, str(caught.value)))
    assert threshold(graph, values, costs, threshold=limit).edges == tuple(path)
