"""Budgets over random importances: never exceeded, never disconnected, close to the best."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import diamond, fixed_net, space_of, supernet

from nasface.cost import Costs, count_space
from nasface.errors import GraphError
from nasface.prune import budget, exact
from nasface.prune.base import worth

SPACES = {"hrsupernet": supernet, "hrnet": fixed_net, "diamond": lambda: space_of(diamond())}


@cache
def costs_of(name: str) -> Costs:
    return count_space(SPACES[name](), 5, 32)


@pytest.mark.slow
@given(st.data())
@settings(deadline=None, max_examples=25)
@pytest.mark.parametrize("name", SPACES)
def test_a_budget_is_never_exceeded_and_never_disconnects(name, data):
    costs = costs_of(name)
    graph = costs.space.graph
    values = {edge: data.draw(st.sampled_from([0.0, 0.1, 0.5]) | st.floats(0, 1)) for edge in graph.prunable}
    kind = data.draw(st.sampled_from(["macs", "params"]))
    full = getattr(costs.total(graph), kind)
    larger, limit = sorted((data.draw(st.integers(1, full)) for _ in range(2)), reverse=True)
    options = {"tolerance": data.draw(st.sampled_from([0.02, 0.2, 1.0])), "per_cost": data.draw(st.booleans())}
    try:
        parent = budget(graph, values, costs, **{kind: larger}, **options)
        kept = budget(graph, values, costs, via=[larger], **{kind: limit}, **options)
    except GraphError:
        return
    assert kept == graph.keep(kept.edges)
    assert set(kept.edges) <= set(parent.edges)
    for some, most in ((parent, larger), (kept, limit)):
        assert (1 - options["tolerance"]) * most <= getattr(costs.total(some), kind) <= most


@pytest.mark.slow
@given(st.data())
@settings(deadline=None, max_examples=10)
@pytest.mark.parametrize("name", SPACES)
def test_nothing_beats_the_exact_one(name, data):
    costs = costs_of(name)
    graph = costs.space.graph
    values = {edge: data.draw(st.floats(0, 1)) for edge in graph.prunable}
    limit = data.draw(st.integers(1, costs.total(graph).macs))
    try:
        best = exact(graph, values, costs, macs=limit)
    except GraphError:
        with pytest.raises(GraphError):
            budget(graph, values, costs, macs=limit, tolerance=1)
        return
    assert best == graph.keep(best.edges)
    assert costs.total(best).macs <= limit
    near = budget(graph, values, costs, macs=limit, tolerance=1)
    assert worth(near, values) <= worth(best, values) + 1e-6
